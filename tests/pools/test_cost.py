import numpy as np
import pytest

from pools import UserError
from pools.cost import dollar_cost, paper_cost
from pools.pool import load_pool


def test_paper():
    cost = paper_cost((0.5, 2.0), "unit")
    assert cost.hop_cost([0, 1], [10, 10], [3, 4]).tolist() == [0.5 * 13, 2.0 * 14]
    assert cost.hop_cost(1, 10, 4) == 28
    assert (cost.name, cost.unit) == ("paper", "unit")


def test_dollars_have_two_prices():
    cost = dollar_cost((1.0, 3.0), (2.0, 15.0), "price list")
    assert cost.hop_cost([0, 1], [1_000_000, 0], [0, 1_000_000]).tolist() == [1.0, 15.0]
    assert cost.hop_cost(1, 1000, 10) == pytest.approx((3.0 * 1000 + 15.0 * 10) / 1e6, rel=1e-12)
    assert (cost.name, cost.unit, cost.source) == ("dollars", "US$", "price list")


def test_arrays_of_any_shape():
    cost = paper_cost((1.0, 10.0, 100.0), "unit")
    tokens = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert cost.hop_cost(np.arange(3), tokens, tokens * 0).tolist() == [[0, 10, 200], [3, 40, 500]]
    # Token counts are int32, their cost must not be.
    assert cost.hop_cost(2, np.int32(2**31 - 1), np.int32(2**31 - 1)) == 100.0 * 2 * (2**31 - 1)


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
    assert pool.cost_model("paper").hop_cost([0, 1], 1, 2).tolist() == [3, 6]
    assert pool.cost_model("paper").source == "made up"
    with pytest.raises(UserError, match="no price for b in pool priced"):
        pool.cost_model("dollars")
    with pytest.raises(UserError, match="unknown cost model 'euros'"):
        pool.cost_model("euros")
    path.write_text(POOL.replace("base_rate: 2}", "base_rate: 2, price: {input: 0, output: 4, source: another}}"))
    dollars = load_pool(str(path)).cost_model("dollars")
    assert dollars.hop_cost([0, 1], 10**6, 10**6).tolist() == [2.0, 4.0]
    assert dollars.source == "another; list of 2026-01-01"
