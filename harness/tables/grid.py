"""The tables of a summary as text: over all items, by task, by cost weight; a row per router, a cell of lines.

The one by task is the main table of HierRouter's paper. `terminal.py` prints them, `export.py` writes them as Markdown,
LaTeX and CSV; what is best and which difference is significant is decided here, once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.evaluation.frontier_metrics import KEPT, AgainstTwoModels, AgainstZeroRouter, FrontierMetrics, Parity
from harness.evaluation.limits import Attained, Budget, Limited, NoWorseThan, Setting
from harness.evaluation.metrics import Estimate, told_apart, verdict
from harness.evaluation.off_policy import RouterEstimate, TrafficSummary
from harness.evaluation.paired import Change, Comparison
from harness.evaluation.standings import Standing
from harness.evaluation.summary import (
    OverallFigures,
    QualityCost,
    RouterSummary,
    Spread,
    Summary,
    TaskFigures,
)

MEAN, ALL, RATIOS, NEW_WORDING = "mean", "all", "x best single", "test: new wording"
MARKS = {"better": "+", "worse": "-"}


@dataclass(frozen=True)
class Cell:
    """One router in one column.

    lines: the figure, and what is written smaller below it. mark: `+` or `-` where the figure is significantly above or
    below what it is compared to, else empty. best: whether no router has a better one in the column, to the digits
    shown; bounds are no routers. ratio: of the figure to the best single model's.
    """

    lines: tuple[str, ...] = ("",)
    mark: str = ""
    best: bool = False
    ratio: str = ""

    @property
    def text(self) -> tuple[str, ...]:
        """Its lines, the ratio behind the figure."""
        return (f"{self.lines[0]} ({self.ratio})" if self.ratio else self.lines[0], *self.lines[1:])


@dataclass(frozen=True)
class Row:
    """One router. mark: as a cell's, but of the router. notes: below its name. rule: whether a line is drawn above."""

    name: str
    cells: tuple[Cell, ...]
    mark: str = ""
    notes: tuple[str, ...] = ()
    rule: bool = False


@dataclass(frozen=True)
class Grid:
    """A table. caption: its clauses, which say what is shown and stand above it."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: tuple[str, ...]


def grids(summary: Summary) -> list[Grid]:
    """All tables of a summary."""
    more = seeds_grid(summary), latency_grid(summary), frontier_grid(summary), *limit_grids(summary)
    return [overall_grid(summary), task_grid(summary), *(grid for grid in more if grid is not None)]


def overall_grid(summary: Summary) -> Grid:
    """Every router over all items; it fits a terminal of 80 columns."""
    rows = []
    for name, entry in summary.routers.items():
        o = entry.overall
        cost, form = Cell(("-",)), ""
        if o.cost is not None and o.cost_interval is not None:
            form = _cost_form([o.cost_interval[1]])
            cost = _estimate(o.cost, o.cost_interval, o.cost_ratio, form)
        quality = _estimate(o.quality, o.quality_interval, o.quality_ratio, ".3f")
        if entry.seeds is not None:
            quality = _with_spread(quality, entry.seeds.quality, ".3f")
            cost = cost if entry.seeds.cost is None else _with_spread(cost, entry.seeds.cost, form)
        cells = (
            quality,
            cost,
            *(Cell((line,)) for line in (f"{o.hops:.2f}", _known(o.regret, ".3f"))),
            Cell(_gaps(o, summary.best_bar not in (None, summary.best_single))),
        )
        rows.append(Row(name, cells, _name_mark(entry), tuple(row_notes(o))))
    headers = ("quality", "cost", "hops", "regret", "gap closed")
    return Grid(summary.title, headers, tuple(rows), _overall_caption(summary))


def task_grid(summary: Summary) -> Grid:
    """Every router on every task, with the mean over tasks and the ratios of it, and on items worded in a new way."""
    routers = summary.routers
    figures = {name: [*columns_of(entry).values(), entry.macro] for name, entry in routers.items()}
    columns = columns_of(next(iter(routers.values())))
    bounds = {name for name, entry in routers.items() if entry.overall.bound}
    form = _cost_form((f.cost for of_router in figures.values() for f in of_router), digits=3)
    contenders = [[_lines(f, form)[0] for f in of_router] for name, of_router in figures.items() if name not in bounds]
    # Where all are alike none is best.
    best = [max(c) if len(set(c)) > 1 else None for c in zip(*contenders, strict=True)] or [None] * (len(columns) + 1)
    rows: list[Row] = []
    for name, of_router in figures.items():
        cells = []
        for f, top in zip(of_router, best, strict=True):
            lines = _lines(f, form)
            mark = _mark(f.quality_ahead_of_bar_interval)
            cells.append(Cell(lines, mark, best=name not in bounds and lines[0] == top))
        ratios = of_router[-1].quality_ratio, of_router[-1].cost_ratio
        cells.append(Cell(tuple(_times(ratio) for ratio in ratios if ratio is not None) or ("",)))
        mark = _name_mark(routers[name])
        rows.append(Row(name, tuple(cells), mark, rule=name in bounds and not any(r.rule for r in rows)))
    counts = [Cell((str(f.items),)) for f in columns.values()]
    rows.append(Row("items", (*counts, Cell(), Cell()), rule=True))
    compared = any(f.quality_ratio is not None for f in columns.values())
    return Grid("by task", (*columns, MEAN, RATIOS), tuple(rows), _caption(summary, compared))


def seeds_grid(summary: Summary) -> Grid | None:
    """Each training of every router that was trained with several seeds, and how far they lie apart; None without."""
    several = {name: entry.seeds for name, entry in summary.routers.items() if entry.seeds is not None}
    if not several:
        return None
    costs = bool(summary.cost_unit)
    rows: list[Row] = []

    def ahead(mean: float | None, interval: Sequence[float] | None, marked: Sequence[float] | None) -> Cell:
        if mean is None or interval is None:
            return Cell(("-",))
        return Cell((f"{mean:+.3f}", f"{interval[0]:+.3f}..{interval[1]:+.3f}"), _mark(marked))

    for name, of in several.items():
        for seed, each in of.trainings.items():
            cells = [_estimate(each.quality, each.quality_interval, None, ".3f")]
            if each.cost is not None and each.cost_interval is not None:
                cells.append(_estimate(each.cost, each.cost_interval, None, _cost_form([each.cost_interval[1]])))
            interval = each.value_ahead_of_bar_interval
            cells.append(ahead(each.value_ahead_of_bar, interval, interval))
            rows.append(Row(f"{name}, seed {seed}", tuple(cells), rule=bool(rows) and seed == next(iter(of.trainings))))
        overall = summary.routers[name].overall
        cells = [_estimate(overall.quality, of.quality.both_interval, None, ".3f")]
        if of.cost is not None and overall.cost is not None:
            form = _cost_form([of.cost.both_interval[1]])
            cells.append(_estimate(overall.cost, of.cost.both_interval, None, form))
        both = None if of.value_ahead_of_bar is None else of.value_ahead_of_bar.both_interval
        cells.append(ahead(overall.value_ahead_of_bar, both, both))
        rows.append(Row(f"{name}, mean", tuple(cells)))
    caption = (
        "of a training its 95% interval over items, of the mean over trainings that over items and trainings",
        *([f"cost per item in {summary.cost_unit}"] if costs else []),
        f"ahead: in value of {summary.best_bar}, the best bar; + or -: the interval excludes 0",
    )
    return Grid("by training", ("quality", *(["cost"] if costs else []), "ahead"), tuple(rows), caption)


def latency_grid(summary: Summary) -> Grid | None:
    """How long the users of every router wait; None if the recording has no latency."""
    rows: list[Row] = []
    for name, entry in summary.routers.items():
        if (found := entry.latency) is None:
            return None
        cells = (
            _estimate(found.seconds, found.seconds_interval, None, ".3g"),
            Cell((f"{found.p50:.3g}",)),
            _estimate(found.p95, found.p95_interval, None, ".3g"),
            Cell((f"{found.p99:.3g}",)),
            Cell((f"{found.tail_hops:.2f}",)),
            Cell(("-" if found.own_seconds is None else f"{1000 * found.own_seconds:.2g} ms",)),
        )
        rows.append(Row(name, cells, rule=entry.overall.bound and not any(row.rule for row in rows)))
    caption = (
        "seconds of all calls of a pipeline, one after another; of a vote the longest call's",
        "below the mean and p95 their 95% intervals over items",
        "tail hops: mean number of calls of the episodes that take p95 or longer",
        "own: the router's decisions for an episode, not part of the others, by the clock of the machine that ran it",
    )
    return Grid("latency", ("mean", "p50", "p95", "p99", "tail hops", "own"), tuple(rows), caption)


def columns_of(router: RouterSummary) -> dict[str, TaskFigures]:
    """A router's figures by task, and those over the items worded in a new way, if there are any."""
    return router.tasks | ({} if router.new_wording is None else {NEW_WORDING: router.new_wording})


def frontier_grid(summary: Summary) -> Grid | None:
    """Every router over all cost weights: its AIQ and cost at parity and, of two models, APGR and CPT.

    With several cost weights also what it attains at each. None if nothing of it is known.
    """
    points, metrics = summary.frontier or [], summary.frontier_metrics
    if metrics is None:
        return None
    zero, two = metrics.zero_router, metrics.two_models
    at_parity = bool(zero is not None and metrics.parity)
    headers = [f"{point.cost_weight:g}" for point in points]
    headers += ["AIQ"] if zero is not None else []
    headers += [f"cost at {keep:.0%}" for keep in KEPT.values()] if at_parity else []
    if two is not None and not two.undefined:
        headers += ["APGR", "CPT 50%", "CPT 80%"]
    if not headers:
        return None
    form = _cost_form((figures.cost for point in points for figures in point.routers.values()), digits=3)
    rows: list[Row] = []
    for name, entry in summary.routers.items():
        at_weights = [point.routers[name] for point in points]
        cells = [Cell((*_lines(f, form), _known(f.gap_closed, "z.0%"))) for f in at_weights]
        cells += [_aiq(metrics.routers[name])] if zero is not None else []
        cells += _parity(metrics.parity.get(name)) if at_parity else []
        cells += _of_two(two.routers[name]) if two is not None and not two.undefined else []
        rule = entry.overall.bound and not any(row.rule for row in rows)
        rows.append(Row(name, tuple(cells), rule=rule, notes=_frontier_notes(metrics, name)))
    if zero is not None:
        cells = [Cell()] * len(points) + [Cell((f"{zero.aiq:.3f}",))]
        cells += _parity(zero.parity) if at_parity else []
        cells += [Cell()] * (len(headers) - len(cells))
        rows.append(Row("zero router", tuple(cells), notes=("hull of the single models",), rule=True))
    title = "by cost weight" if points else "over all cost weights"
    caption = _frontier_caption(summary.cost_unit, metrics, bool(points))
    return Grid(title, tuple(headers), tuple(rows), caption)


def _frontier_notes(metrics: FrontierMetrics, name: str) -> tuple[str, ...]:
    """What stands below a router's name in the table of the frontier."""
    curve = metrics.curves.get(name)
    return ("curve not swept to its end",) if metrics.zero_router and curve is not None and not curve.found else ()


def limit_grids(summary: Summary) -> list[Grid]:
    """The routers within a budget and a cap, and at a quality that is kept; each if it was asked for."""
    unit, within, at_risk = summary.cost_unit, summary.budget, summary.no_worse_than
    found = [] if within is None else [_budget_grid(within, unit)]
    return found if at_risk is None else [*found, _no_worse_grid(at_risk, unit)]


def _budget_grid(within: Budget, unit: str) -> Grid:
    every: dict[str, Limited] = {**within.routers, "zero router": within.zero_router}
    of_cost, rows = within.resource == "cost", []

    def attained(figures: Attained) -> list[Cell]:
        """Quality, the cost if there are costs, and the seconds if they are limited."""
        quality, cost = _attained(figures)
        cells = [quality, *([cost] if unit else [])]
        if figures.seconds is None or figures.seconds_interval is None:
            return cells
        return [*cells, _estimate(figures.seconds, figures.seconds_interval, None, ".3g")]

    for name, figures in every.items():
        notes = (
            figures.notes if figures.meets_on_validation else [*figures.notes, "over the budget on validation items"]
        )
        cells = [*attained(figures), *([] if within.budget is None else [_met(figures, within.budget)])]
        cells += [] if figures.over_cap is None else [Cell((f"{figures.over_cap:.1%}",))]
        behind = Cell((f"{figures.behind:.3f}", _interval(figures.behind_interval)))
        cells += [behind, Cell(tuple(_set_to(each) for each in figures.set_to))]
        mark = _mark(figures.ahead_of_zero_interval if figures.meets_on_validation else None)
        rows.append(Row(name, tuple(cells), mark, tuple(notes), rule=name == "zero router"))
    best = within.optimum
    cells = [*attained(best), *([] if within.budget is None else [Cell(("yes",))])]
    cells += [] if within.cap is None else [Cell(("0.0%",))]
    cells += [Cell(("0.000",)), Cell((f"price {best.price:.3g}",) if within.budget is not None else ("",))]
    more = "costs more" if of_cost else "takes longer"
    unanswered = [f"{best.unanswered:.1%} not answered: every call {more}"] if best.unanswered else []
    rows.append(Row("optimum", tuple(cells), notes=("a bound", *unanswered), rule=True))
    parts = [f"cost per item in {unit}"] if unit else []
    parts += [] if of_cost else ["mean seconds per item"]
    counted = capped = ""
    if within.cap is not None:
        counted = ", in which an item over the cap counts as 0"
        capped = " (one whose call does not fit gives way to the best that does)"
    said = [
        ", ".join(["the best quality within it", *parts]),
        f"set on {within.validation_items} validation items, judged on these",
        "set to: cost weights, or models, and their shares of the items, mixed at random",
        f"behind: quality of the exact optimum within the same limits minus the router's{counted}, below it the 95% "
        "interval",
        f"+ or -: better or worse in quality than the zero router, the single models{capped} mixed within the same "
        "limits (paired 95%); not said of those over the budget on validation items",
    ]
    if within.budget is not None:
        what = "cost is" if of_cost else "mean of the seconds is"
        said.append(f"met: whether the {what} within the budget; *: its 95% interval is all on that side")
    if within.cap is not None:
        said.append("over cap: share of items that spend more; a call that could exceed the cap is not made")
    spent = [*(["cost"] if unit else []), *([] if of_cost else ["seconds"])]
    met = ["met"] if within.budget is not None else []
    over = ["over cap"] if within.cap is not None else []
    return Grid(within.title, ("quality", *spent, *met, *over, "behind", "set to"), tuple(rows), tuple(said))


def _no_worse_grid(at_risk: NoWorseThan, unit: str) -> Grid:
    rows = []
    for name, tested in at_risk.routers.items():
        figures = tested.kept
        if figures is None:
            rows.append(Row(name, (Cell(("-",)),) * 5, notes=(*tested.notes, "no point passes")))
            continue
        quality, cost = _attained(figures)
        low, high = figures.ahead_interval
        cells = (
            quality,
            Cell(cost.lines, ratio=_times(figures.cost_ratio)),
            Cell((f"{figures.ahead:+.3f}", f"{low:+.3f}..{high:+.3f}"), _mark(figures.ahead_interval)),
            Cell(("yes" if figures.held else "no",)),
            Cell((_set_to(figures.set_to),)),
        )
        rows.append(Row(name, cells, notes=tuple(tested.notes)))
    said = [
        f"the cheapest cost weight whose quality is, with {at_risk.confidence:.4g} confidence on "
        f"{at_risk.validation_items} validation items, not below that of {at_risk.model} by more than "
        f"{at_risk.margin:g}; judged on these",
        f"cost per item in {unit}; (x): how many times that of {at_risk.model}",
        f"ahead: quality minus that of {at_risk.model}, with its 95% interval (paired); +, -: it excludes 0",
        f"held: whether that is at least -{at_risk.margin:g}",
        f"no point passes: use {at_risk.model}",
        "the confidence is of one router that was named before, not of the best of these rows",
    ]
    if at_risk.least_margin is not None and at_risk.least_margin > at_risk.margin:
        said.append(
            f"with so few validation items a router that equals {at_risk.model} on each passes at a margin of "
            f"{at_risk.least_margin:g} at the least"
        )
    headers = ("quality", "cost", "ahead", "held", "set to")
    return Grid(at_risk.title, headers, tuple(rows), tuple(said))


def _attained(figures: Attained) -> list[Cell]:
    form = _cost_form([figures.cost_interval[1]])
    quality = _estimate(figures.quality, figures.quality_interval, None, ".3f")
    return [quality, _estimate(figures.cost, figures.cost_interval, None, form)]


def _met(figures: Limited, budget: float) -> Cell:
    low, high = figures.seconds_interval or figures.cost_interval
    return Cell(("yes" if figures.met else "no",), "*" if high <= budget or low > budget else "")


def _set_to(setting: Setting) -> str:
    what = setting.model or ("as it is" if setting.cost_weight is None else f"{setting.cost_weight:.3g}")
    return what if setting.share == 1 else f"{setting.share:.0%} {what}"


def _interval(interval: tuple[float, float]) -> str:
    return "..".join(f"{end:.3f}" for end in interval)


def difference_grid(title: str, comparisons: Sequence[Comparison], unit: str, caption: str = "") -> Grid:
    """One row per comparison, tasks below their router; unit: of the costs, empty if none are compared."""
    rows, timed = [], any(c.latency is not None for c in comparisons)
    for c in comparisons:
        name = c.router if c.task is None else f"  {c.task}"
        cost = _change(c.cost, ".3g") if c.cost else [Cell(("-",))] * 2
        latency = _change(c.latency, ".3g") if c.latency else [Cell(("-",))] * 2
        cells = [*_change(c.quality, ".3f"), *(cost if unit else ()), *(latency if timed else ())]
        rows.append(Row(f"{name} ({c.items})", tuple(cells), rule=c.task is None))
    said = (
        *([f"cost per item in {unit}"] if unit else []),
        *(["p95: over items, of their expected seconds; its p exchanges the two at random"] if timed else []),
        "(items); below a figure that differs: what it was, and the difference's 95% interval, paired over items",
        "*: the interval excludes 0; many are compared, with no correction, so some are marked by chance",
        "p: two-sided sign-flip test; if items are few, trust it more than the interval",
        *([caption] if caption else []),
    )
    headers = ["quality", "difference", *(["cost", "difference"] if unit else [])]
    headers += ["p95 (s)", "difference"] if timed else []
    return Grid(title, tuple(headers), tuple(rows), said)


def _change(change: Change, form: str) -> list[Cell]:
    """What it is now and, below, was before; and the difference."""
    after = format(change.after, form)
    if change.same:
        return [Cell((after,)), Cell(("same",))]
    mark = "*" if change.risen or change.fallen else ""
    difference = f"{change.difference:+.2g}{mark} p={change.p:.1g}", f"{change.low:.2g}..{change.high:.2g}"
    return [Cell((after, format(change.before, form))), Cell(difference)]


def traffic_grids(summary: TrafficSummary) -> list[Grid]:
    """What routers would have attained on logged traffic, and the value by each way of estimating it."""
    entries = {"as logged": summary.logged, **summary.routers}
    rows = [_traffic_row(name, entry, summary) for name, entry in entries.items()]
    unit, weight = summary.cost_unit, summary.cost_weight
    caption = (
        f"{summary.calls:,} calls of {summary.requests:,} requests; doubly robust, with 95% intervals",
        *([f"cost per call in {unit}; value = quality - {weight:g} x cost"] if unit else []),
        "effective requests: how many of equal weight would tell as much",
        "+ or -: more or less value than as logged (the 95% interval of the difference excludes 0)",
    )
    headers = ("quality", *(("cost", "value") if unit else ()), "ahead of log", "effective requests")
    by_estimator = [
        Row(name, tuple(_with_interval(e, ".3f") for e in vars(entry.value).values()))
        for name, entry in summary.routers.items()
        if entry.value is not None
    ]
    ways = ("inverse propensity", "self-normalised", "doubly robust")
    where = "all items" if summary.split == "all" else f"{summary.split} items"
    return [
        Grid(f"logged traffic: {where}", headers, tuple(rows), caption),
        Grid("value by estimator", ways, tuple(by_estimator), ("if these differ by much, look at the propensities",)),
    ]


def _traffic_row(name: str, entry: RouterEstimate, summary: TrafficSummary) -> Row:
    calls = Cell((f"{entry.effective_requests:,.0f}",))
    undecided = (f"without {entry.undecided:,} calls that it did not decide on",) if entry.undecided else ()
    if entry.quality is None or entry.cost is None or entry.value is None:
        return Row(name, (*[Cell(("-",))] * (4 if summary.cost_unit else 2), calls), notes=(entry.refused, *undecided))
    cells = [_with_interval(entry.quality.doubly_robust, ".3f")]
    if summary.cost_unit:
        cost = entry.cost.doubly_robust
        cells += [
            _with_interval(cost, _cost_form([cost.high])),
            _with_interval(entry.value.doubly_robust, ".3f"),
        ]
    ahead = entry.value_ahead
    cells.append(Cell(("-",)) if ahead is None else _with_interval(ahead, "+.3f"))
    mark = "" if ahead is None else _mark((ahead.low, ahead.high))
    notes = (f"+ {entry.routing_cost:.3g} T param-tokens for its encoder",) if entry.routing_cost else ()
    return Row(name, (*cells, calls), mark, (*undecided, *notes))


def _with_interval(estimate: Estimate, form: str) -> Cell:
    return _estimate(estimate.mean, (estimate.low, estimate.high), None, form)


def standings_grid(
    title: str, ranked: Sequence[Standing], notes: Mapping[str, Sequence[str]], unit: str, cost_weight: float
) -> Grid:
    """Routers in order. notes: below their names."""
    rows: list[Row] = []
    for each in ranked:
        cells = [_with_interval(each.value, ".3f"), _with_interval(each.quality, ".3f")]
        if each.cost is not None:
            cells.append(_with_interval(each.cost, _cost_form([each.cost.high])))
        cells.append(Cell((each.groups or "a bound",)))
        first_bound = not each.groups and not any(row.rule for row in rows)
        rows.append(Row(each.router, tuple(cells), notes=tuple(notes[each.router]), rule=first_bound))
    caption = (
        f"value = quality - {cost_weight:g} x cost" if unit else "value = quality",
        *([f"cost per item in {unit}"] if unit else []),
        "below each its 95% interval over items (bootstrap)",
        "groups: routers that share a letter are not told apart in value (all pairs at once, 95%)",
    )
    return Grid(title, ("value", "quality", *(["cost"] if unit else []), "groups"), tuple(rows), caption)


def wrapped(name: str, width: int) -> list[str]:
    """A name in lines of at most `width` characters where it can be broken: after `_ - : > /` or a space."""
    lines = [""]
    for piece in re.findall(r"[^-_:>/ ]*[-_:>/ ]|[^-_:>/ ]+", name):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _lines(figures: QualityCost, form: str) -> tuple[str, ...]:
    """Quality and, where it was recorded, below it cost."""
    return (f"{figures.quality:.3f}", *([] if figures.cost is None else [format(figures.cost, form)]))


def _known(figure: float | None, form: str) -> str:
    return "-" if figure is None else format(figure, form)


def _mark(interval: Sequence[float] | None) -> str:
    return MARKS.get(verdict(interval), "")


def _name_mark(entry: RouterSummary) -> str:
    """Against the best bar, in value: over items; of several trainings over items and trainings."""
    interval: Sequence[float] | None = entry.overall.value_ahead_of_bar_interval
    if entry.seeds is not None:
        ahead = entry.seeds.value_ahead_of_bar
        interval = None if ahead is None else ahead.both_interval
    return MARKS.get(told_apart(entry.overall.value_ahead_of_bar, interval), "")


def _with_spread(cell: Cell, spread: Spread, form: str) -> Cell:
    """A cell with half of the interval over trainings below that over items."""
    half = (spread.interval[1] - spread.interval[0]) / 2
    return replace(cell, lines=(*cell.lines, f"seeds ±{half:{form}}"))


def _gaps(figures: OverallFigures, two: bool) -> tuple[str, ...]:
    """How much of the gap is closed from the best single model and, where that is another, from the best bar."""
    said, from_bar = _known(figures.gap_closed, "z.0%"), figures.gap_closed_from_bar
    if not two:
        return (said,)
    return said, "< -100%" if from_bar is not None and from_bar < -1 else _known(from_bar, "z.0%")


def _aiq(figures: AgainstZeroRouter | None) -> Cell:
    if figures is None:
        return Cell(("-",))
    low, high = figures.aiq_ahead_interval
    return Cell((f"{figures.aiq:.3f}", f"{figures.aiq_ahead:+.3f}", f"{low:+.3f}..{high:+.3f}"), _mark((low, high)))


def _parity(parity: Parity | None) -> list[Cell]:
    """The share of cost at each level; nothing is shown of a single model."""
    if parity is None:
        return [Cell(("-",))] * len(KEPT)
    return [_share(getattr(parity, key), getattr(parity, f"{key}_interval")) for key in KEPT]


def _of_two(figures: AgainstTwoModels) -> list[Cell]:
    apgr = [f"{figures.apgr:.3f}"]
    if figures.apgr_interval is not None:
        apgr.append("..".join(f"{end:.3f}" for end in figures.apgr_interval))
    thresholds = (figures.cpt_50, figures.cpt_50_interval), (figures.cpt_80, figures.cpt_80_interval)
    return [Cell(tuple(apgr)), *(_share(*each) for each in thresholds)]


def _share(share: float | None, interval: Sequence[float] | None) -> Cell:
    if share is None:
        return Cell(("unreached",))
    return Cell((f"{share:.0%}", *([] if interval is None else ["..".join(f"{end:.0%}" for end in interval)])))


def _caption(summary: Summary, compared: bool) -> tuple[str, ...]:
    unit, formula = summary.cost_unit, summary.value_formula
    below = f"quality, below it cost per item in {unit}" if unit else "quality, no costs were recorded"
    said = [below, f"{MEAN}: over tasks, each counts the same"]
    if any(router.new_wording is not None for router in summary.routers.values()):
        said.append(f"{NEW_WORDING}: the items of all tasks that are worded as no train item is")
    if compared:
        said.append(f"{RATIOS}: the {MEAN} relative to that of the single model with the best value")
    if summary.best_bar is not None:
        value = "over all items" if formula == "quality" else f"in value ({formula}, over all items)"
        said.append(
            f"+ or -: better or worse than {summary.best_bar}, the best bar, the 95% interval of the paired bootstrap "
            f"excludes 0: at a figure in quality, at a name {value}"
        )
    return tuple(said)


def _frontier_caption(unit: str, metrics: FrontierMetrics, points: bool) -> tuple[str, ...]:
    cost = f"cost per item in {unit} and " if unit else ""
    said = [f"quality, below it {cost}the gap closed at that cost weight"] if points else []
    if metrics.cost_range is not None:
        low, high = metrics.cost_range
        said += [
            "AIQ: mean height of the hull of (0, 0), the single models and a router's points at all cost weights, over "
            f"costs {low:.3g} to {high:.3g}, the cheapest to the most expensive single model's",
            "below it how far it is above the zero router's, with its 95% interval (basic bootstrap, paired items)",
            "+: that interval excludes 0",
            "-: the router's own points span too little of that range, so the AIQ would be the zero router's",
        ]
        if metrics.parity:
            said += [
                f"cost at 98%: the least share of the cost of {metrics.best_model} at which, on the same hull, 98% of "
                "its quality is kept, with its 95% interval",
                "unreached: no point of the router itself has that quality",
            ]
    two = metrics.two_models
    if two is not None and two.undefined:
        said.append(two.undefined)
    elif two is not None:
        said += [
            f"APGR: mean share of the gap in quality from {two.weak} to {two.strong} that is recovered, "
            f"over the share of items for which {two.strong} is called",
            "CPT: the least such share of items that recovers 50% or 80% of the gap; each with its 95% interval",
        ]
        if any(max(figures.other_share) > 0 for figures in two.routers.values()):
            said.append(f"what only other models answer counts as not answered by {two.strong}")
    return tuple(said)


def _overall_caption(summary: Summary) -> tuple[str, ...]:
    unit, formula, bar = summary.cost_unit, summary.value_formula, summary.best_bar
    said = ["no costs were recorded; (x): how many times that of the best single model"]
    if unit:
        said = [f"cost per item in {unit}; (x): how many times that of the best single model"]
    if unit or formula != "quality":
        said.append(f"value = {formula}; regret: the optimum's value minus the router's")
    if any(router.overall.gap_closed is not None for router in summary.routers.values()):
        said.append("gap closed: how far from the best single model to the optimum")
    if bar not in (None, summary.best_single):
        said.append(f"below it: how far from {bar} to there")
    if bar is not None:
        said.append(f"+ or -: better or worse in value than {bar}, the best bar (paired 95%)")
    if any(entry.seeds is not None for entry in summary.routers.values()):
        said.append(
            "of several trainings the mean, below it the 95% interval over items; seeds: half of that over trainings, "
            "the items as they are (t); their + or - is over both"
        )
    return tuple(said)


def _estimate(mean: float, interval: tuple[float, float], ratio: float | None, form: str) -> Cell:
    """An estimate and, below it, its interval: in the same form, so that it contains the estimate as shown, too."""
    shown, *bounds = (format(figure, form) for figure in (mean, *interval))
    return Cell((shown, f"{bounds[0]}..{bounds[1]}"), ratio=_times(ratio))


def _times(ratio: float | None) -> str:
    """How many times another figure it is: with two decimals, small ones with two digits."""
    if ratio is None:
        return ""
    return f"{ratio:.2g}x" if 0.001 <= ratio < 0.1 else f"{ratio:.1g}x" if 0 < ratio < 0.001 else f"{ratio:.2f}x"


def _cost_form(costs: Iterable[float | None], digits: int = 2) -> str:
    """How these costs are shown: with four decimals, fewer if they are large, more if they are small.

    digits: so many of the highest are seen at least.
    """
    highest = max((cost or 0 for cost in costs), default=0)
    exponent = math.floor(math.log10(highest)) if highest > 0 else 0
    decimals = max(4 - max(exponent, 0), digits - 1 - exponent, 0)
    return f".{decimals}f" if decimals <= 6 else ".1e"


def row_notes(overall: OverallFigures) -> list[str]:
    """What stands below a router's name: its notes, and what its figures show."""
    notes = list(overall.notes)
    if overall.collapsed_to:
        notes.append(f"collapsed to {overall.collapsed_to}")
    if not overall.exact:
        notes.append("sampled")
    if overall.routing_cost:
        notes.append(f"+ {overall.routing_cost:.3g} {overall.routing_cost_unit} for its encoder")
    return notes
