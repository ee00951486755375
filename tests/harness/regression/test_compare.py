"""`compare`: differences are paired, counted and said, and every form of output holds the same figures."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from harness.evaluation.paired import Figures, Results, compare_routers
from harness.tables.grid import difference_grid
from harness.tables.terminal import tables
from pools.weights import file_hash

Run = Callable[..., int]
READER, CALCULATOR = "single:reader", "single:calculator"


@pytest.fixture(scope="module")
def runs(harness: Run, small_recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: `one` and `two` hops, which share routers, and `train` and `all`, of other items."""
    folder = tmp_path_factory.mktemp("runs")
    one = ("--router", "random", READER, CALCULATOR, "--max-hops", 1, "--cost-weight", 0)
    two = ("--router", "random", READER, "knn", "--seed", 2)
    for name, *arguments in (
        *(("one", *one), ("two", *two)),
        *(("train", *one, "--split", "train"), ("all", *one, "--split", "all")),
    ):
        on = ("--recording", small_recording, "--baselines", "no", "--out", folder / name)
        assert harness("run", *on, *arguments) == 0
    return folder


def rows(folder: Path, router: str) -> dict[tuple[str, int], dict[str, Any]]:
    found = pq.read_table(folder / "items.parquet").to_pylist()
    return {(row["task"], row["doc_id"]): row for row in found if row["router"] == router}


def test_differences_are_those_of_the_items(runs: Path, tmp_path: Path, harness: Run, capsys: Any) -> None:
    out = tmp_path / "deep" / "c.json"
    assert harness("compare", runs / "one", runs / "two", "--out", out) == 0
    [block] = json.loads(out.read_text())
    found = {(c["router"], c["task"]): c for c in block["comparisons"]}
    tasks = list(dict.fromkeys(task for task, _ in rows(runs / "one", READER)))
    assert list(found) == [(router, task) for router in ("random", READER) for task in (None, *tasks)]
    for (router, task), c in found.items():
        before, after = rows(runs / "one", router), rows(runs / "two", router)
        mine = [item for item in before if task in (None, item[0])]
        assert c["items"] == len(mine)
        for measure in ("quality", "cost"):
            change = c[measure]
            values = np.array([after[item][measure] - before[item][measure] for item in mine])
            assert change["difference"] == pytest.approx(values.mean())
            assert change["after"] - change["before"] == pytest.approx(values.mean())
            assert change["low"] <= change["difference"] <= change["high"] and 0 < change["p"] <= 1
            # Near what the normal approximation gives, and so not that of unpaired means.
            if task is None:
                width = 2 * 1.96 * values.std() / len(values) ** 0.5
                assert change["high"] - change["low"] == pytest.approx(width, rel=0.25, abs=1e-12)
    assert found[READER, None]["quality"]["p"] == 1 and found["random", None]["cost"]["low"] > 0
    shown = capsys.readouterr().out
    for said in (
        "seed: 1 -> 2",
        "cost weight: 0 -> 2",
        "max hops: 1 -> none",
        f"only one has the routers {CALCULATOR}",
    ):
        assert said in shown
    assert "only two has the routers knn" in shown and "costs are not compared" not in shown
    out = tmp_path / "c.md"
    assert harness("compare", runs / "one", runs / "two", runs / "all", "--out", out) == 0
    text = out.read_text()
    assert text.count("| router | quality | difference | cost | difference |") == 2
    assert "- differs in seed: 1 -> 2" in text and f"| {READER} (" in text


def test_the_same_run_is_the_same(runs: Path, harness: Run, capsys: Any) -> None:
    assert harness("compare", runs / "one", runs / "one") == 0
    shown = capsys.readouterr().out
    # In quality and in cost, a row for each router; that tasks are left out is said once more.
    assert "differs in" not in shown and shown.count("same") == 3 * 2 + 1 and "records" not in shown
    assert str(runs / "one") in shown.replace("\n", "")  # two folders of one name are told apart by their paths


def test_items_of_one_run_alone_are_counted_and_left_out(runs: Path, tmp_path: Path, harness: Run, capsys: Any) -> None:
    out = tmp_path / "c.json"
    assert harness("compare", runs / "train", runs / "all", "--out", out) == 0
    common, every = len(rows(runs / "train", READER)), len(rows(runs / "all", READER))
    shown = capsys.readouterr().out
    assert f"{every - common} items of all are not in the other run: left out" in shown
    assert "split: train -> all" in shown and "items of train" not in shown
    assert {c["items"] for c in json.loads(out.read_text())[0]["comparisons"] if c["task"] is None} == {common}
    assert harness("compare", runs / "train", runs / "one") == 2
    assert "no item in common" in capsys.readouterr().err


def test_costs_in_other_units_are_not_compared(runs: Path, tmp_path: Path, harness: Run, capsys: Any) -> None:
    other = Path(shutil.copytree(runs / "one", tmp_path / "dollars"))
    summary, manifest = (json.loads((other / name).read_text()) for name in ("summary.json", "manifest.json"))
    (other / "summary.json").write_text(json.dumps({**summary, "cost_unit": "US$"}))
    manifest["sha256"]["summary.json"] = file_hash(other / "summary.json")
    (other / "manifest.json").write_text(json.dumps(manifest))
    out = tmp_path / "c.json"
    assert harness("compare", runs / "one", other, "--out", out) == 0
    assert "costs are not compared: in T param-tokens there, in US$ here" in capsys.readouterr().out
    assert all(c["cost"] is None and c["quality"] for c in json.loads(out.read_text())[0]["comparisons"])


def test_routers_of_one_run(runs: Path, tmp_path: Path, harness: Run) -> None:
    out, formula = tmp_path / "c.csv", Path(shutil.copytree(runs / "all", tmp_path / "@all"))
    assert harness("compare", runs / "one", formula, "--against", READER, "--out", out) == 0
    found = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [(r["before"], r["reference"], r["router"]) for r in found if not r["task"]] == [
        (run, READER, router) for run in ("one", "'@all") for router in ("random", CALCULATOR)
    ]
    mine = [rows(runs / "one", name) for name in (READER, CALCULATOR)]
    expected = np.mean([mine[1][item]["quality"] - mine[0][item]["quality"] for item in mine[0]])
    [row] = [r for r in found if (r["before"], r["router"], r["task"]) == ("one", CALCULATOR, "")]
    assert float(row["quality_difference"]) == pytest.approx(expected)
    again = ("compare", runs / "one", "--against", READER, "--router", CALCULATOR, "--out", out)
    before = out.read_bytes()
    assert harness(*again) == 2 and out.read_bytes() == before
    assert harness(*again, "--force") == 0
    assert {r["router"] for r in csv.DictReader(io.StringIO(out.read_text()))} == {CALCULATOR}


def test_a_mark_means_that_the_interval_excludes_0() -> None:
    items = tuple(("t", n) for n in range(40))
    before = Results(items, {"r": Figures(np.zeros(40), np.ones(40))})
    noisy = np.where(np.arange(40) % 2, 0.5, -0.5)
    after = Results(items, {"r": Figures(np.full(40, 0.25), 1 + noisy)})
    [overall, _] = compare_routers(before, after, [("r", "r")], costs=True, seed=1)
    assert overall.quality.risen and not overall.quality.fallen and overall.cost is not None
    assert not overall.cost.risen and not overall.cost.fallen and not overall.cost.same
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(*tables(difference_grid("title", [overall], "unit"), console.width))
    shown = console.export_text()
    assert "+0.25* p=0.0002" in shown and "+0 p=1" in shown and "no correction" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "expected at least 2"),
        ("{runs}/one", "--against ROUTER"),
        ("{runs}/one {runs}", "it has no summary.json"),
        ("{runs}/one {runs}/two --router knn", "router knn is not in both runs"),
        ("{runs}/one --against knn", "has no router 'knn'"),
        ("{runs}/one --against random --router random", "no router to compare with random"),
        ("{runs}/one {runs}/two --out {tmp}/c.txt", "ends in .md, .csv, .json"),
        ("{runs}/one {runs}/two --seed -1", "--seed -1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    runs: Path, arguments: str, message: str, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    assert harness("compare", *arguments.format(runs=runs, tmp=tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("harness: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
