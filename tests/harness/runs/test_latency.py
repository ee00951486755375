"""Latency from a table to the gate: import, run, report, check; a latency weight; and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import harness as api
from pools.data.recording import load_recording, save_recording, seal_recording
from pools.errors import UserError

Run = Callable[..., int]
N = 60


def write_table(path: Path, slow: float = 1.0, costs: bool = True) -> Path:
    """Two models: `quick` is right on even items, takes 1 to 60 hundredths; `sure` always, and ten times as long."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "task", "prompt", "model", "score", "cost", "split", "latency"])
        for n in range(N):
            split = ("train", "validation", "test")[n % 3]
            for model, score, cost, seconds in (("quick", 1 - n % 2, 1, n + 1), ("sure", 1, 3, 10 * slow * (n + 1))):
                given = [f"q{n}", "t", f"Is {n} even?", model, score, cost if costs else "", split, seconds / 100]
                rows.writerow(given)
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, harness: Run) -> Path:
    folder = tmp_path_factory.mktemp("timed")
    assert harness("import", write_table(folder / "t.csv"), "--hops", 2, "--out", folder / "t") == 0
    return folder / "t"


def test_from_a_table_to_the_gate(recording: Path, tmp_path: Path, harness: Run, capsys: Any) -> None:
    assert json.loads((recording / "manifest.json").read_text())["seconds"] == "table"
    run = tmp_path / "run"
    routers = ("--router", "single:sure", "pipeline:quick>sure")
    assert harness("run", "--recording", recording, *routers, "--cost-weight", "0.01", "--out", run) == 0
    said = capsys.readouterr().out
    # The 20 test items are numbers 2, 5, ..., 59: item n takes 10 (n + 1) hundredths.
    sure, both = (api.load_run(run).routers[name].latency for name in routers[1:])
    assert sure is not None and both is not None
    assert (sure.p50, sure.p95, sure.p99) == pytest.approx((3.0, 5.7, 6.0)) and sure.seconds == pytest.approx(3.15)
    assert (both.p50, both.p95, both.tail_hops) == (pytest.approx(3.3), pytest.approx(6.27), 2)
    assert sure.p95_interval[0] < 5.7 < sure.p95_interval[1] == 6.0 and sure.own_seconds is not None
    assert api.load_run(run).routers["oracle"].latency.own_seconds is None  # type: ignore[union-attr]
    assert "latency" in said and "5.7" in said and "6.27" in said
    rows = pq.read_table(run / "items.parquet").to_pylist()
    assert [row["seconds"] for row in rows[:20]] == pytest.approx([0.3 * k for k in range(1, 21)])
    table = {(row["router"], row["task"]): row for row in csv.DictReader((run / "tables.csv").open())}
    assert float(table["single:sure", "all"]["p95"]) == pytest.approx(5.7) and not table["single:sure", "t"]["p95"]
    page = api.load_run(run).report().read_text()
    assert "Quality and latency" in page and "pipeline:quick&gt;sure: quality 1.000, p95 6.27 seconds" in page
    assert {path.suffix for path in (run / "report-figures").glob("latency-1.*")} == {".svg", ".png"}
    assert "as in the imported table" in page

    baseline = ("check", "--baseline", tmp_path / "baseline.json")
    assert harness(*baseline, "--update", "--recording", recording, *routers) == 0
    assert harness(*baseline) == 0
    slower, capped = tmp_path / "slower", capsys.readouterr()
    assert "of 12 figures of 2 routers" in capped.out
    assert harness("import", write_table(tmp_path / "t.csv", 1.5), "--hops", 2, "--out", slower, "--name", "t") == 0
    assert harness(*baseline, "--recording", slower) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "WORSE: single:sure: p95 latency overall rose by 50.0%" in said and "seconds)" in said
    assert [harness(*baseline, "--recording", slower, "--tolerance-latency", t) for t in (0.4, 0.6)] == [1, 0]
    # A recording without latency cannot show that nothing is slower.
    assert harness(*baseline, "--recording", without_latency(recording, tmp_path / "shares")) == 2
    assert "holds no latency to compare" in " ".join(capsys.readouterr().err.split())


def without_latency(recording: Path, folder: Path) -> Path:
    """The same recording, with a manifest as it was before it said how seconds were obtained."""
    shutil.copytree(recording, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["seconds"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    seal_recording(folder)
    return folder


@pytest.mark.parametrize("costs", [True, False])
def test_a_latency_weight_is_a_second_price(tmp_path: Path, recording: Path, harness: Run, costs: bool) -> None:
    if not costs:
        table, recording = write_table(tmp_path / "t.csv", costs=False), tmp_path / "free"
        assert harness("import", table, "--hops", 2, "--quality-only", "--out", recording) == 0
    named = ["best-pipeline", "fitted-q", "hierrouter"]
    args = {"hierrouter": {"total_trees": 1024}}
    for cost_weight, latency_weight in ((0.001, 0.01), (0.0, 100.0)):
        weights: dict[str, Any] = {"cost_weights": cost_weight, "latency_weight": latency_weight}
        made = api.evaluate(named, recording, router_args=args, **weights)
        summary = made.summary
        assert summary.latency_weight == latency_weight and summary.cost_weight == cost_weight
        for name, entry in summary.routers.items():
            o, cost = entry.overall, entry.overall.cost or 0.0
            assert entry.latency is not None
            value = o.quality - cost_weight * cost - latency_weight * entry.latency.seconds
            assert o.value == pytest.approx(value), name
            assert o.regret is not None and o.regret >= -1e-9
            # Costs are what was billed, whatever a second costs.
            calls = made.outcomes[name].calls.mean(axis=0)
            assert cost == pytest.approx(calls @ [1, 3] if costs else 0)
        # Seconds that weigh much: nobody waits for a model that takes ten times as long.
        model = {0.01: "sure", 100.0: "quick"}[latency_weight]
        assert all(summary.routers[name].overall.calls[model] == pytest.approx(1) for name in named[:2])
    assert "100 x seconds" in made.markdown()


def test_a_policy_without_a_latency_weight_is_not_passed_off_as_one_with(
    recording: Path, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    policy, train = tmp_path / "p.safetensors", ("train", "--recording", recording, "--router", "query-only")
    run = ("run", "--recording", recording, "--router", "query-only", "--checkpoint", policy, "--out", tmp_path / "r")
    assert harness(*train, "--cost-weight", 0.1, "--latency-weight", 0.2, "--out", policy) == 0
    assert harness(*run, "--cost-weight", 0.1, "--latency-weight", 0.2) == 0
    capsys.readouterr()
    for other in ((), ("--latency-weight", 0.3), ("--cost-weight", 0.2, "--latency-weight", 0.2)):
        assert harness(*run, *other, "--force") == 2
        assert "was trained with --cost-weight 0.1 --latency-weight 0.2" in capsys.readouterr().err
    assert harness(*train, "--cost-weight", 0.1, "--out", policy, "--latency-weight", 0, "--force") == 0
    assert harness(*run, "--cost-weight", 0.1, "--latency-weight", 0.2) == 2
    assert "was trained with no latency weight" in capsys.readouterr().err


def test_what_is_refused(recording: Path, small_recording: Path, tmp_path: Path) -> None:
    def said(folder: Path, **given: Any) -> str:
        with pytest.raises(UserError) as error:
            api.evaluate("single:sure", folder, **given)
        assert "\n" not in str(error.value)
        return str(error.value)

    shipped = said(small_recording, latency_weight=0.1)
    assert "shares of a batch's time, no latency" in shipped and "import a table with a column latency" in shipped
    assert api.evaluate("single:reader", small_recording, max_hops=1).summary.routers["oracle"].latency is None
    assert "one cost weight" in said(recording, latency_weight=0.1, cost_weights=(0.1, 1))
    assert "one cost weight" in said(recording, latency_weight=0.1, frontier=True)
    assert "expected a number >= 0" in said(recording, latency_weight=-1.0)
    assert "expected a number >= 0" in said(recording, latency_weight=float("nan"))
    with pytest.raises(UserError, match="not with --live"):
        api.evaluate("single:reader", live=True, limit=1, latency_weight=0.1)


def test_how_seconds_were_obtained_is_kept_by_model(recording: Path, tmp_path: Path) -> None:
    found = load_recording(recording)
    found.tree.timing = ("server", "single calls")
    again = found.manifest | {"seconds": None}
    del again["seconds"]
    save_recording(found.tree, found.pool, again, tmp_path / "mixed")
    assert load_recording(tmp_path / "mixed").manifest["seconds"] == {"quick": "server", "sure": "single calls"}
    assert load_recording(tmp_path / "mixed").tree.latency
    assert not load_recording(without_latency(recording, tmp_path / "old")).tree.latency
