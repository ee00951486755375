"""Figures over the test items that are worded as no train item is: in the summary, the table by task and the CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.evaluation.summary import Summary
from harness.tables.grid import task_grid
from pools.data.recording import save_recording
from pools.mdp.tree import Tree
from pools.pool import CandidateModel, Pool
from pools.types import Item

COLUMN = "test: new wording"
Recorded = Callable[[Callable[[int, Item], str]], Path]


def task_of(number: int) -> str:
    return ("first", "second")[number // 3 % 2]


def wording(number: int, item: Item) -> str:
    """Of the test items some are worded as train items of their task, some anew, some as items that are not these."""
    if item.split != "test":
        return {"train": "known", "validation": "of validation alone"}[item.split] + f" of {task_of(number)}"
    return (
        "known of first",
        "known of first",  # no train item of `second` has it
        "of validation alone of first",
        "known of second",
        "new to both",
        "",
    )[number // 3 % 6]


def is_new(item: Item) -> bool:
    return bool(item.wording) and item.wording != f"known of {item.task}"


@pytest.fixture
def recorded(tmp_path: Path, synthetic_tree: Callable[..., Tree]) -> Recorded:
    """`recorded(wording)`: a recording of 72 made-up items of two tasks, worded by their number."""

    def record(worded: Callable[[int, Item], str]) -> Path:
        tree = synthetic_tree(items=72, models=2, max_hops=2)
        items = [replace(item, task=task_of(n)) for n, item in enumerate(tree.items)]
        tree.items = tuple(replace(item, wording=worded(n, item)) for n, item in enumerate(items))
        models = tuple(CandidateModel(f"model-{n}", "hf", 0.01 * (n + 1)) for n in range(2))
        save_recording(tree, Pool("made-up", models, "unit", "made up"), {"suite": "made-up"}, tmp_path / "recording")
        return tmp_path / "recording"

    return record


def run(harness: Callable[..., int], recording: Path, out: Path, *more: object) -> dict[str, Any]:
    assert harness("run", "--recording", recording, "--router", "random", "knn", "--out", out, *more) == 0
    return json.loads((out / "summary.json").read_text())  # type: ignore[no-any-return]


def test_the_figures_are_the_means_over_the_items_worded_anew(
    tmp_path: Path, harness: Callable[..., int], recorded: Recorded, synthetic_tree: Callable[..., Tree]
) -> None:
    recording, out = recorded(wording), tmp_path / "out"
    found = run(harness, recording, out)
    told = [Item(r["task"], r["doc_id"], r["query"], None, r["split"], r["kind"], r["wording"])  # type: ignore[arg-type]
            for r in pq.read_table(recording / "items.parquet").to_pylist()]  # fmt: skip
    test = [item for item in told if item.split == "test"]
    new = {(item.task, item.doc_id) for item in test if is_new(item)}
    assert 0 < len(new) < len(test) == 24 and len({item.task for item in test if is_new(item)}) == 2
    rows = pq.read_table(out / "items.parquet").to_pylist()
    for name, entry in found["routers"].items():
        mine = [row for row in rows if row["router"] == name and (row["task"], row["doc_id"]) in new]
        assert entry["new_wording"]["items"] == len(mine) == len(new)
        for figure in ("quality", "cost"):
            mean = float(np.mean([row[figure] for row in mine]))
            assert entry["new_wording"][figure] == pytest.approx(mean)
            low, high = entry["new_wording"][f"{figure}_interval"]
            assert low <= mean + 1e-12 and mean <= high + 1e-12
    # Of a single model also by the recording alone.
    tree = synthetic_tree(items=72, models=2, max_hops=2)
    chosen = [item.doc_id for item in test if is_new(item)]
    for model in range(2):
        expected = tree.score[chosen, 1 + model].mean()
        assert found["routers"][f"single:model-{model}"]["new_wording"]["quality"] == pytest.approx(expected)
    everything = [entry["overall"]["quality"] for entry in found["routers"].values()]
    assert [entry["new_wording"]["quality"] for entry in found["routers"].values()] != everything


def test_the_tables_have_a_column_and_the_csv_file_a_row(
    tmp_path: Path, harness: Callable[..., int], recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    found = run(harness, recorded(wording), out)
    grid = task_grid(Summary.model_validate_json(json.dumps(found)))
    assert grid.headers == ("first", "second", COLUMN, "mean", "x best single")
    for row in grid.rows[:-1]:
        figures = found["routers"][row.name]["new_wording"]
        assert row.cells[2].lines[0] == f"{figures['quality']:.3f}"
    assert grid.rows[-1].cells[2].lines == (str(figures["items"]),)
    shown = (out / "tables.md").read_text()
    assert f"| router | first | second | {COLUMN} | mean |" in shown
    assert f"{COLUMN}: the items of all tasks that are worded as no train item is" in shown
    assert f"{COLUMN}: the items of all tasks" in " ".join(capsys.readouterr().out.split())
    with (out / "tables.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == COLUMN]
    assert [row["router"] for row in rows] == list(found["routers"])
    for row in rows:
        figures = found["routers"][row["router"]]["new_wording"]
        assert (float(row["quality"]), int(row["items"])) == (figures["quality"], figures["items"])
        assert [float(row["quality_low"]), float(row["quality_high"])] == figures["quality_interval"]
    # A mean over tasks is of tasks alone.
    for entry in found["routers"].values():
        tasks = entry["tasks"].values()
        assert len(tasks) == entry["macro"]["tasks"] == 2
        assert entry["macro"]["quality"] == pytest.approx(np.mean([figures["quality"] for figures in tasks]))


@pytest.mark.parametrize(
    "worded",
    [lambda number, item: "", lambda number, item: "one of all"],
    ids=["no wordings", "one wording"],
)
def test_without_items_worded_anew_there_is_no_column(
    tmp_path: Path, harness: Callable[..., int], recorded: Recorded, worded: Callable[[int, Item], str]
) -> None:
    out = tmp_path / "out"
    found = run(harness, recorded(worded), out)
    assert {entry["new_wording"] for entry in found["routers"].values()} == {None}
    for name in ("tables.md", "tables.csv", "tables.tex"):
        assert "new wording" not in (out / name).read_text()
    assert "mean" in (out / "tables.md").read_text()
