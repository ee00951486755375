"""What `run --track` sends to wandb: figures, tables, drawings, the curves of trainings, checkpoints and files.

One wandb run per `harness run`: its routers met the same items, their differences are paired, and tables and files are
of all of them. Runs of the same routers on one suite, with other seeds or cost weights, are one group; all runs of a
suite share the setting `suite`, to group or filter by. They compare in the UI, since a router's figures have the same
keys, `<router>/<figure>`, in each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.evaluation.summary import Summary
from harness.report.figures.style import write_files
from harness.report.groups import group
from harness.report.page import flows_of, of_groups
from harness.report.wandb_report import IDENTITY, TABLES
from harness.runs.folder import RunFolder
from harness.runs.manifest import write_json
from harness.tables.export import COLUMNS, tidy_rows
from pools.errors import UserError
from pools.schema import Schema
from routers.checkpoint import read_checkpoint
from routers.tracking import Tracking, artifact_name, log_checkpoint, tracked

FRONTIER = "frontier"
FILES = ("summary.json", "manifest.json", "items.parquet", "tables.md", "tables.tex", "tables.csv")
Curves = Mapping[str, list[tuple[int, Mapping[str, float]]]]
"""Of each training by its name: environment steps so far, and the figures."""


def track(run: RunFolder, tracking: Tracking, curves: Curves) -> None:
    """Log a run, written to its folder, and how its routers were trained.

    Raises UserError if wandb takes no run, for want of a login or a connection.
    """
    recording = run.manifest.source.get("recording", "live models")
    routers = " ".join(run.manifest.arguments.asked) or "baselines"
    about = f"{run.manifest.suite}-{recording}"
    settings = run.manifest.model_dump(mode="json")
    names = f"{routers} on {recording}", f"{routers} on {run.manifest.suite}"
    try:
        with tracked(tracking, "run", *names, settings) as logged:
            _log_curves(logged, curves)
            logged.summary.update(figures(run.summary))
            with tempfile.TemporaryDirectory() as scratch:
                logged.log(_tables(run.summary) | _drawings(run, Path(scratch)))
            _log_files(logged, run, about)
            kept = {"entity": logged.entity, "project": logged.project, "id": logged.id, "url": logged.url}
    except UserError as error:
        raise UserError(f"the run is written to {run.path}, but {error}") from None
    write_json(kept, run.path / IDENTITY)


def _log_curves(logged: Any, curves: Curves) -> None:
    """Each training's figures over its own environment steps, as `training/<name>/<figure>`."""
    for name, curve in curves.items():
        at = f"training/{name}/"
        logged.define_metric(f"{at}step")
        logged.define_metric(f"{at}*", step_metric=f"{at}step")
        for step, found in curve:
            logged.log({f"{at}step": step} | {f"{at}{key}": value for key, value in found.items()})


def _tables(summary: Summary) -> dict[str, Any]:
    """Tables of figures: over all items, by task, and by cost weight if there are several."""
    import wandb

    tasks = list(COLUMNS), [[row.get(name) for name in COLUMNS] for row in tidy_rows(summary)]
    found = dict(zip(TABLES, (wandb.Table(*_overall(summary)), wandb.Table(*tasks)), strict=True))
    if summary.frontier is not None:
        rows = [
            {"router": name, "cost_weight": point.cost_weight, **_row(figures)}
            for point in summary.frontier
            for name, figures in point.routers.items()
        ]
        found[FRONTIER] = wandb.Table(list(rows[0]), [list(row.values()) for row in rows])
    return found


def _drawings(run: RunFolder, scratch: Path) -> dict[str, Any]:
    """The report's figures as images, from files in an empty folder that stays until they are logged."""
    import wandb

    images = {}
    for drawing in [*of_groups(group([run])).values(), *flows_of([run])[run.name]]:
        write_files(drawing, scratch)
        images[f"figures/{drawing.name}"] = wandb.Image(str(scratch / f"{drawing.name}.png"), caption=drawing.title)
    return images


def _log_files(logged: Any, run: RunFolder, about: str) -> None:
    """The run's files as an artifact, whose versions are the runs on one recording; each checkpoint as another."""
    import wandb

    artifact = wandb.Artifact(artifact_name(about), type="run-result")
    for name in FILES:
        artifact.add_file(str(run.path / name))
    logged.log_artifact(artifact)
    for name in run.manifest.sha256:
        if name.endswith(".safetensors"):
            path = run.path / name
            header = read_checkpoint(path).header.model_dump(mode="json")
            log_checkpoint(logged, path, f"{path.stem}-{about}", header)


def figures(summary: Summary) -> dict[str, float | str]:
    """Every number of every router: `<router>/<figure>` overall, `<router>/macro/<figure>` of the mean over tasks.

    `<router>/notes` says, among others, which policy it is.
    """
    found: dict[str, float | str] = {}
    for router, entry in summary.routers.items():
        found |= {f"{router}/notes": "; ".join(entry.overall.notes)} if entry.overall.notes else {}
        found |= {f"{router}/{key}": value for key, value in _numbers(entry.overall)}
        found |= {f"{router}/macro/{key}": value for key, value in _numbers(entry.macro)}
        found |= {f"{router}/{key}": value for key, value in _numbers(entry.latency)} if entry.latency else {}
        if summary.frontier_metrics is not None:
            metrics = summary.frontier_metrics
            for part in (metrics.routers[router], metrics.parity.get(router)):
                found |= {f"{router}/{key}": value for key, value in _numbers(part)} if part is not None else {}
    return found


def _numbers(figures: Schema) -> Iterator[tuple[str, float]]:
    return ((key, value) for key, value in figures if isinstance(value, int | float) and not isinstance(value, bool))


def _overall(summary: Summary) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the table of overall figures."""
    rows = []
    for router, entry in summary.routers.items():
        row = {"router": router, **_row(entry.overall)}
        row |= {f"calls:{model}": calls for model, calls in entry.overall.calls.items()}
        rows.append(row)
    return list(rows[0]), [list(row.values()) for row in rows]


def _row(figures: Schema) -> dict[str, Any]:
    """Figures as cells: an interval is two of them."""
    row: dict[str, Any] = {}
    for key, value in figures:
        if key.endswith("_interval"):
            low, high = value or (None, None)
            row |= {key.replace("_interval", "_low"): low, key.replace("_interval", "_high"): high}
        elif key == "notes":
            row[key] = "; ".join(value)
        elif key not in ("calls", "pipelines"):
            row[key] = value
    return row
