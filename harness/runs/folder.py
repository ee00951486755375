"""The folder that a run wrote, read back and checked."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.evaluation.summary import RouterSummary, Summary
from pools.errors import UserError
from pools.schema import parse_json

Rows = list[dict[str, Any]]

_MANIFEST = {"seed": int, "arguments": dict, "source": dict, "versions": dict}
_COLUMNS = ("router", "task", "doc_id", "quality", "cost")


@dataclass(frozen=True)
class RunFolder:
    """What `python -m harness run` left in a folder.

    name: short, and different for each run of a report.
    manifest: how it was made.
    items: per router the rows of `items.parquet`, each router's items in the same order.
    """

    path: Path
    name: str
    summary: Summary
    manifest: dict[str, Any]
    items: dict[str, Rows]

    @property
    def routers(self) -> dict[str, RouterSummary]:
        """Per router its figures."""
        return self.summary.routers

    @property
    def asked(self) -> list[str]:
        """The routers that the run was asked for; the others are its baselines."""
        named = [name for name in self.manifest["arguments"].get("router", ()) if name in self.routers]
        return named or [next(iter(self.routers))]


def load_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """The runs of these folders, each under a short name of its own. Raises UserError for what is no run."""
    if not folders:
        raise UserError("no run was named; name a folder that python -m harness run wrote")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run was named twice; name each folder once")
    runs = [load_run(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def load_run(folder: Path) -> RunFolder:
    """The run of one folder, under the folder's name. Raises UserError for what is no run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("summary.json", "items.parquet", "manifest.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is not the folder of a run: it has no {name}; name one that python -m harness run wrote"
            )
    path = folder / "summary.json"
    try:
        summary = parse_json(Summary, path.read_bytes())
        path = folder / "manifest.json"
        manifest = _read_json(path)
        _check_manifest(manifest)
        path = folder / "items.parquet"
        rows = pq.read_table(path).to_pylist()
        items = _by_router(rows, summary)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, pa.ArrowException) as error:
        raise UserError(f"{path} has not the form that this version reads ({error}); make the run again") from None
    return RunFolder(folder, folder.name, summary, manifest, items)


def _read_json(path: Path) -> dict[str, Any]:
    def refuse(text: str) -> None:
        raise ValueError(f"{text} is no number of JSON")

    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Raise ValueError where what the readers of a run need is missing from its manifest, or of another type."""
    for key, kind in _MANIFEST.items():
        if not isinstance(manifest.get(key), kind) or isinstance(manifest[key], bool):
            raise ValueError(f"{key} is missing or of another type")
    asked = manifest["arguments"].get("router", [])
    if not isinstance(asked, list) or not all(isinstance(name, str) for name in asked):
        raise ValueError("arguments.router is no list of names")


def _by_router(rows: Rows, summary: Summary) -> dict[str, Rows]:
    missing = [name for name in _COLUMNS if rows and name not in rows[0]]
    if missing:
        raise ValueError(f"there is no column {missing[0]}")
    grouped: dict[str, Rows] = defaultdict(list)
    for row in rows:
        grouped[row["router"]].append(row)
    order = [(row["task"], row["doc_id"]) for row in grouped[next(iter(summary.routers))]]
    for name in summary.routers:
        if len(grouped[name]) != summary.items:
            raise ValueError(f"{len(grouped[name])} rows of {name} for {summary.items} items")
        if any(not isinstance(row["quality"], float) for row in grouped[name]):
            raise ValueError(f"a row of {name} has no quality")
        if [(row["task"], row["doc_id"]) for row in grouped[name]] != order:
            raise ValueError(f"the rows of {name} are of other items than the first router's, or in another order")
    return dict(grouped)
