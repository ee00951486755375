"""AIQ against the zero router, APGR and CPT of a run over cost weights: on paper, and through the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.evaluation.evaluate import Outcome
from harness.evaluation.frontier import aiq
from harness.evaluation.frontier_metrics import AgainstZeroRouter, FrontierMetrics, TwoModels, frontier_metrics
from harness.evaluation.summary import Summary
from harness.tables.grid import frontier_grid
from pools.errors import UserError


def outcome(quality: list[float], cost: list[float], calls: list[list[float]]) -> Outcome:
    zeros, end = np.zeros(len(quality)), np.zeros((len(quality), 1))
    return Outcome(np.array(quality), np.array(cost), zeros, zeros + 1, np.array(calls), end, True)


WEAK = outcome([0, 0, 0, 1], [1, 1, 1, 1], [[1, 0]] * 4)  # 0.25 for 1
STRONG = outcome([1, 1, 0, 1], [3, 3, 3, 3], [[0, 1]] * 4)  # 0.75 for 3
# Of two points, 0.5 for 1.5 with one strong call in four, and all of the strong model's for 2.
FIRST = outcome([1, 0, 0, 1], [3, 1, 1, 1], [[0, 1], [1, 0], [1, 0], [1, 0]])
SECOND = outcome([1, 1, 0, 1], [3, 3, 1, 1], [[0, 1], [0, 1], [1, 0], [1, 0]])
SWEPT = [{"router": FIRST, "strong": STRONG}, {"router": SECOND, "strong": STRONG}]
SINGLES = {"weak": WEAK, "strong": STRONG}


def ahead(found: FrontierMetrics, router: str) -> AgainstZeroRouter:
    figures = found.routers[router]
    assert figures is not None
    return figures


def between(found: FrontierMetrics) -> TwoModels:
    assert found.two_models is not None
    return found.two_models


def test_on_paper() -> None:
    found = frontier_metrics(SWEPT, SINGLES, costs=True, max_hops=1, seed=1)
    assert found.cost_range == (1, 3)
    # The single models' hull: (0, 0), (1, 0.25), (3, 0.75), one straight line; from 1 to 3 its mean is 0.5.
    assert found.zero_router is not None and found.zero_router.aiq == pytest.approx(0.5)
    # The router's: (0, 0), (2, 0.75) and level, since (1.5, 0.5) lies below that line.
    assert ahead(found, "router").aiq == pytest.approx(((0.375 + 0.75) / 2 + 0.75) / 2)
    assert ahead(found, "router").aiq_ahead == pytest.approx(0.65625 - 0.5)
    assert ahead(found, "strong").aiq_ahead == pytest.approx(0)
    two = found.two_models
    assert two is not None
    assert (two.strong, two.weak, two.undefined) == ("strong", "weak", None)
    mine = two.routers["router"]
    assert mine.strong_share == [0.25, 0.5] and mine.other_share == [0, 0]
    # PGR 0, 0.5, 1, 1 at shares 0, 0.25, 0.5, 1.
    assert mine.apgr == pytest.approx(0.25 * 0.25 + 0.25 * 0.75 + 0.5)
    assert (mine.cpt_50, mine.cpt_80) == (pytest.approx(0.25), pytest.approx(0.25 + 0.25 * 0.6))
    # One that only ever calls the strong model is on the diagonal.
    assert two.routers["strong"].apgr == pytest.approx(0.5)


def test_the_interval_is_of_paired_resamples() -> None:
    generator = np.random.default_rng(5)
    n = 40
    quality = {key: (generator.random(n) < p).astype(float) for key, p in (("weak", 0.3), ("strong", 0.7))}
    calls = {"weak": [[1.0, 0.0]] * n, "strong": [[0.0, 1.0]] * n}
    singles = {
        key: outcome(quality[key].tolist(), [cost] * n, calls[key]) for key, cost in (("weak", 1), ("strong", 3))
    }
    best = np.maximum(quality["weak"], quality["strong"])
    router = outcome(best.tolist(), (1 + 2 * (best > quality["weak"])).tolist(), [[1.0, 0.0]] * n)
    found = frontier_metrics([{"router": router}, {"router": router}], singles, costs=True, max_hops=1, seed=7)
    differences = []
    for _ in range(1500):
        drawn = generator.integers(0, n, n)
        mine = aiq([router.cost[drawn].mean()], [router.quality[drawn].mean()], 1, 3)
        theirs = aiq([1, 3], [quality["weak"][drawn].mean(), quality["strong"][drawn].mean()], 1, 3)
        differences.append(mine - theirs)
    expected = np.percentile(differences, [2.5, 97.5]).tolist()
    assert ahead(found, "router").aiq_ahead_interval == pytest.approx(expected, abs=0.015)
    again = frontier_metrics([{"router": router}], singles, costs=True, max_hops=1, seed=7)
    assert ahead(again, "router").aiq_ahead_interval == pytest.approx(ahead(found, "router").aiq_ahead_interval)
    # Paired: one that has the single models' points is the zero router in every resample.
    alike = frontier_metrics([{"r": single} for single in singles.values()], singles, costs=True, max_hops=1, seed=7)
    assert ahead(alike, "r").aiq_ahead_interval == pytest.approx([0, 0])


def test_where_they_are_not_defined() -> None:
    no_costs = frontier_metrics(SWEPT, SINGLES, costs=False, max_hops=1, seed=1)
    assert no_costs.zero_router is None and no_costs.routers == {"router": None, "strong": None}
    assert between(no_costs).routers["router"].apgr == pytest.approx(0.75)
    hops = frontier_metrics(SWEPT, SINGLES, costs=True, max_hops=2, seed=1)
    assert "several hops" in (between(hops).undefined or "") and not between(hops).routers
    level = frontier_metrics([{"a": WEAK}], {"a": WEAK, "b": WEAK}, costs=True, max_hops=1, seed=1)
    assert level.zero_router is None and "not better than" in (between(level).undefined or "")
    three = {**SINGLES, "third": outcome([1, 1, 1, 1], [2, 2, 2, 2], [[0, 0, 1]] * 4)}
    assert frontier_metrics(SWEPT, three, costs=True, max_hops=1, seed=1).two_models is None
    with pytest.raises(UserError, match="weak is not better than strong"):
        frontier_metrics(SWEPT, SINGLES, True, 1, 1, strong="weak", weak="strong")


def test_of_three_models_two_are_named() -> None:
    def padded(o: Outcome, third: float) -> Outcome:
        calls = np.column_stack([o.calls * (1 - third), np.full(len(o.calls), third)])
        return Outcome(o.quality, o.cost, o.routing_cost, o.hops, calls, o.end, True)

    singles = {"weak": padded(WEAK, 0), "strong": padded(STRONG, 0), "third": padded(WEAK, 1)}
    found = frontier_metrics([{"r": padded(FIRST, 0.5)}], singles, True, 1, 1, strong="strong", weak="weak")
    mine = between(found).routers["r"]
    assert (mine.strong_share, mine.other_share) == ([0.125], [0.5])
    assert mine.cpt_50 == pytest.approx(0.125)


def test_of_two_models_nothing_is_left_to_others_by_rounding() -> None:
    mixed = outcome([1, 0, 0, 1], [3, 1, 1, 1], [[0.05, 0.95]] * 4)  # 1 - 0.95 - 0.05 is 4e-17
    found = frontier_metrics([{"r": mixed}], SINGLES, costs=True, max_hops=1, seed=1)
    assert between(found).routers["r"].other_share == [0.0]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, harness: Callable[..., int]) -> Path:
    """Two models of one hop: `small` answers one kind of question, `big` both."""
    folder = tmp_path_factory.mktemp("frontier")
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "task", "prompt", "model", "score", "cost", "split"])
        for n in range(90):
            hard = n % 3 == 0
            prompt = f"{'prove the theorem' if hard else 'name the capital'} {n}"
            split = ("train", "validation", "test")[n // 3 % 3]
            writer.writerow([n, "mixed", prompt, "small", float(not hard), 1, split])
            writer.writerow([n, "mixed", prompt, "big", 1.0, 4, split])
    assert harness("import", folder / "t.csv", "--out", folder / "recording") == 0
    return folder / "recording"


def test_a_run_over_cost_weights(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], harness: Callable[..., int]
) -> None:
    run = ("run", "--recording", recording, "--router", "knn", "--cost-weight", "0,0.1,9", "--baselines", "no")
    assert harness(*run, "--out", tmp_path / "run") == 0
    found: dict[str, Any] = json.loads((tmp_path / "run" / "summary.json").read_text())
    metrics = found["frontier_metrics"]
    # 30 test items, 10 of them hard: small has 2/3 for 1, big 1 for 4, whether or not they have rows of their own.
    assert metrics["cost_range"] == [1, 4]
    assert metrics["zero_router"]["aiq"] == pytest.approx((2 / 3 + 1) / 2)
    points = [point["routers"]["knn"] for point in found["frontier"]]
    assert points[-1]["cost"] == 1 and points[-1]["quality"] == pytest.approx(2 / 3)
    two = metrics["two_models"]
    assert (two["strong"], two["weak"]) == ("big", "small")
    shares = two["routers"]["knn"]["strong_share"]
    assert [1 + 3 * share for share in shares] == pytest.approx([point["cost"] for point in points])
    shown = capsys.readouterr().out
    assert "zero router" in shown and "APGR" in shown and "CPT" in shown
    (row,) = (row for row in frontier_grid(Summary.model_validate_json(json.dumps(found))).rows if row.name == "knn")
    assert row.cells[3].lines[0] == f"{metrics['routers']['knn']['aiq']:.3f}" and row.cells[3].mark == "+"
    written = [(tmp_path / "run" / f"tables.{kind}").read_text(encoding="utf-8") for kind in ("md", "tex")]
    assert all("zero router" in text and "APGR" in text for text in written)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strong", "big"), "go together"),
        (("--strong", "big", "--weak", "big"), "go together"),
        (("--strong", "big", "--weak", "tiny"), "unknown model 'tiny'"),
        (("--strong", "big", "--weak", "small"), "several cost weights"),
        (("--strong", "small", "--weak", "big"), "small is not better than big"),
    ],
)
def test_two_models_that_are_none_are_refused(
    arguments: tuple[str, ...],
    message: str,
    recording: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harness: Callable[..., int],
) -> None:
    weights = "1" if message == "several cost weights" else "0,1"
    run = ("run", "--recording", recording, "--router", "random", "--cost-weight", weights)
    assert harness(*run, *arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
