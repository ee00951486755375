"""What ships: the recording, a small part of it, copies of it with other rows, its policy, and the specialists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from harness.runs.source import RESULTS, recording_folder
from pools.data.recording import seal_recording
from pools.pool import load_pool

RECORDING = recording_folder("lightweight", "offline")
POLICY = RESULTS / "policies" / RECORDING.name / "hierrouter-1.safetensors"
SPECIALISTS = RESULTS / "specialists"
EVERY = 11  # items; the splits of the invented tasks repeat after 20, so that every split is met


def needs_specialist(name: str) -> Path:
    """The folder of a specialist; a test that asks for one that is not there is skipped."""
    if not (SPECIALISTS / name).is_dir():
        pytest.skip(f"{name} is not trained yet: results/specialists/{name} is missing")
    return SPECIALISTS / name


def needs_live_pool() -> None:
    """Skip a test that asks the pool's own models, while one of them is not there."""
    for model in load_pool("lightweight").models:
        if model.weights is not None and model.weights.path is not None:
            needs_specialist(Path(model.weights.path).name)
            if set(model.weights.sha256 or "a") == {"a"}:
                pytest.skip(f"the sha256 of {model.name} in pools/lightweight.yaml is a placeholder")


def needs_a_real_recording() -> dict[str, Any]:
    """The manifest of the recording; a test is skipped while it is a stand-in, whose answers no model gave."""
    manifest: dict[str, Any] = json.loads((RECORDING / "manifest.json").read_text(encoding="utf-8"))
    if {"0"} == {digit for fingerprint in manifest["models"].values() for digit in fingerprint}:
        pytest.skip("the recording is a stand-in: the models of its manifest have no fingerprints")
    return manifest


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
