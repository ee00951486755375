"""A W&B Report on tracked runs: the result of each in words and as tables, and panels over their figures.

The panels read what `run --track` logged (`harness.runs.wandb`), so the page follows the runs: whoever opens it can
filter and colour them, and open a run's tables and files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.report.result_text import main_result
from harness.runs.folder import RunFolder
from harness.runs.wandb import IDENTITY, TABLES
from pools.errors import UserError
from pools.secrets import clean

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report

    from harness.report.groups import Group

INSTALL = "pip install wandb-workspaces"
# W&B's grid of panels is 24 units wide.
_WIDTH = 24


@dataclass(frozen=True)
class Tracked:
    """Where wandb keeps a run. `entity` is empty for one tracked offline, until it is synced."""

    entity: str
    project: str
    id: str


def publish(groups: Sequence[Group]) -> str:
    """Save a W&B Report on these groups of runs, in the project of the first run; its address.

    Raises UserError for a run that was not tracked, and where wandb takes no report: no login, no connection, offline.
    """
    tracked = {run.name: identity(run) for each in groups for run in each.runs}
    wandb = _library()
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        raise UserError("a W&B Report is kept on the server: unset WANDB_MODE, and sync offline runs with wandb sync")
    try:
        built = build(groups, tracked, next(iter(tracked.values())).entity or _default_entity(wandb))
        return str(built.save().url)
    except (wandb.errors.Error, OSError, ValueError) as error:
        # OSError takes in the errors of requests; ValueError is the report library's on a project that is not there.
        said = clean(" ".join(str(error).split()))[:200].rstrip(".")
        raise UserError(f"wandb took no report: {said}; check wandb login and the connection") from None


def identity(run: RunFolder) -> Tracked:
    """Where wandb keeps this run. Raises UserError where it was not tracked."""
    path = run.path / IDENTITY
    if not path.is_file():
        raise UserError(f"{run.path} was not tracked, so wandb has nothing of it; make the run again with --track")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Tracked(**{key: str(found[key] or "") for key in ("entity", "project", "id")})
    except (ValueError, TypeError, KeyError) as error:
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
            tables = run.path / "tables.md"
            blocks += [wr.H2(run.name), wr.P(" ".join(main_result(run)))]
            blocks += [wr.MarkdownBlock(tables.read_text(encoding="utf-8"))] if tables.is_file() else []
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
    tall = max(6, len(routers))
    panels: list[Any] = []
    for column, (figure, title) in enumerate(figures.items()):
        width = _WIDTH // len(figures)
        place = wr.Layout(x=column * width, y=0, w=width, h=tall)
        metrics = [f"{name}/{figure}" for name in routers]
        panels.append(wr.BarPlot(title=title, metrics=metrics, max_bars_to_show=len(routers), layout=place))
    top = tall
    for number, name in enumerate(asked if group.unit else ()):
        place = wr.Layout(x=(number % 2) * (_WIDTH // 2), y=top + (number // 2) * 8, w=_WIDTH // 2, h=8)
        cost, quality = (wr.SummaryMetric(f"{name}/{figure}") for figure in ("cost", "quality"))
        panels.append(wr.ScatterPlot(title=f"{name}: quality against cost", x=cost, y=quality, layout=place))
    top += 8 * -(-len(asked) // 2) if group.unit else 0
    for table in TABLES:
        panels.append(wr.WeavePanelSummaryTable(table_name=table, layout=wr.Layout(x=0, y=top, w=_WIDTH, h=10)))
        top += 10
    return [*panels, wr.RunComparer(diff_only="split", layout=wr.Layout(x=0, y=top, w=_WIDTH, h=9))]


def _library() -> Any:
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise UserError(f"a W&B Report needs a package that is not installed: {INSTALL}") from None
    return wandb


def _default_entity(wandb: Any) -> str:
    entity = wandb.Api().default_entity
    if not entity:
        raise ValueError("there is no login")
    return str(entity)
