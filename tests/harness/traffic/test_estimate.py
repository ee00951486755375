"""`estimate` on logs whose truth is known: routers by name, from a checkpoint and as objects; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness as api
from pools.errors import UserError
from routers import RouterRequest, RoutingStates

Run = Callable[..., int]
RIGHT = {"coat": {"small": 0.9, "large": 0.9}, "soup": {"small": 0.2, "large": 0.8}}
CHOSEN = {"coat": {"small": 0.3, "large": 0.7}, "soup": {"small": 0.6, "large": 0.4}}
COST = {"small": 0.001, "large": 0.01}


def call(query: str, model: str, score: float | None, **more: Any) -> dict[str, Any]:
    """A line of a log."""
    request = {"model": model, "messages": [{"role": "user", "content": query}]}
    response = {"choices": [{"message": {"role": "assistant", "content": f"said {model}"}}]}
    return {"request": request, "response": response, "cost": COST[model], "score": score, **more}


def traffic(calls: int, seed: int = 1) -> list[dict[str, Any]]:
    """Half of the calls ask for a coat, which both models know; soup is better asked of the large one."""
    generator, rows = np.random.default_rng(seed), []
    for number in range(calls):
        kind = ("coat", "soup")[number % 2]
        model = str(generator.choice(list(CHOSEN[kind]), p=list(CHOSEN[kind].values())))
        score = float(generator.random() < RIGHT[kind][model])
        rows.append(call(f"Number {number}: which {kind} is it?", model, score, propensity=CHOSEN[kind][model]))
    return rows


def written(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class ByWord:
    """The large model for soup, the small one for coats: worth 0.85 at a cost of 0.0055."""

    def __init__(self, request: RouterRequest) -> None:
        self.small, self.large = map(request.models.index, ("small", "large"))

    def act(self, states: RoutingStates) -> np.ndarray:
        return np.array([self.large if "soup" in context.query else self.small for context in states.contexts])


def test_routers_are_estimated_by_name_from_a_checkpoint_and_as_objects(
    tmp_path: Path, harness: Run, capsys: Any
) -> None:
    sample = [
        call(f"Sample {n}: which {kind} is it?", model, float(RIGHT[kind][model] > 0.5))
        for n in range(60)
        for kind in ("coat", "soup")
        for model in COST
    ]
    shadow, log = written(sample, tmp_path / "sample.jsonl"), written(traffic(4000), tmp_path / "log.jsonl")
    assert harness("import", shadow, "--out", tmp_path / "recording") == 0
    policy = tmp_path / "knn.safetensors"
    train = ("train", "--recording", tmp_path / "recording", "--router", "knn", "--cost-weight", 10)
    assert harness(*train, "--out", policy) == 0
    out = tmp_path / "estimates.json"
    command = ("estimate", log, "--router", "knn", "--checkpoint", policy, "--cost-weight", 10, "--out", out)
    assert harness(*command) == 0
    said = capsys.readouterr().out
    assert "doubly robust, with 95% intervals" in said and "cost per call" in said
    found = json.loads(out.read_text())
    assert found["split"] == "test" and found["models"] == ["small", "large"] and found["cost_unit"] == "US$"
    truth = {"knn": (0.85, 0.0055), "single:small": (0.55, 0.001), "single:large": (0.85, 0.01)}
    truth["random"] = (0.7, 0.0055)
    for name, (quality, cost) in truth.items():
        entry = found["routers"][name]
        for way in ("inverse_propensity", "self_normalised", "doubly_robust"):
            estimated = entry["quality"][way]
            assert estimated["mean"] == pytest.approx(quality, abs=0.08)
            assert estimated["low"] < estimated["mean"] < estimated["high"]
        robust = entry["quality"]["doubly_robust"]
        assert robust["low"] <= quality <= robust["high"]
        assert entry["cost"]["doubly_robust"]["mean"] == pytest.approx(cost, abs=3e-4)
        value = entry["quality"]["doubly_robust"]["mean"] - 10 * entry["cost"]["doubly_robust"]["mean"]
        assert entry["value"]["doubly_robust"]["mean"] == pytest.approx(value)
    assert found["routers"]["knn"]["value_ahead"]["low"] > 0 > found["routers"]["single:small"]["value_ahead"]["high"]
    mine = api.estimate(log, {"mine": ByWord}, cost_weight=10, split="all")
    assert mine.calls == 4000 and mine.routers["mine"].quality is not None
    assert abs(mine.routers["mine"].quality.doubly_robust.mean - 0.85) < 0.04
    # Of a fixed seed the numbers are fixed.
    before = out.read_text()
    assert harness(*command) == 2 and out.read_text() == before
    assert harness(*command, "--force") == 0
    again = json.loads(out.read_text())
    assert again["routers"] == json.loads(before)["routers"]


def test_what_the_shadow_router_would_have_done_is_a_row(tmp_path: Path) -> None:
    rows = traffic(2000)
    for row in rows:
        kind = "soup" if "soup" in row["request"]["messages"][0]["content"] else "coat"
        row["shadow"] = {"router": "r", "choices": {"large": 1.0} if kind == "soup" else {"small": 0.9, "large": 0.1}}
    found = api.estimate(written(rows, tmp_path / "log.jsonl"), split="all", quality_only=True)
    quality = found.routers["shadow:r"].quality
    assert quality is not None and quality.doubly_robust.low < 0.85 < quality.doubly_robust.high
    assert found.cost_unit == ""
    for row in rows[:200]:  # of the last calls before a stop, and those that it failed at, there is no decision
        del row["shadow"]
    some = api.estimate(written(rows, tmp_path / "log.jsonl"), split="all", quality_only=True).routers["shadow:r"]
    alone = api.estimate(written(rows[200:], tmp_path / "log.jsonl"), split="all", quality_only=True)
    assert some.quality is not None and some.undecided == 200
    assert some.quality.inverse_propensity == alone.routers["shadow:r"].quality.inverse_propensity
    # After an answer it would have decided again, and what is not known.
    rows[-1]["shadow"]["max_hops"] = 3
    many = api.estimate(written(rows, tmp_path / "log.jsonl"), split="all", quality_only=True).routers["shadow:r"]
    assert many.quality is None and many.refused.startswith("it may call 3 models, and its first decision alone")


def test_a_log_in_which_nothing_was_drawn_is_refused(tmp_path: Path) -> None:
    of_one = [call(f"Number {n}: which coat?", "small", 1.0, propensity=0.5) for n in range(600)]
    with pytest.raises(UserError, match="all calls are of small; draw the model of some requests at random"):
        api.estimate(written(of_one, tmp_path / "log.jsonl"), split="all")
    # One call in a hundred is of the other, by a rule, which the mean weight alone does not tell.
    rule = [call(f"Number {n}: which coat?", "small" if n % 100 else "large", 1.0, propensity=1.0) for n in range(1000)]
    with pytest.raises(UserError, match="every propensity is 1; a log whose models were chosen by a fixed rule"):
        api.estimate(written(rule, tmp_path / "log.jsonl"), split="all")


def test_a_router_without_overlap_has_no_figures_and_calls_that_lack_something_are_counted(
    tmp_path: Path, harness: Run, capsys: Any
) -> None:
    rows = traffic(3000)
    rows += [{**call(f"Rare {n}?", "large", 1.0, propensity=0.01), "model": "rare"} for n in range(3)]
    rows[0]["score"], rows[1]["propensity"] = None, None
    assert harness("estimate", written(rows, tmp_path / "log.jsonl"), "--split", "all", "--cost-weight", 10) == 0
    said = capsys.readouterr().out
    assert "calls without a score, left out: 1\n" in said and "calls without a propensity, left out: 1\n" in said
    assert "single:rare" in said and "too little overlap: 3 effective requests, 100 are needed" in said


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({"propensity": None}, (), "600 calls can be used, 600 have no propensity; routers are estimated"),
        ({"propensity": None}, (), "chosen by a fixed rule cannot tell"),
        ({"score": None}, (), "600 calls can be used, 600 have no score; routers"),
        ({"propensity": 0.0}, (), "entry 1: propensity: Input should be greater than 0"),
        ({"propensity": 1.0}, (), "a log whose models were chosen by a fixed rule cannot tell"),
        ({"score": 2}, (), "score"),
        ({"cost": None}, (), "no call has a cost; give --prices of its tokens, or --quality-only"),
        ({}, ("--router", "knn"), "router knn learns from the answers of every model, and a log has one"),
        ({}, ("--router", "single:x"), "unknown model 'x'"),
        ({}, ("--cost-unit", "EUR"), ""),
        ({"cost_unit": "EUR"}, ("--prices", "small=1,1"), "costs in 'EUR' and in 'US$'; convert them to one unit"),
    ],
)
def test_what_cannot_be_estimated_is_refused_in_one_line(
    tmp_path: Path, harness: Run, capsys: Any, change: dict[str, Any], arguments: tuple[str, ...], said: str
) -> None:
    log = written([{**row, **change} for row in traffic(600)], tmp_path / "log.jsonl")
    code = harness("estimate", log, "--split", "all", *arguments)
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == ((2, 1) if said else (0, 0)), error
    assert said in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "log.jsonl is empty"),
        ("\n \n", "log.jsonl is empty"),
        ('{}\n\n{"request": {"mod', "log.jsonl: line 3 cannot be read: Unterminated string"),
    ],
)
def test_a_log_that_is_empty_or_cut_off_is_told_as_such(
    tmp_path: Path, harness: Run, capsys: Any, text: str, said: str
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(text)
    for command in ("estimate", "import"):
        assert harness(command, log) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
