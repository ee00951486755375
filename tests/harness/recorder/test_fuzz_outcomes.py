"""Tables of outcomes: whatever a CSV or Parquet file holds, it becomes the recording it says, or one line."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import ODDITIES, command, damaged, fuzz, junk, mutated
from pools.data.recording import load_recording

ROWS: list[dict[str, Any]] = [
    {"item": f"00{n}", "task": "t", "prompt": f"question {n}", "model": model, "score": n % 2, "cost": 0.5}
    | {"split": "test", "response": f"answer {n}"}
    for n in range(3)
    for model in ("a", "b")
]
OF_ITEM = {"split": "test", "kind": "easy", "task": "t"}
WIDE = {
    "routellm": [
        {"prompt": f"q{n}", "x": n % 2, "y": 1, "x_response": "r", "y_response": "s"} | OF_ITEM
        for n in range(3)
    ],
    "routerbench": [
        {"sample_id": f"s{n}", "prompt": f"q{n}", "eval_name": "t", "x": 0.5}
        | {"x|total_cost": 0.1, "x|model_response": "r"}
        | OF_ITEM
        for n in range(3)
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outcomes")


def imported(path: Path, *more: str) -> Any:
    """The recording that a table became; None where it was refused, and then nothing is left behind."""
    out = path.with_name("out")
    shutil.rmtree(out, ignore_errors=True)
    ended = command("import", path, "--out", out, *more)
    if ended.refused:
        assert not [left for left in path.parent.iterdir() if left.name.startswith("out")]
        return None
    return load_recording(out)


def as_csv(rows: list[Any]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    names = list(rows[0]) if rows and isinstance(rows[0], dict) else ["item"]
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] if isinstance(row, dict) else [row] for row in rows)
    return file.getvalue()


@fuzz("CSV: values", 100)
@given(mutated(ROWS))
def test_a_csv_table(folder: Path, rows: Any) -> None:
    path = folder / "table.csv"
    path.write_text(as_csv(rows if isinstance(rows, list) else [rows]), encoding="utf-8", newline="")
    recording = imported(path)
    if recording is not None:  # every text is one that stood in the table
        stood = {str(value) for row in rows for value in row.values()}
        assert {item.query for item in recording.tree.items} <= stood
        assert set(recording.pool.model_names) <= stood


@fuzz("CSV: bytes", 100)
@given(damaged(as_csv(ROWS).encode()))
def test_a_damaged_csv_file(folder: Path, content: bytes) -> None:
    path = folder / "bytes.csv"
    path.write_bytes(content)
    imported(path)


LISTS = [
    ROWS,
    [{"question": f"question {n}", "scores": {"a": n % 2, "b": 0.5}} | OF_ITEM for n in range(3)],
    *WIDE.values(),
]


@fuzz("JSON lists: values", 100)
@given(st.sampled_from(LISTS).flatmap(mutated), st.booleans())
def test_a_json_list(folder: Path, rows: Any, lines: bool) -> None:
    path = folder / ("table.jsonl" if lines and isinstance(rows, list) else "table.json")
    content = "\n".join(map(json.dumps, rows)) if path.suffix == ".jsonl" else json.dumps(rows)
    path.write_text(content, encoding="utf-8", newline="")
    imported(path, *(["--quality-only"] if "cost" not in content else []))


CELLS: tuple[Any, ...] = (
    *(None, b"\xff", b"text", "", 0, 1, True, 10**30, -1, float("nan"), float("inf"), 1e-320, "1e5", "0x1", "١", "1_0"),
    *([], [1], {"a": 1}, "test", "dev", "a", "\x00", "x" * 200_000),
)


@st.composite
def tables(draw: Any, rows: list[dict[str, Any]]) -> pa.Table:
    """A Parquet table in which a column has odd values, or another type, or stands twice."""
    table = pa.Table.from_pylist(rows)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, table.num_columns - 1))
        name = table.column_names[place]
        value = draw(st.sampled_from(CELLS) | st.sampled_from(ODDITIES) | junk() | st.dates() | st.decimals())
        column = table.column(place).to_pylist()
        numbers = range(len(column)) if draw(st.booleans()) else {draw(st.integers(0, len(column) - 1))}
        column = [value if n in numbers else one for n, one in enumerate(column)]
        kinds = [None, pa.binary(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.timestamp("s")]
        kinds += [pa.int64(), pa.float16(), pa.decimal256(50, 2), pa.list_(pa.int8()), pa.null()]
        try:
            array = pa.array(column, draw(st.sampled_from(kinds)))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):  # no column can be made of these
            array = pa.array([str(one) for one in column])
        how = draw(st.sampled_from(["set", "set", "set", "twice", "gone"]))
        if how == "set":
            table = table.set_column(place, name, array)
        elif how == "twice":
            table = table.append_column(name, array)
        elif table.num_columns > 1:
            table = table.remove_column(place)
    return table


@fuzz("Parquet: values", 120)
@given(st.data())
def test_a_parquet_table(folder: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["parquet", "parquet", *WIDE]))
    path = folder / "table.parquet"
    try:
        pq.write_table(data.draw(tables(WIDE.get(kind, ROWS))), path)
    except pa.ArrowException:  # Parquet has no such type
        return
    recording = imported(path, "--format", kind, *(["--quality-only"] if kind == "routellm" else []))
    if recording is not None:
        assert not any(item.query.startswith("b'") for item in recording.tree.items)


@fuzz("Parquet: bytes", 100)
@given(st.data())
def test_a_damaged_parquet_file(folder: Path, data: st.DataObject) -> None:
    whole = folder / "whole.parquet"
    if not whole.exists():
        pq.write_table(pa.Table.from_pylist(ROWS), whole)
    path = folder / "bytes.parquet"
    path.write_bytes(data.draw(damaged(whole.read_bytes())))
    imported(path, "--format", "parquet")


def _bytes_as_text(text: str) -> pa.Array:
    """A column of texts whose bytes are none."""
    return pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff" * len(text)], pa.binary()).buffers())


def test_a_byte_order_mark_does_not_make_names_numbers(tmp_path: Path) -> None:
    (tmp_path / "bom.csv").write_text(as_csv(ROWS), encoding="utf-8-sig", newline="")
    recording = imported(tmp_path / "bom.csv")
    assert recording.manifest["item_names"] == {"t": ["000", "001", "002"]}


@pytest.mark.parametrize("array", [[b"text"], [["a"]], [1.5], [True], _bytes_as_text("text")])
def test_a_column_of_texts_holds_texts(array: Any, tmp_path: Path) -> None:
    """A column of bytes became the text "b'...'", one of lists "['...']", and bytes that are no UTF-8 a traceback."""
    table = pa.Table.from_pylist(ROWS[:1])
    array = array if isinstance(array, pa.Array) else pa.array(array)
    path = tmp_path / "t.parquet"
    pq.write_table(table.set_column(table.column_names.index("prompt"), "prompt", array), path)
    ended = command("import", path, "--format", "parquet", "--out", tmp_path / "out")
    assert ended.refused and ("prompt" in ended.err or "cannot be read" in ended.err)
