"""A page on one or several runs: the result in words, tables, figures and example items. One HTML file, no network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.evaluation.summary import ARROW, Summary
from harness.report import stress_page
from harness.report.examples import Example, choose_examples
from harness.report.figures.flow import draw_flow
from harness.report.figures.plane import Point, draw_plane
from harness.report.figures.style import COLOURS, Drawing, write_files
from harness.report.figures.tasks import draw_tasks
from harness.report.groups import OPTIMUM, ROUTER, Group, group
from harness.report.html import template_environment
from harness.report.result_text import main_result
from harness.robustness.card import RESULT
from harness.runs.folder import RunFolder, load_runs
from harness.tables.grid import frontier_grid, latency_grid, limit_grids, overall_grid, task_grid
from pools.errors import UserError
from pools.files import check_out_file, whole_folder

if TYPE_CHECKING:
    from harness.report.config import Report

# More would draw a picture of dust.
MAX_FLOWS = 4
CASCADES = (
    "It is a table of one call of each model: no model reads earlier answers, the score of a pipeline is that of its "
    "last model, and its cost is the sum. Models that read what was answered before might answer otherwise."
)


def report(options: Report, console: Console) -> Path:
    """Write the page and say where it is. Also on W&B, if asked."""
    check_out_file(options.out, options.force)
    if options.wandb:
        from harness.report.wandb_report import publish, tracked_runs

        runs = load_runs(options.runs)
        tracked = tracked_runs(runs)  # what keeps wandb from it is said before anything is drawn
    out = write_report(options.runs, options.out)
    folder = _figures_folder(out)
    console.print(f"report written to {out}, its figures to {folder}", highlight=False, markup=False, soft_wrap=True)
    if options.wandb:
        console.print(f"W&B Report: {publish(group(runs), tracked)}", highlight=False, markup=False, soft_wrap=True)
    return out


def write_report(runs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write a page on runs or on a card of `stress`, its figures as PNG and SVG in a folder beside it; where it is.

    out: by default `report.html` in the first of the folders; a file that is there is replaced, as the command does
    with --force. The same runs give the same bytes.
    Raises UserError for what is no run, and if the page cannot be put.
    """
    folders = [Path(run) for run in runs]
    cards = [each for each in folders if (each / RESULT).is_file()]
    if cards and len(folders) > 1:
        raise UserError(f"{cards[0]} is a card of python -m harness stress; a page is on one card or on runs")
    if len(folders) == 1 and not folders[0].exists():
        raise UserError(
            f"{folders[0]}: no such folder; name one that python -m harness run wrote, or python -m harness stress"
        )
    found = [] if cards else load_runs(folders)
    out = folders[0] / "report.html" if out is None else Path(out)
    check_out_file(out, force=True)
    folder = _figures_folder(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, and the figures' folder has to be there; name another --out")
    page, drawings = stress_page.page_of(cards[0]) if cards else _page_of(found)
    with whole_folder(out.parent, out.name, obsolete=lambda: _figures_in(folder)) as partial:
        figures = partial / folder.name
        figures.mkdir()
        for drawing in drawings:
            write_files(drawing, figures)
        # What a model wrote may hold half of a surrogate pair, which UTF-8 cannot.
        (partial / out.name).write_bytes(page.encode("utf-8", "replace"))
    return out


def plot(runs: Sequence[Path | str]) -> Drawing:
    """The first figure of the report on runs: quality against cost. A notebook shows it.

    Raises UserError for what is no run, for runs of different items, and where no cost was recorded.
    """
    groups = group(load_runs([Path(run) for run in runs]))
    if len(groups) > 1:
        raise UserError("the runs were not evaluated on the same items; plot those that were, or write a report on all")
    if not groups[0].unit:
        raise UserError(f"{groups[0].runs[0].path}: no costs were recorded to plot quality against; write a report")
    return plane(groups[0])


def _page_of(found: Sequence[RunFolder]) -> tuple[str, list[Drawing]]:
    """The page on runs, and its figures."""
    groups = group(found)
    drawings, flows = of_groups(groups), flows_of(found)
    return render(found, groups, drawings, flows), [*drawings.values(), *(d for each in flows.values() for d in each)]


def of_groups(groups: Sequence[Group]) -> dict[str, Drawing]:
    """The figures of groups of runs, by name."""
    drawings = {f"plane-{g.number}": plane(g) for g in groups if g.unit}
    drawings |= {f"latency-{g.number}": latency_plane(g) for g in groups if g.latency}
    return drawings | {f"tasks-{g.number}": tasks(g) for g in groups}


def flows_of(found: Sequence[RunFolder]) -> dict[str, list[Drawing]]:
    """By run, which models its routers called."""
    return {run.name: [flow(run, name, number) for name in flowing(run)] for number, run in enumerate(found)}


def _figures_folder(out: Path) -> Path:
    return out.with_name(f"{out.stem}-figures")


def _figures_in(folder: Path) -> list[str]:
    """The figures of an earlier report in their folder, as names in the folder above."""
    return [
        f"{folder.name}/{path.name}"
        for name in ("plane-*", "latency-*", "tasks-*", "pipelines-*", "overview")
        for ending in ("svg", "png")
        for path in folder.glob(f"{name}.{ending}")
    ]


def plane(group: Group) -> Drawing:
    """The quality-cost plane of a group."""
    routers = []
    for series, run, name in group.routers:
        within, o = run.summary.budget, run.routers[name].overall
        if within is not None and within.resource == "cost" and name in within.routers:
            set_to = within.routers[name]
            routers.append(Point(series, set_to.cost, set_to.cost_interval, set_to.quality, set_to.quality_interval))
            continue
        assert o.cost is not None and o.cost_interval is not None
        routers.append(Point(series, o.cost, o.cost_interval, o.quality, o.quality_interval))
    curves = [
        (series, curve)
        for series, run, name in group.routers
        if series.role in (ROUTER, OPTIMUM) and (curve := _curve(run.summary, name))
    ]
    limits = [found for run in group.runs if (found := run.summary.budget) is not None and found.resource == "cost"]
    budgets = sorted({(each.budget, each.optimum.quality) for each in limits if each.budget is not None})
    points = [f"{p.series.label}: quality {p.quality:.3f}, cost {p.taken:.4g} {group.unit}" for p in routers]
    points += [f"the optimum within a budget of {budget:g}: quality {quality:.3f}" for budget, quality in budgets]
    return Drawing(
        f"plane-{group.number}",
        f"Quality against cost, {group.runs[0].summary.title}",
        "Each router as a point with its 95% intervals.",
        points,
        lambda narrow: draw_plane(routers, curves, f"cost per item ({group.unit})", True, narrow, budgets),
    )


def latency_plane(group: Group) -> Drawing:
    """The quality-latency plane of a group: p95, which no mixture of models takes the mean of."""
    routers = []
    for series, run, name in group.routers:
        overall, latency = run.routers[name].overall, run.routers[name].latency
        assert latency is not None
        routers.append(Point(series, latency.p95, latency.p95_interval, overall.quality, overall.quality_interval))
    points = [f"{p.series.label}: quality {p.quality:.3f}, p95 {p.taken:.3g} seconds" for p in routers]
    return Drawing(
        f"latency-{group.number}",
        f"Quality against latency, {group.runs[0].summary.title}",
        "Each router as a point with its 95% intervals.",
        points,
        lambda narrow: draw_plane(routers, [], "p95 of the whole pipeline (seconds)", False, narrow),
    )


def _curve(summary: Summary, router: str) -> list[tuple[float, float]]:
    """Cost and quality of a router over all cost weights, of an earlier run over those that it was for."""
    metrics = summary.frontier_metrics
    if metrics is not None and (curve := metrics.curves.get(router)) is not None:
        return list(zip(curve.cost, curve.quality, strict=True))
    return [(point.routers[router].cost or 0.0, point.routers[router].quality) for point in summary.frontier or []]


def tasks(group: Group) -> Drawing:
    """Quality per task of a group."""
    routers = [(series, run.routers[name].tasks) for series, run, name in group.routers]
    names = group.runs[0].summary.tasks
    rivals = [pair for pair in routers if pair[0].role != OPTIMUM] or routers
    best = []
    for task in names:
        series, figures = max(rivals, key=lambda pair: pair[1][task].quality)
        best.append(f"{task}: the best is {series.label} with {figures[task].quality:.3f}")
    return Drawing(
        f"tasks-{group.number}",
        f"Quality on each task, {group.runs[0].summary.title}",
        "One panel for each task, one dot with a 95% interval for each router.",
        best,
        lambda narrow: draw_tasks(routers, names, narrow),
    )


def flowing(run: RunFolder) -> list[str]:
    """The routers whose pipelines are drawn: those asked for, and the optimum; not those that have but one."""
    first, *others = [*run.asked[: MAX_FLOWS - 1], *(n for n in run.routers if n == "oracle")]
    several = [name for name in others if len(run.routers[name].overall.pipelines) > 1]
    return list(dict.fromkeys([first, *several]))


def flow(run: RunFolder, router: str, number: int) -> Drawing:
    """The pipelines that a router used."""
    overall = run.routers[router].overall
    shares = overall.pipelines
    position = list(run.routers).index(router) + 1
    return Drawing(
        f"pipelines-{number + 1}-{position}-{re.sub(r'[^a-z0-9]+', '-', router.lower())[:40].strip('-')}",
        f"Pipelines of {router}",
        "Each pipeline with its share of the items.",
        [f"{ARROW.join(models)}: {share:.1%} of the items" for models, share in shares.items()],
        lambda narrow: draw_flow(shares, list(overall.calls), narrow),
    )


def render(
    runs: Sequence[RunFolder],
    groups: Sequence[Group],
    drawings: Mapping[str, Drawing],
    flows: Mapping[str, Sequence[Drawing]],
) -> str:
    """The page. Everything that a model or a data set wrote is escaped."""
    environment = template_environment()
    examples: dict[str, list[Example] | None] = {run.name: choose_examples(run, run.asked[0]) for run in runs}
    return environment.get_template("report.html.jinja").render(
        runs=runs,
        groups=groups,
        drawings=drawings,
        flows=flows,
        examples=examples,
        results={run.name: main_result(run) for run in runs},
        manifests={run.name: run.manifest.model_dump_json(indent=1) for run in runs},
        colours=COLOURS,
        source=_source,
        seconds_from=_seconds_from,
        overall_grid=overall_grid,
        frontier_grid=frontier_grid,
        latency_grid=latency_grid,
        limit_grids=limit_grids,
        task_grid=task_grid,
        several=len(runs) > 1,
    )


def _seconds_from(timing: str | Mapping[str, str]) -> str:
    """How the seconds of a recording were obtained, in words."""
    if not isinstance(timing, str):
        return "; ".join(f"{model}: {_seconds_from(how)}" for model, how in timing.items())
    said = {
        "table": "as in the imported table",
        "server": "from each request to the server's whole reply",
        "single calls": "of each call, one at a time",
    }
    return said.get(timing, timing)


def _source(run: RunFolder) -> str:
    """Where the responses are from, in words."""
    source = run.manifest.source
    if source.get("live"):
        return "the models themselves, asked by this run"
    made = source.get("recorded")
    date = str(made.get("date") or "")[:10] if isinstance(made, dict) else ""
    said = f"the recording {source.get('recording', 'without a name')}" + (f", made on {date}" if date else "")
    return f"{said}. {CASCADES}" if source.get("independent_answers") else said
