"""What `run --track` sends to wandb: figures, tables and the run's files.

One wandb run per `harness run`: its routers met the same items, their differences are paired, and tables and files are
of all of them. Runs of the same routers on one suite, with other seeds or cost weights, are one group; all runs of a
suite share the setting `suite`, to group or filter by. They compare in the UI, since a router's figures have the same
keys, `<router>/<figure>`, in each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.evaluation.summary import Summary
from harness.runs.manifest import Manifest, write_json
from harness.tables.export import COLUMNS, tidy_rows
from pools.errors import UserError
from pools.schema import Schema
from pools.secrets import clean

PROJECT = "hierrouter-harness"
# The file, in a run's folder, that says where wandb keeps the run.
IDENTITY = "wandb.json"
TABLES = ("overall", "tasks")
LONGEST = 128  # characters of a group's name that wandb takes
FILES = ("summary.json", "manifest.json", "items.parquet", "tables.md", "tables.tex", "tables.csv")


def track(folder: Path, manifest: Manifest, summary: Summary) -> None:
    """Log a run, written to its folder, to wandb: online, or offline with WANDB_MODE=offline.

    Raises UserError if wandb takes no run, for want of a login or a connection.
    """
    import wandb

    recording = manifest.source.get("recording", "live models")
    routers = " ".join(manifest.arguments.router) or "baselines"
    try:
        logged = wandb.init(
            project=PROJECT,
            job_type="run",
            group=f"{routers} on {manifest.suite}"[-LONGEST:],
            name=f"{routers} on {recording}",
            config=dict(flat(manifest.model_dump(mode="json"))),
        )
        logged.summary.update(figures(summary))
        tasks = list(COLUMNS), [[row.get(name) for name in COLUMNS] for row in tidy_rows(summary)]
        tables = (wandb.Table(*_overall(summary)), wandb.Table(*tasks))
        logged.log(dict(zip(TABLES, tables, strict=True)))
        # Made of what wandb allows in a name; its versions are the runs on one recording.
        artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", f"{manifest.suite}-{recording}"), type="run-result")
        for name in FILES:
            artifact.add_file(str(folder / name))
        logged.log_artifact(artifact)
        kept = {"entity": logged.entity, "project": logged.project, "id": logged.id, "url": logged.url}
        logged.finish()
        write_json(kept, folder / IDENTITY)
    except wandb.errors.Error as error:
        said = clean(" ".join(str(error).split()))[:200].rstrip(".")
        raise UserError(
            f"the run is written to {folder}, but wandb did not take it: {said}; or set WANDB_MODE=offline"
        ) from None


def flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted keys, which the UI can filter and group by.

    A list of plain values is one text; a list of mappings goes by their `name`, if they have one, or number.
    """
    for key, value in tree.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}.")
        elif isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
            yield from flat({str(part.get("name", n)): part for n, part in enumerate(value)}, f"{path}.")
        else:
            yield path, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def figures(summary: Summary) -> dict[str, float]:
    """Every number of every router: `<router>/<figure>` overall, `<router>/macro/<figure>` of the mean over tasks."""
    found: dict[str, float] = {}
    for router, entry in summary.routers.items():
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
    """Columns and rows of the table of overall figures; an interval is two columns."""
    rows = []
    for router, entry in summary.routers.items():
        row: dict[str, Any] = {"router": router}
        for key, value in entry.overall:
            if key.endswith("_interval"):
                low, high = value or (None, None)
                row |= {key.replace("_interval", "_low"): low, key.replace("_interval", "_high"): high}
            elif key == "notes":
                row[key] = "; ".join(value)
            elif key not in ("calls", "pipelines"):
                row[key] = value
        row |= {f"calls:{model}": calls for model, calls in entry.overall.calls.items()}
        rows.append(row)
    return list(rows[0]), [list(row.values()) for row in rows]
