import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pools import Generation, UserError
from pools.cost import CostModel, paper_cost, register_cost_model
from pools.data.recording import load_recording
from pools.pool import load_pool


def answer(tokens_in, tokens_out, cost=None):
    return Generation("", tokens_in, tokens_out, "stop", 0.0, cost)


def test_paper():
    model = paper_cost((0.5, 2.0), "unit")
    assert [model.hop_cost(m, answer(10, 3 + m)) for m in (0, 1)] == [0.5 * 13, 2.0 * 14]
    assert model.hop_cost(1, answer(2**31 - 1, 2**31 - 1)) == 2.0 * 2 * (2**31 - 1)
    assert (model.name, model.unit) == ("paper", "unit")


def test_a_recorded_cost_is_what_counts():
    assert paper_cost((0.5,), "unit").hop_cost(0, answer(10, 3, 7.25)) == 7.25
    recorded = CostModel("billed", "US$", None, None)
    assert recorded.hop_cost(0, answer(0, 0, 7.25)) == 7.25
    with pytest.raises(UserError, match="lacks what it cost"):
        recorded.hop_cost(0, answer(10, 3))


POOL = """
name: priced
cost_unit: unit
rates: made up
models:
  - {name: a, lm_eval: hf, base_rate: 1, price: {input: 0.5, output: 1.5, source: list of 2026-01-01}}
  - {name: b, lm_eval: hf, base_rate: 2}
"""


def test_a_pool_s_cost_models(tmp_path):
    path = tmp_path / "priced.yaml"
    path.write_text(POOL)
    pool = load_pool(str(path))
    assert [pool.cost_model("paper").hop_cost(m, answer(1, 2)) for m in (0, 1)] == [3, 6]
    assert pool.cost_model("paper").source == "made up"
    with pytest.raises(UserError, match="no price for b in pool priced"):
        pool.cost_model("dollars")
    with pytest.raises(UserError, match="unknown cost model 'euros'"):
        pool.cost_model("euros")
    path.write_text(POOL.replace("base_rate: 2}", "base_rate: 2, price: {input: 0, output: 4, source: another}}"))
    dollars = load_pool(str(path)).cost_model("dollars")
    assert [dollars.hop_cost(m, answer(10**6, 10**6)) for m in (0, 1)] == [2.0, 4.0]
    assert (dollars.name, dollars.unit, dollars.source) == ("dollars", "US$", "another; list of 2026-01-01")
    assert replace(pool, billed=True).cost_model("dollars") == CostModel("billed", "unit", None, None, "made up")


def test_a_cost_model_of_your_own(small_recording, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "guides" / "pools.md").read_text(encoding="utf-8")
    file = tmp_path / "per_call.py"
    file.write_text(re.search(r"```python\n# per_call.py\n(.*?)```", page, re.DOTALL)[1], encoding="utf-8")
    tree = load_recording(small_recording, str(file)).tree
    assert (tree.cost[:, 1:] == 1).all() and tree.cost_model.unit == "calls"
    with pytest.raises(UserError, match="known are dollars, paper, per-call"):
        load_recording(small_recording, "euros")
    with pytest.raises(UserError, match="paper takes no argument, got 'junk'"):
        load_recording(small_recording, "paper:junk")


def test_a_cost_model_goes_by_the_name_that_it_is_registered_by(small_recording, tmp_path):
    """So that no router that was trained under another one is taken for its own."""
    file = tmp_path / "double.py"
    file.write_text(
        "from pools.cost import paper_cost, register_cost_model\n\n\n"
        "@register_cost_model('double')\ndef double(pool):\n"
        "    return paper_cost(tuple(2 * model.base_rate for model in pool.models), pool.cost_unit)\n",
        encoding="utf-8",
    )
    tree, paper = load_recording(small_recording, str(file)).tree, load_recording(small_recording).tree
    assert tree.cost_model.name == "double" and np.allclose(tree.cost, 2 * paper.cost)
    with pytest.raises(UserError, match="the name of recorded costs"):
        register_cost_model("billed")
