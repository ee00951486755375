"""What ships: the recording, a small part of it, copies of it with other rows, its policy, and the specialists."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# These take RESULTS when they are imported, so they are before a test puts another folder in its place.
import harness.regression.check
import harness.report.examples
import harness.runs.checkpoints
import harness.serving.routed  # noqa: F401
from harness.runs.source import RESULTS, recording_folder
from pools.data.recording import seal_recording

RECORDING = recording_folder("lightweight", "offline")
POLICY = RESULTS / "policies" / RECORDING.name / "hierrouter-1.safetensors"
SPECIALISTS = RESULTS / "specialists"
EVERY = 11  # items; the splits of the invented tasks repeat after 20, so that every split is met


def part_of_recording(folder: Path, every: int = EVERY) -> Path:
    """Write every so-manieth item of the shipped recording, with all its pipelines, as a recording of its own."""
    folder.mkdir(parents=True)
    items, rows = (pq.read_table(RECORDING / name) for name in ("items.parquet", "transitions.parquet"))
    items = items.take(list(range(0, len(items), every)))
    rows = rows.filter(pc.is_in(_keys(rows), value_set=_keys(items)))
    for name, table in (("items", items), ("transitions", rows)):
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    shutil.copy(RECORDING / "manifest.json", folder)
    seal_recording(folder)
    return folder


def _keys(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["task"], table["doc_id"].cast(pa.string()), " ")


def edited(recording: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Write a copy of a recording in which `change` was made to each transition."""
    shutil.copytree(recording, folder)
    table = pq.read_table(folder / "transitions.parquet")
    rows = table.to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "transitions.parquet")
    seal_recording(folder)
    return folder
