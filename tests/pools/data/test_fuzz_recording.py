"""Recordings: a folder whose files hold something else is refused in one line, or loaded as what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import command, fuzz, junk, mutated, told
from pools import UserError
from pools.data.recording import load_recording, save_recording, seal_recording
from pools.mdp.tree import Tree
from pools.pool import CandidateModel, Pool

FILES = ("manifest.json", "items.parquet", "transitions.parquet")


@pytest.fixture(scope="module")
def folder(synthetic_tree: Callable[..., Tree], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole recording, which each case restores before it damages it."""
    path = tmp_path_factory.mktemp("recording") / "r"
    models = tuple(CandidateModel(f"model-{n}", "hf", 0.01 * 4**n) for n in range(2))
    tree = synthetic_tree(items=6)
    save_recording(tree, Pool("made-up", models, "unit", "made up"), {"suite": "made-up"}, path)
    shutil.copytree(path, path.with_name("whole"))
    return path


def restored(folder: Path) -> Path:
    for name in FILES:
        shutil.copyfile(folder.with_name("whole") / name, folder / name)
    return folder


def usable(folder: Path) -> None:
    """What is accepted, once its checksums say nothing, is a tree of texts, whole numbers and scores."""
    with suppress(ValueError, TypeError, UserError):  # no manifest, or one of bytes that are no text
        seal_recording(folder)
    recording = told(lambda: load_recording(folder), folder)
    if recording is None:
        return
    tree = recording.tree
    for item in tree.items:
        assert isinstance(item.query, str) and isinstance(item.task, str) and type(item.doc_id) is int
        assert item.split in ("train", "validation", "test") and all(isinstance(u, str) for u in item.settings.until)
    assert len({(item.task, item.doc_id) for item in tree.items}) == len(tree.items)
    for row in tree.rows():
        assert isinstance(row["response"], str) and row["finish_reason"] in ("stop", "length")
        assert row["tokens_in"] >= 0 and row["tokens_out"] >= 0 and 0 <= row["score"] <= 1
    assert isinstance(recording.manifest.get("suite"), str | None)


@fuzz("recordings: manifest", 250)
@given(st.data())
def test_a_manifest(folder: Path, data: st.DataObject) -> None:
    path = restored(folder) / "manifest.json"
    path.write_text(json.dumps(data.draw(mutated(json.loads(path.read_text()), surrogates=True))))
    usable(folder)


VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", b"\xff", -1, 2**31, 1.5, float("nan"), float("inf"), -0.5, 7.0),
    *([], ["model-0", "model-0"], ["model-0", None], [["model-0"]], {"a": 1}, ["model-1"] * 40),
)


@st.composite
def columns(draw: Any, table: pa.Table) -> pa.Table:
    """The table with a column of another type, with odd values, without a column, or with rows twice or missing."""
    rows = table.to_pylist()
    how = draw(st.sampled_from(["values", "whole column", "column gone", "rows twice", "rows gone", "empty"]))
    name = draw(st.sampled_from(table.column_names))
    if how == "column gone":
        return table.drop_columns([name])
    if how == "empty":
        return table.slice(0, 0)
    if how == "rows twice":
        return pa.concat_tables([table, table.slice(draw(st.integers(0, len(rows) - 1)), 2)])
    if how == "rows gone":
        return table.slice(draw(st.integers(1, len(rows))))
    value = draw(st.sampled_from(VALUES) | junk())
    numbers = range(len(rows)) if how == "whole column" else {draw(st.integers(0, len(rows) - 1))}
    column = [value if n in numbers else row[name] for n, row in enumerate(rows)]
    types = [None, table.schema.field(name).type, pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
    try:
        array = pa.array(column, draw(st.sampled_from(types)))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # no column can be made of these
        return table.drop_columns([name])
    return table.set_column(table.column_names.index(name), name, array)


@fuzz("recordings: tables", 400)
@given(st.data())
def test_columns_of_other_types(folder: Path, data: st.DataObject) -> None:
    path = restored(folder) / data.draw(st.sampled_from(FILES[1:]))
    table = data.draw(columns(pq.read_table(path)))
    try:
        pq.write_table(table, path)
    except pa.ArrowException:  # Parquet has no such type
        return
    usable(folder)


def test_a_recording_of_no_suite_is_refused_where_a_suite_is_needed(folder: Path) -> None:
    path = restored(folder) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["suite"]
    path.write_text(json.dumps(manifest))
    seal_recording(folder)
    assert "names no suite" in command("run", "--recording", folder, "--router", "random").err
