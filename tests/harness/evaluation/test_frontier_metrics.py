"""AIQ and cost at parity, APGR and CPT of a run over cost weights: on paper, and through the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.evaluation.frontier import Points, aiq
from harness.evaluation.frontier_metrics import AgainstZeroRouter, FrontierMetrics, TwoModels, frontier_metrics
from harness.evaluation.summary import Summary
from harness.evaluation.sweep import Sweep
from harness.tables.grid import frontier_grid
from pools.errors import UserError
from routers.checkpoint import read_checkpoint

Point = tuple[list[float], list[float], list[list[float]]]


def swept(*points: Point) -> Sweep:
    quality, cost, called = (np.array(part, np.float64) for part in zip(*points, strict=True))
    return Sweep(np.arange(len(points)).astype(float), Points(cost, quality), called)


WEAK: Point = [0, 0, 0, 1], [1, 1, 1, 1], [[1, 0]] * 4  # 0.25 for 1
STRONG: Point = [1, 1, 0, 1], [3, 3, 3, 3], [[0, 1]] * 4  # 0.75 for 3
# Of two points, 0.5 for 1.5 with one strong call in four, and all of the strong model's for 2.
FIRST: Point = [1, 0, 0, 1], [3, 1, 1, 1], [[0, 1], [1, 0], [1, 0], [1, 0]]
SECOND: Point = [1, 1, 0, 1], [3, 3, 1, 1], [[0, 1], [0, 1], [1, 0], [1, 0]]
ROUTERS = {"router": swept(FIRST, SECOND), "strong": swept(STRONG, STRONG)}
SINGLES = {"weak": swept(WEAK), "strong": swept(STRONG)}


def metrics(
    routers: Mapping[str, Sweep],
    singles: Mapping[str, Sweep],
    costs: bool = True,
    one_call_each: bool = True,
    **named: str,
) -> FrontierMetrics:
    return frontier_metrics(routers, routers, singles, costs, one_call_each, seed=7, **named)


def ahead(found: FrontierMetrics, router: str) -> AgainstZeroRouter:
    figures = found.routers[router]
    assert figures is not None
    return figures


def between(found: FrontierMetrics) -> TwoModels:
    assert found.two_models is not None
    return found.two_models


def test_on_paper() -> None:
    found = metrics(ROUTERS, SINGLES)
    assert found.cost_range == (1, 3)
    # The single models' hull: (0, 0), (1, 0.25), (3, 0.75), one straight line; from 1 to 3 its mean is 0.5.
    assert found.zero_router is not None and found.zero_router.aiq == pytest.approx(0.5)
    # The router's: (0, 0), (2, 0.75) and level, since (1.5, 0.5) lies below that line.
    assert ahead(found, "router").aiq == pytest.approx(((0.375 + 0.75) / 2 + 0.75) / 2)
    assert ahead(found, "router").aiq_ahead == pytest.approx(0.65625 - 0.5)
    # 98% of 0.75 on the line from (0, 0) to (2, 0.75), of the strong model's cost of 3; the zero router's to (3, 0.75).
    assert found.best_model == "strong" and found.zero_router.parity is not None
    assert found.parity["router"].keeps_98 == pytest.approx(0.98 * 2 / 3)
    assert found.parity["router"].keeps_100 == pytest.approx(2 / 3)
    assert found.zero_router.parity.keeps_98 == pytest.approx(0.98)
    two = between(found)
    assert (two.strong, two.weak, two.undefined) == ("strong", "weak", None)
    mine = two.routers["router"]
    assert mine.strong_share == [0.25, 0.5] and mine.other_share == [0, 0]
    # PGR 0, 0.5, 1, 1 at shares 0, 0.25, 0.5, 1.
    assert mine.apgr == pytest.approx(0.25 * 0.25 + 0.25 * 0.75 + 0.5)
    assert (mine.cpt_50, mine.cpt_80) == (pytest.approx(0.25), pytest.approx(0.25 + 0.25 * 0.6))
    # One that only ever calls the strong model is on the diagonal.
    assert two.routers["strong"].apgr == pytest.approx(0.5)


def test_single_models_are_mixed_in_and_a_curve_that_spans_too_little_has_no_aiq() -> None:
    # One that is the strong model spans nothing; it reaches parity, by mixing at the zero router's cost.
    found = metrics(ROUTERS, SINGLES)
    assert found.routers["strong"] is None and "span 0%" in found.withheld["strong"]
    assert found.parity["strong"].keeps_98 == pytest.approx(0.98)
    # 0.25 for 2.2 to 0.5 for 3 spans two fifths; below the zero router, which would be all that its hull shows.
    worse = swept(([0, 0, 0, 1], [2.2] * 4, [[1, 0]] * 4), ([1, 0, 0, 1], [3] * 4, [[0, 1]] * 4))
    found = metrics({"worse": worse}, SINGLES)
    assert found.routers["worse"] is None and "span 40%" in found.withheld["worse"]
    assert found.parity["worse"].keeps_98 is None
    # From 0.25 for 1.9 it spans more than half: single models are mixed in, so that it is level with the zero router.
    wide = swept(([0, 0, 0, 1], [1.9] * 4, [[1, 0]] * 4), ([1, 0, 0, 1], [3] * 4, [[0, 1]] * 4))
    assert ahead(metrics({"wide": wide}, SINGLES), "wide").aiq_ahead == pytest.approx(0)
    # As good as the best model for 1.5, at whatever weight: more money buys nothing, so it spans all from there.
    early = swept(([1, 1, 0, 1], [1.5] * 4, [[1, 0]] * 4))
    assert ahead(metrics({"early": early}, SINGLES), "early").aiq == pytest.approx(0.75 - 0.5 * 0.25 / 2 / 2)


def drawn(seed: int, items: int) -> tuple[dict[str, Sweep], dict[str, NDArray[np.float64]]]:
    """Two models of one table, and their qualities."""
    generator = np.random.default_rng(seed)
    quality = {key: (generator.random(items) < p).astype(float) for key, p in (("weak", 0.3), ("strong", 0.7))}
    calls = {"weak": [[1.0, 0.0]] * items, "strong": [[0.0, 1.0]] * items}
    singles = {
        key: swept((quality[key].tolist(), [float(cost)] * items, calls[key]))
        for key, cost in (("weak", 1), ("strong", 3))
    }
    return singles, quality


def test_the_interval_is_of_paired_resamples_reflected_at_the_figure() -> None:
    n, generator = 40, np.random.default_rng(5)
    singles, quality = drawn(5, n)
    best = np.maximum(quality["weak"], quality["strong"])
    router = best.tolist(), (1 + 2 * (best > quality["weak"])).tolist(), [[1.0, 0.0]] * n
    found = ahead(metrics({"router": swept(router)}, singles), "router")
    differences = []
    for _ in range(1500):
        rows = generator.integers(0, n, n)
        theirs = [1, 3], [quality[model][rows].mean() for model in ("weak", "strong")]
        mine = [*theirs[0], np.array(router[1])[rows].mean()], [*theirs[1], best[rows].mean()]
        differences.append(aiq(*mine, 1, 3) - aiq(*theirs, 1, 3))
    low, high = np.percentile(differences, [2.5, 97.5])
    expected = 2 * found.aiq_ahead - high, 2 * found.aiq_ahead - low
    assert found.aiq_ahead_interval == pytest.approx(expected, abs=0.015)
    # Paired: one that has the single models' points is the zero router in every resample.
    alike = metrics(
        {"r": swept(*[(s.points.quality[0], s.points.cost[0], s.called[0]) for s in singles.values()])}, singles
    )
    assert ahead(alike, "r").aiq_ahead_interval == pytest.approx([0, 0])


def test_where_they_are_not_defined() -> None:
    no_costs = metrics(ROUTERS, SINGLES, costs=False)
    assert no_costs.zero_router is None and no_costs.routers == {"router": None, "strong": None}
    assert between(no_costs).routers["router"].apgr == pytest.approx(0.75)
    hops = metrics(ROUTERS, SINGLES, one_call_each=False)
    assert "several hops" in (between(hops).undefined or "") and not between(hops).routers
    level = metrics({"a": swept(WEAK)}, {"a": swept(WEAK), "b": swept(WEAK)})
    assert level.zero_router is None and "not better than" in (between(level).undefined or "")
    three = {**SINGLES, "third": swept(([1, 1, 1, 1], [2, 2, 2, 2], [[0, 0]] * 4))}
    assert metrics(ROUTERS, three).two_models is None
    with pytest.raises(UserError, match="weak is not better than strong"):
        metrics(ROUTERS, SINGLES, strong="weak", weak="strong")


def test_of_three_models_two_are_named() -> None:
    def padded(point: Point, third: float) -> Sweep:
        calls = np.column_stack([np.array(point[2]) * (1 - third), np.full(4, third)])
        return swept((point[0], point[1], calls.tolist()))

    singles = {"weak": padded(WEAK, 0), "strong": padded(STRONG, 0), "third": padded(WEAK, 1)}
    found = metrics({"r": padded(FIRST, 0.5)}, singles, strong="strong", weak="weak")
    mine = between(found).routers["r"]
    assert (mine.strong_share, mine.other_share) == ([0.125], [0.5])
    assert mine.cpt_50 == pytest.approx(0.125)


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
    grid = frontier_grid(Summary.model_validate_json(json.dumps(found)))
    assert grid is not None
    (row,) = (row for row in grid.rows if row.name == "knn")
    assert row.cells[3].lines[0] == f"{metrics['routers']['knn']['aiq']:.3f}" and row.cells[3].mark == "+"
    written = [(tmp_path / "run" / f"tables.{kind}").read_text(encoding="utf-8") for kind in ("md", "tex")]
    assert all("zero router" in text and "APGR" in text for text in written)


def test_figures_over_all_cost_weights_do_not_depend_on_those_that_are_given(
    recording: Path, tmp_path: Path, harness: Callable[..., int]
) -> None:
    found = {}
    for weights in ("0.1,9", "0.1,0,0.01,0.2,1,3,30", "0.1"):
        out = tmp_path / weights
        run = ("run", "--recording", recording, "--router", "knn", "cascade", "--frontier", "--cost-weight", weights)
        assert harness(*run, "--out", out) == 0
        found[weights] = Summary.model_validate_json((out / "summary.json").read_text())
    one, several, alone = (summary.frontier_metrics for summary in found.values())
    assert one is not None and several is not None and alone is not None
    for name, figures in one.routers.items():
        assert figures == several.routers[name] == alone.routers[name]
    assert one.curves == several.curves == alone.curves and one.parity == alone.parity
    assert ahead(one, "knn").aiq_ahead > 0 and one.best_model == "big"
    assert {name for name, figures in one.routers.items() if figures is None} == {
        "single:small",
        "single:big",
        "random",
    }
    # With one weight there are no columns of weights.
    assert found["0.1"].frontier is None
    headers = [grid.headers for of in ("0.1", "0.1,9") if (grid := frontier_grid(found[of])) is not None]
    assert headers[0] == ("AIQ", "cost at 98%", "cost at 99%", "cost at 100%", "APGR", "CPT 50%", "CPT 80%")
    assert headers[1] == ("0.1", "9", *headers[0])


def test_hierrouter_is_trained_for_the_whole_frontier_whichever_cost_weights_are_given(
    recording: Path, tmp_path: Path, harness: Callable[..., int]
) -> None:
    found = {}
    for weights in ("0.1,9", "0.1", "9"):
        out = tmp_path / weights
        run = ("run", "--recording", recording, "--baselines", "no", "--router-args", "total_trees=1000", "--frontier")
        assert harness(*run, "--cost-weight", weights, "--out", out) == 0
        found[weights] = Summary.model_validate_json((out / "summary.json").read_text())
        trained = read_checkpoint(out / "hierrouter.safetensors").header.problem.cost_weights
        # A call of `big` costs 4.
        assert set(np.geomspace(0.003, 1, 9) / 4) | set(map(float, weights.split(","))) == set(trained)
    # At 9 the router always calls `small`: of that point alone there would be no AIQ.
    assert found["9"].routers["hierrouter"].overall.collapsed_to == "small"
    figures = [ahead(of.frontier_metrics, "hierrouter") for of in found.values() if of.frontier_metrics is not None]
    assert len(figures) == 3 and figures[0].aiq_ahead > 0.1
    assert [each.aiq for each in figures] == pytest.approx([figures[0].aiq] * 3, abs=0.005)
    # The paper's preset knows one cost weight.
    args = "preset=paper,total_timesteps=8192"
    run = ("run", "--recording", recording, "--baselines", "no", "--router-args", args, "--frontier")
    assert harness(*run, "--out", tmp_path / "paper") == 0
    assert read_checkpoint(tmp_path / "paper" / "hierrouter.safetensors").header.problem.cost_weights == ()


def test_a_cascade_of_two_models_has_cpt(tmp_path: Path, harness: Callable[..., int]) -> None:
    """`small` says `sure` where it is right: a cascade needs `big` for a third of the items, and none of them twice."""
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "task", "prompt", "model", "score", "cost", "split", "response"])
        for n in range(90):
            right, split = n % 3 > 0, ("train", "validation", "test")[n // 3 % 3]
            writer.writerow([n, "mixed", f"item {n}", "small", float(right), 1, split, "sure" if right else "perhaps"])
            writer.writerow([n, "mixed", f"item {n}", "big", 1.0, 4, split, "certain"])
    assert harness("import", tmp_path / "t.csv", "--out", tmp_path / "recording", "--hops", 2) == 0
    run = ("run", "--recording", tmp_path / "recording", "--router", "cascade", "--frontier", "--baselines", "no")
    assert harness(*run, "--cost-weight", 0.01, "--out", tmp_path / "run") == 0
    found = Summary.model_validate_json((tmp_path / "run" / "summary.json").read_text())
    assert found.frontier_metrics is not None
    mine = between(found.frontier_metrics).routers["cascade"]
    assert mine.strong_share == pytest.approx([1 / 3])
    assert (mine.cpt_50, mine.cpt_80) == (pytest.approx(1 / 6), pytest.approx(0.8 / 3))
    assert mine.cpt_50_interval is not None and mine.cpt_50_interval[0] < 1 / 6 < mine.cpt_50_interval[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strong", "big"), "go together"),
        (("--strong", "big", "--weak", "big"), "go together"),
        (("--strong", "big", "--weak", "tiny"), "unknown model 'tiny'"),
        (("--strong", "big", "--weak", "small"), "add --frontier"),
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
    weights = "1" if message == "add --frontier" else "0,1"
    run = ("run", "--recording", recording, "--router", "random", "--cost-weight", weights)
    assert harness(*run, *arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    left = [path.name for path in (tmp_path / "out").iterdir()] if (tmp_path / "out").exists() else []
    assert left in ([], [".trained"])  # of a baseline that had learnt before it was seen


def test_a_frontier_without_costs_is_refused_unless_two_models_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harness: Callable[..., int]
) -> None:
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "task", "prompt", "model", "score", "split"])
        for n in range(30):
            for index, model in enumerate(("a", "b", "c")):
                writer.writerow([n, "t", f"question {n}", model, float(n % 4 <= index), ("train", "test")[n % 2]])
    assert harness("import", tmp_path / "t.csv", "--quality-only", "--out", tmp_path / "recording") == 0
    run = ("run", "--recording", tmp_path / "recording", "--router", "random", "--frontier", "--out", tmp_path / "run")
    assert harness(*run) == 2
    error = capsys.readouterr().err
    assert "no costs were recorded" in error and error.count("\n") == 1
    assert harness(*run, "--strong", "c", "--weak", "a") == 0
    assert "APGR" in capsys.readouterr().out
