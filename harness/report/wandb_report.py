"""A W&B Report on tracked runs: the result of each in words and as tables, and panels over their figures.

The panels read what `run --track` logged (`harness.report.wandb_run`), so the page follows the runs: whoever opens it
can filter and colour them, and open a run's tables and files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.report.result_text import main_result
from harness.runs.folder import RunFolder
from harness.tables.export import markdown
from harness.tables.grid import grids
from pools.errors import UserError
from pools.extras import installing
from pools.schema import Schema, parse_json
from pools.secrets import clean

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report

    from harness.report.groups import Group

IDENTITY = "wandb.json"
"""The file, in a run's folder, that says where wandb keeps the run."""
TABLES = ("overall", "tasks")
"""The tables that every tracked run has."""
# W&B's grid of panels is 24 units wide.
_WIDTH = 24


class Tracked(Schema):
    """Where wandb keeps a run, as `run --track` wrote it to `wandb.json`."""

    entity: str | None
    """Its owner; none for a run tracked offline, until it is synced."""
    project: str
    """Its project."""
    id: str
    """Its identifier in the project."""


def tracked_runs(runs: Sequence[RunFolder]) -> dict[str, Tracked]:
    """Where wandb keeps each of these runs, by their names.

    Raises UserError if no W&B Report can be made on them: a run that was not tracked, no package for it, offline.
    """
    tracked = {run.name: identity(run) for run in runs}
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        install = installing("workspaces")
        raise UserError(f"a W&B Report needs a package that is not installed: {install}") from None
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        raise UserError("a W&B Report is kept on the server: unset WANDB_MODE, and sync offline runs with wandb sync")
    return tracked


def publish(groups: Sequence[Group], tracked: Mapping[str, Tracked]) -> str:
    """Save a W&B Report on these groups of runs, in the project of the first run; its address.

    Raises UserError if wandb takes no report: no login, no connection.
    """
    import wandb

    try:
        entity = next(iter(tracked.values())).entity or wandb.Api().default_entity
        if not entity:
            raise ValueError("there is no login")
        built = build(groups, tracked, entity)
        return str(built.save().url)
    except (wandb.errors.Error, OSError, ValueError) as error:
        # OSError takes in the errors of requests; ValueError is the report library's on a project that is not there.
        said = clean(" ".join(str(error).split()))[:200].rstrip(".")
        raise UserError(f"wandb took no report: {said}; check wandb login and the connection") from None


def identity(run: RunFolder) -> Tracked:
    """Where wandb keeps this run. Raises UserError if it was not tracked."""
    path = run.path / IDENTITY
    if not path.is_file():
        raise UserError(f"{run.path} was not tracked, so wandb has nothing of it; make the run again with --track")
    try:
        return parse_json(Tracked, path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); make the run again with --track") from None


def build(groups: Sequence[Group], tracked: Mapping[str, Tracked], entity: str) -> Report:
    """The report, not yet saved; `tracked` by the runs' names. `entity` stands for that of runs tracked offline."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for group in groups:
        blocks += [
            wr.H1(group.runs[0].summary.title),
            wr.PanelGrid(runsets=_runsets(group, tracked, entity), panels=_panels(group)),
        ]
        for run in group.runs:
            tables = "\n".join(map(markdown, grids(run.summary)))
            blocks += [wr.H2(run.name), wr.P(" ".join(main_result(run))), wr.MarkdownBlock(tables)]
    routers = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.asked))
    return wr.Report(
        entity=entity,
        project=next(iter(tracked.values())).project,
        title=f"{', '.join(routers)}: quality and cost"[:128],
        description=f"Runs: {', '.join(run.name for group in groups for run in group.runs)}.",
        blocks=blocks,
        width="fluid",
    )


def _runsets(group: Group, tracked: Mapping[str, Tracked], entity: str) -> list[Any]:
    """One set of runs for each project that the group's runs are in."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    places: dict[tuple[str, str], list[str]] = {}
    for run in group.runs:
        where = tracked[run.name]
        places.setdefault((where.entity or entity, where.project), []).append(where.id)
    return [
        wr.Runset(entity=owner, project=project, name="runs", filters=expr.And(expr.Metric("ID").isin(ids)))
        for (owner, project), ids in places.items()
    ]


def _panels(group: Group) -> list[Any]:
    """Quality and cost of every router as bars, each asked router in the quality-cost plane, and the runs' tables."""
    import wandb_workspaces.reports.v2 as wr

    routers = list(dict.fromkeys(name for run in group.runs for name in run.routers))
    asked = list(dict.fromkeys(name for run in group.runs for name in run.asked))
    figures = {"quality": "quality"} | ({"cost": f"cost per item ({group.unit})"} if group.unit else {})
    count = len(routers)
    bars = [
        partial(wr.BarPlot, title=title, metrics=[f"{name}/{figure}" for name in routers], max_bars_to_show=count)
        for figure, title in figures.items()
    ]
    planes = [
        partial(
            wr.ScatterPlot,
            title=f"{name}: quality against cost",
            x=wr.SummaryMetric(f"{name}/cost"),
            y=wr.SummaryMetric(f"{name}/quality"),
        )
        for name in (asked if group.unit else ())
    ]
    rows: list[tuple[int, list[Any]]] = [(max(6, count), bars)]
    rows += [(8, planes[n : n + 2]) for n in range(0, len(planes), 2)]
    rows += [(10, [partial(wr.WeavePanelSummaryTable, table_name=table)]) for table in TABLES]
    rows.append((9, [partial(wr.RunComparer, diff_only="split")]))
    panels, top = [], 0
    for height, row in rows:
        width = _WIDTH // len(row)
        panels += [
            panel(layout=wr.Layout(x=column * width, y=top, w=width, h=height)) for column, panel in enumerate(row)
        ]
        top += height
    return panels
