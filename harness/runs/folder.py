"""The folder of a run: written whole or not at all, read back and checked."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.evaluation.summary import RouterSummary, Summary, TaskFigures
from pools.errors import UserError, shown
from pools.files import finish_moving, holds_nothing, whole_folder
from pools.schema import parse_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Rows = list[dict[str, Any]]

_MANIFEST = {"seed": int, "arguments": dict, "source": dict, "versions": dict, "sha256": dict}
_COLUMNS = ("router", "task", "doc_id", "quality", "cost")
_FILES = ("summary.json", "items.parquet", "manifest.json")
# What other commands put into the folder of a run; of an earlier run it means nothing.
_ABOUT_IT = ("wandb.json", "report.html", "report-figures")
# Figures are sums and means in floating point.
_NOISE = 1e-9
_RANGES = {
    "quality": (-_NOISE, 1 + _NOISE, "a number from 0 to 1"),
    "cost": (-_NOISE, sys.float_info.max, "a finite number >= 0"),
}


@dataclass(frozen=True)
class RunFolder:
    """What `python -m harness run` left in a folder.

    name: short, and different for each run of a report.
    manifest: how it was made.
    rows: per router those of `items.parquet`, each router's items in the same order.
    """

    path: Path
    name: str
    summary: Summary
    manifest: dict[str, Any]
    rows: dict[str, Rows]

    @property
    def routers(self) -> dict[str, RouterSummary]:
        """Per router its figures."""
        return self.summary.routers

    @property
    def asked(self) -> list[str]:
        """The routers that the run was asked for; the others are its baselines."""
        named = [name for name in self.manifest["arguments"].get("router", ()) if name in self.routers]
        return named or [next(iter(self.routers))]

    def items(self) -> pd.DataFrame:
        """A row per router and item; the columns are documented in docs/reference/run-folder.md."""
        return _read_items((self.path / "items.parquet").read_bytes()).to_pandas()

    def report(self, path: Path | str | None = None) -> Path:
        """Write the report, by default `report.html` in the run's folder; where it is."""
        import harness

        return harness.write_report([self.path], path)


def check_run_target(folder: Path) -> None:
    """Raise UserError where a folder holds something that is no run."""
    finish_moving(folder, _FILES[0])
    if not _holds_run(folder) and not holds_nothing(folder, _FILES[0]):
        raise UserError(f"{folder} is there and holds no run; name a new folder, or one that holds a run")


@contextmanager
def new_run(folder: Path) -> Iterator[Path]:
    """Where to write the files of a run that shall be in `folder`; an earlier run is replaced as a whole, or stays."""

    def of_earlier_run() -> list[str]:
        try:
            hashes = load_run(folder).manifest.get("sha256", {})
        except UserError:  # none, or a damaged one
            hashes = {}
        return [*_ABOUT_IT, *(path.name for path in folder.glob("*.safetensors") if path.name in hashes)]

    with whole_folder(folder, _FILES[0], of_earlier_run, lambda: check_run_target(folder)) as partial:
        yield partial


def _holds_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


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


def load_run(folder: Path | str) -> RunFolder:
    """The run of one folder, under the folder's name. Raises UserError for what is no run."""
    folder = Path(folder)
    import pyarrow as pa

    finish_moving(folder, _FILES[0])
    for name in _FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is not the folder of a run: it has no {name}; name one that python -m harness run wrote"
            )
    contents = {name: (folder / name).read_bytes() for name in _FILES}
    path = folder / "summary.json"
    try:
        summary = parse_json(Summary, contents[path.name])
        path = folder / "manifest.json"
        manifest = _object(contents[path.name])
        _check_manifest({"sha256": {}, **manifest})
        path = folder / "items.parquet"
        rows = _read_items(contents[path.name]).to_pylist()
        items = _by_router(rows, summary)
        _check_figures(items, summary)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, pa.ArrowException) as error:
        raise UserError(f"{path} has not the form that this version reads ({error}); make the run again") from None
    hashes = manifest.get("sha256", {})  # what an earlier version wrote has none
    for name, content in contents.items():
        if name in hashes and hashes[name] != hashlib.sha256(content).hexdigest():
            raise UserError(f"{folder / name} is not of this run: the manifest has another sha256; make the run again")
    return RunFolder(folder, folder.name, summary, manifest, items)


def _read_items(content: bytes) -> pa.Table:
    """With no threads: a command that ends while pyarrow still starts some is aborted by them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(content), use_threads=False, pre_buffer=False)


def _object(content: bytes) -> dict[str, Any]:
    def refuse(text: str) -> None:
        raise ValueError(f"{text} is no number of JSON")

    try:
        found = json.loads(content.decode("utf-8"), parse_constant=refuse)
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


def _check_figures(items: dict[str, Rows], summary: Summary) -> None:
    """Raise ValueError where a row has a figure that cannot be, or the summary is not of these rows."""
    if others := [name for name in items if items[name] and name not in summary.routers]:
        raise ValueError(f"it has rows of {shown(others[0])}, which the summary lacks")
    measures = ("quality", "cost") if summary.cost_unit else ("quality",)
    for name, rows in items.items():
        for measure in measures:
            low, high, expected = _RANGES[measure]
            for row in rows:
                if row[measure] is None or not low <= row[measure] <= high:
                    place = f"{name} on {row['task']} {row['doc_id']}"
                    raise ValueError(f"{measure} of {place} is {shown(row[measure])}, expected {expected}")
        entry = summary.routers[name]
        by_task: dict[str, Rows] = defaultdict(list)
        for row in rows:
            by_task[row["task"]].append(row)
        if set(by_task) != set(entry.tasks):
            raise ValueError(f"the rows of {name} are of other tasks than the summary's")
        selections: list[tuple[str, Rows, TaskFigures]] = [("overall", rows, entry.overall)]
        selections += [(f"on {task}", by_task[task], figures) for task, figures in entry.tasks.items()]
        for place, found, figures in selections:
            if len(found) != figures.items:
                raise ValueError(f"{name} {place} has {len(found)} rows, and {figures.items} items in the summary")
            for measure in measures:
                mean, said = math.fsum(row[measure] for row in found) / len(found), getattr(figures, measure)
                if not math.isclose(mean, said, rel_tol=1e-6, abs_tol=_NOISE):
                    raise ValueError(
                        f"{measure} of {name} {place} is {mean:.6g} by its rows and {said:.6g} by the summary"
                    )
