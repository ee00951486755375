"""The folder of a run: written whole or not at all, read back and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter, ValidationError

from harness.evaluation.paired import Figures, Results, checked_results
from harness.evaluation.summary import Cost, Pipeline, RouterSummary, Score, Seconds, Share, Summary
from harness.runs.kept import UNFINISHED
from harness.runs.manifest import Manifest
from pools.errors import UserError
from pools.files import finish_moving, holds_nothing, whole_folder
from pools.schema import Schema, one_line, parse_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_FILES = ("summary.json", "items.parquet", "manifest.json")
# What other commands put into the folder of a run; of an earlier run it means nothing.
_ABOUT_IT = ("wandb.json", "report.html", "report-figures", UNFINISHED)


class ItemRow(Schema):
    """A router on an item: what is read of a row of `items.parquet`. docs/reference/run-folder.md has all columns."""

    router: str
    """Its name."""
    task: str
    """The item's task."""
    doc_id: int
    """Its number in the task."""
    quality: Score
    """Expected score."""
    cost: Cost | None
    """Expected cost; null if none was recorded."""
    seconds: Seconds | None = None
    """Expected seconds; null if the recording has no latency."""
    pipeline: Pipeline
    """The likeliest final pipeline."""
    pipeline_share: Share
    """Its probability."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run attained and how it was made. cost_unit: empty if no costs were recorded."""

    results: Results
    cost_unit: str
    manifest: Manifest


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
    manifest: Manifest
    rows: dict[str, list[ItemRow]]

    @property
    def routers(self) -> dict[str, RouterSummary]:
        """Per router its figures."""
        return self.summary.routers

    @property
    def asked(self) -> list[str]:
        """The routers that the run was asked for; the others are its baselines."""
        named = [name for name in self.manifest.arguments.asked if name in self.routers]
        return named or [next(iter(self.routers))]

    def items(self) -> pd.DataFrame:
        """A row per router and item; the columns are documented in docs/reference/run-folder.md."""
        return _read_items((self.path / "items.parquet").read_bytes()).to_pandas()

    def report(self, path: Path | str | None = None) -> Path:
        """Write the report, by default `report.html` in the run's folder; where it is."""
        import harness

        return harness.write_report([self.path], path)


def check_run_target(folder: Path) -> None:
    """Raise UserError for a file, and for a folder that holds something that is no run."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file; name a folder")
    finish_moving(folder, _FILES[0])
    is_run = all((folder / name).is_file() for name in _FILES)
    if folder.exists() and not is_run and not holds_nothing(folder, _FILES[0], UNFINISHED):
        raise UserError(f"{folder} is there and holds no run; name a new folder, or one that holds a run")


def new_run(folder: Path) -> AbstractContextManager[Path]:
    """Where to write the files of a run that shall be in `folder`; an earlier run is replaced as a whole, or stays."""

    def of_earlier_run() -> list[str]:
        try:
            return [*_ABOUT_IT, *load_run(folder).manifest.sha256]
        except UserError:  # none, or a damaged one
            return [*_ABOUT_IT]

    return whole_folder(folder, _FILES[0], of_earlier_run, lambda: check_run_target(folder))


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
    if not folder.exists():
        raise UserError(f"{folder}: no such folder; name one that python -m harness run wrote")
    finish_moving(folder, _FILES[0])
    if (folder / "stress.json").is_file() and not (folder / _FILES[0]).is_file():
        raise UserError(
            f"{folder} is a card of python -m harness stress, and no run; python -m harness report {folder} makes a "
            "page on it"
        )
    for name in _FILES:
        if not (folder / name).is_file():
            if (folder / UNFINISHED).is_dir():
                raise UserError(f"{folder} is of a run that was stopped; finish it, as its command goes on from there")
            raise UserError(
                f"{folder} is not the folder of a run: it has no {name}; name one that python -m harness run wrote"
            )
    contents = {name: (folder / name).read_bytes() for name in _FILES}
    path = folder / "manifest.json"
    try:
        manifest = parse_json(Manifest, contents.pop(path.name))
        for name, content in contents.items():
            path, digest = folder / name, hashlib.sha256(content).hexdigest()
            if name not in manifest.sha256:
                raise UserError(f"{folder} has no sha256 of its {name}: an earlier version made it; make the run again")
            if manifest.sha256[name] != digest:
                raise UserError(f"{path} is not of this run: the manifest has another sha256; make the run again")
        path = folder / "summary.json"
        summary = parse_json(Summary, contents[path.name])
        path = folder / "items.parquet"
        rows = TypeAdapter(list[ItemRow]).validate_python(_read_items(contents[path.name]).to_pylist())
        by_router = {name: [row for row in rows if row.router == name] for name in summary.routers}
        if any(len(mine) != summary.items for mine in by_router.values()):
            raise ValueError("its rows are not those of the summary's routers and items")
    except ValueError as error:
        said = one_line(error) if isinstance(error, ValidationError) else error
        raise UserError(f"{path} has not the form that this version reads ({said}); make the run again") from None
    return RunFolder(folder, folder.name, summary, manifest, by_router)


def read_run(folder: Path) -> FinishedRun:
    """A run as what it attained on each item. Raises UserError if the folder does not hold a whole run."""
    run = load_run(folder)
    unit: str = run.summary.cost_unit
    figures = {
        name: Figures(
            np.array([row.quality for row in rows]),
            np.array([row.cost for row in rows]) if unit else None,
            None if run.routers[name].latency is None else np.array([row.seconds for row in rows]),
        )
        for name, rows in run.rows.items()
    }
    items = tuple((row.task, row.doc_id) for row in next(iter(run.rows.values())))
    return FinishedRun(checked_results(Results(items, figures), f"the run {folder}"), unit, run.manifest)


def _read_items(content: bytes) -> pa.Table:
    """With no threads: a command that ends while pyarrow still starts some is aborted by them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(content), use_threads=False, pre_buffer=False)
