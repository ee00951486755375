"""Recordings: a folder whose files hold something else is refused in one line, or loaded as what it says."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import command, damaged, fuzz, junk, mutated, told
from pools import Context, Generation, GenerationSettings, UserError
from pools.data.recording import Recording, load_recording, save_recording
from pools.data.store import TransitionStore
from pools.mdp.tree import Tree
from pools.pool import CandidateModel, Pool
from pools.seal import FILES as FILES_SEAL
from pools.seal import ITSELF as SEAL

FILES = ("manifest.json", "items.parquet", "transitions.parquet")


@pytest.fixture(scope="module")
def folder(synthetic_tree: Callable[..., Tree], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole recording, which each case restores before it damages it."""
    path = tmp_path_factory.mktemp("recording") / "r"
    models = tuple(CandidateModel(f"model-{n}", "hf", 0.01 * 4**n) for n in range(2))
    tree = synthetic_tree(items=6)
    save_recording(tree, Pool("made-up", models, "unit", "made up"), {"suite": "made-up"}, path)
    # Without its seal, which would find every change before what is looked for here.
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    open_ = {key: value for key, value in manifest.items() if key not in (FILES_SEAL, SEAL)}
    (path / "manifest.json").write_text(json.dumps(open_), encoding="utf-8")
    shutil.copytree(path, path.with_name("whole"))
    return path


def restored(folder: Path) -> Path:
    for name in FILES:
        shutil.copyfile(folder.with_name("whole") / name, folder / name)
    return folder


def usable(recording: Recording | None) -> None:
    """What was accepted is a tree of texts, whole numbers and scores, and can be written again."""
    if recording is None:
        return
    tree = recording.tree
    for item in tree.items:
        assert isinstance(item.query, str) and isinstance(item.task, str) and type(item.doc_id) is int
        assert item.split in ("train", "validation", "test") and all(isinstance(u, str) for u in item.settings.until)
        assert type(item.settings.max_new_tokens) is int and item.settings.max_new_tokens >= 0
    assert len({(item.task, item.doc_id) for item in tree.items}) == len(tree.items)
    for row in tree.rows():
        assert isinstance(row["response"], str) and row["finish_reason"] in ("stop", "length")
        assert row["tokens_in"] >= 0 and row["tokens_out"] >= 0 and np.isfinite(row["seconds"])
        assert 0 <= row["score"] <= 1
    assert isinstance(recording.manifest.get("suite"), str | None)


@fuzz("recordings: manifest", 250)
@given(st.data())
def test_a_manifest(folder: Path, data: st.DataObject) -> None:
    path = restored(folder) / "manifest.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(data.draw(mutated(whole, surrogates=True))))
    usable(told(lambda: load_recording(folder), folder))


@fuzz("recordings: bytes", 300)
@given(st.data())
def test_damaged_bytes(folder: Path, data: st.DataObject) -> None:
    path = restored(folder) / data.draw(st.sampled_from(FILES))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    usable(told(lambda: load_recording(folder), folder))


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
    usable(told(lambda: load_recording(folder), folder))


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """An exported store, without the checksum that would find every change before what is looked for here."""
    path = tmp_path_factory.mktemp("export")
    store, settings = TransitionStore(path / "s", {"by": "this test"}), GenerationSettings((), 5)
    store.put("m", [(Context(f"q {n}"), settings, Generation(f"r {n}", n, 2, "stop", 0.5)) for n in range(4)])
    store.export_parquet(path / "x.parquet")
    return pq.read_table(path / "x.parquet").replace_schema_metadata(None)


def imported(table: pa.Table, folder: Path) -> None:
    """Import the table, look at what the store then has, and export that."""
    pq.write_table(table, folder / "x.parquet")
    store = TransitionStore(folder / "s")
    told(lambda: store.import_parquet(folder / "x.parquet"), "x.parquet")
    store.origins(store.keys())
    for n in range(4):
        made = store.get("m", GenerationSettings((), 5), Context(f"q {n}"))
        if made is not None:
            assert isinstance(made.response, str) and made.finish_reason in ("stop", "length")
            assert type(made.tokens_in) is type(made.tokens_out) is int and np.isfinite(made.seconds)
            assert min(made.tokens_in, made.tokens_out, made.seconds) >= 0
    store.export_parquet(folder / "y.parquet")
    store.close()


@fuzz("exported stores: tables", 300)
@given(st.data())
def test_columns_of_an_exported_store(export: pa.Table, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, suppress(pa.ArrowException):  # Parquet has no such type
        imported(data.draw(columns(export)), Path(folder))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("seconds", value) for value in (float("nan"), float("inf"), -1.0, None, "1", b"1", [0.5])),
        *(("tokens_in", value) for value in (-5, "abc", 2**40, 2**31, True, 1.5, None, [1])),
        *(("finish_reason", value) for value in ("banana", "", None, 5, b"stop", ["stop"])),
        *(("response", value) for value in (None, 5, b"\xff", ["r"], {"r": "s"})),
        *(("origin", value) for value in ("no json", "5", 5, b"\xff", ["x"], "[" * 100_000)),
        *(("context", value) for value in ("[" * 100_000, '{"query": "\\ud800"}', 5, None)),
    ],
)
def test_an_exported_store_with_an_odd_column(export: pa.Table, tmp_path: Path, name: str, value: Any) -> None:
    odd = export.set_column(export.column_names.index(name), name, pa.array([value] * len(export)))
    pq.write_table(odd, tmp_path / "x.parquet")
    store = TransitionStore(tmp_path / "s")
    with pytest.raises(UserError, match=r"x\.parquet .*damaged.*; (export it again|name a file of export)") as error:
        store.import_parquet(tmp_path / "x.parquet")
    assert len(store) == 0 and "\n" not in str(error.value) and len(str(error.value)) < 1000


def _manifest(folder: Path, **change: Any) -> None:
    path = folder / "manifest.json"
    whole = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in whole.items() if value is not None}))


def _column(folder: Path, file: str, name: str, change: Callable[[list[Any]], Any]) -> None:
    table = pq.read_table(folder / file)
    array = pa.array(change(table[name].to_pylist()))
    pq.write_table(table.set_column(table.column_names.index(name), name, array), folder / file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: _manifest(f, suite=["x"]),
        lambda f: _manifest(f, suite="made\u202eup"),
        lambda f: [_column(f, name, "task", lambda c: [f"{task} " for task in c]) for name in FILES[1:]],
        lambda f: _manifest(f, max_hops=40),
        lambda f: _manifest(f, max_hops=10**9),
        lambda f: _manifest(f, max_hops=True),
        lambda f: (f / "manifest.json").write_text("[" * 100_000),
        lambda f: _column(f, "items.parquet", "query", lambda c: [None, *c[1:]]),
        lambda f: _column(f, "items.parquet", "split", lambda c: ["dev", *c[1:]]),
        lambda f: _column(f, "items.parquet", "doc_id", lambda c: [c[1], *c[1:]]),
        lambda f: _column(f, "items.parquet", "until", lambda c: [[None], *c[1:]]),
        lambda f: _column(f, "transitions.parquet", "response", lambda c: [None, *c[1:]]),
        lambda f: _column(f, "transitions.parquet", "score", lambda c: [-0.5, *c[1:]]),
        lambda f: _column(f, "transitions.parquet", "score", lambda c: [float("nan"), *c[1:]]),
        lambda f: _column(f, "transitions.parquet", "tokens_in", lambda c: [1.5, *c[1:]]),
        lambda f: _column(f, "transitions.parquet", "tokens_out", lambda c: [-1, *c[1:]]),
        lambda f: _column(f, "transitions.parquet", "finish_reason", lambda c: ["tired", *c[1:]]),
        lambda f: _column(f, "transitions.parquet", "pipeline", lambda c: [c[1], *c[1:]]),
        lambda f: _column(f, "transitions.parquet", "pipeline", lambda c: [[], *c[1:]]),
    ],
)
def test_found_and_mended(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(restored(folder))
    with pytest.raises(UserError, match=str(folder)):
        load_recording(folder)
    assert command("run", "--recording", folder, "--router", "random").refused


def test_a_recording_of_no_suite_is_refused_where_a_suite_is_needed(folder: Path) -> None:
    _manifest(restored(folder), suite=None)
    assert "names no suite" in command("run", "--recording", folder, "--router", "random").err
