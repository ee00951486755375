"""The figures of a run: `Summary`, which tables, exports, report, wandb, check and API read, and `summarise`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PlainSerializer

from harness.evaluation.evaluate import Outcome
from harness.evaluation.frontier_metrics import FrontierMetrics
from harness.evaluation.latency import Waits, quantile, tail_hops
from harness.evaluation.limits import Budget, NoWorseThan
from harness.evaluation.metrics import (
    Bootstrap,
    Estimate,
    TaskBootstrap,
    collapsed_to,
    gap_closed,
    regret,
    relative,
    seed_spread,
    value,
)
from pools.mdp.tree import Tree
from pools.schema import Schema
from pools.types import Item

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]
# Rounding may leave a mean of expectations just outside.
Score = Annotated[float, Field(ge=-1e-9, le=1 + 1e-9)]
Share = Annotated[float, Field(ge=0, le=1 + 1e-9)]
Cost = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
ARROW = " > "
BARS = ("single", "best-pipeline", "best-pipeline-per-task", "best-pipeline-per-kind", "query-only")
"""Baselines that read no answer, by what their names begin with: what a router that reads answers has to beat."""


def _pipeline(given: Any) -> Any:
    return tuple(given.split(ARROW)) if isinstance(given, str) else given


Pipeline = Annotated[tuple[str, ...], BeforeValidator(_pipeline), PlainSerializer(ARROW.join)]
"""The models of a pipeline, in order; `a > b` in files."""


class QualityCost(Schema):
    """Quality and cost over a selection of items.

    Intervals are 95%, percentile bootstrap over items (2,000 resamples, the same for every router).
    """

    quality: Score
    """Mean task score, in [0, 1]."""
    quality_interval: tuple[Score, Score]
    """Of `quality`."""
    cost: Cost | None
    """Mean cost per item, in `cost_unit`; null if no costs were recorded."""
    cost_interval: tuple[Cost, Cost] | None
    """Of `cost`."""


class Figures(QualityCost):
    """What was attained, and against the single model with the best value and the best bar."""

    quality_ratio: float | None
    """`quality` / that of the best single model: the paper's improvement; in `macro` of the means over tasks."""
    cost_ratio: float | None
    """`cost` / that of the best single model: the paper's added cost."""
    quality_ahead: float | None
    """`quality` minus that of the best single model, paired over items."""
    quality_ahead_interval: Interval | None
    """Of `quality_ahead`."""
    quality_ahead_of_bar: float | None = None
    """`quality` minus that of the best bar, paired over items."""
    quality_ahead_of_bar_interval: Interval | None = None
    """Of `quality_ahead_of_bar`; what a mark at a figure is of."""


class TaskFigures(Figures):
    """Figures over the items of a task. With few items an interval is rough; if all have one score it is a point."""

    items: int
    """How many items."""


class MacroFigures(Figures):
    """Mean over tasks, each counts the same. For intervals the items of each task are drawn among themselves."""

    tasks: int
    """How many tasks."""


class ValueFigures(Schema):
    """Hops, and value against the optimum's, the best single model's and the best bar's, over all items."""

    hops: Annotated[float, Field(ge=0)]
    """Mean number of models called."""
    value: float
    """`quality - cost_weight * cost`; with a latency weight, minus `latency_weight` times the mean seconds, too."""
    regret: float | None
    """The optimum's value minus this one's."""
    regret_interval: Interval | None
    """Of `regret`, paired over items."""
    gap_closed: float | None
    """(value - best single's) / (optimum's - best single's); null if that gap is under 0.005."""
    value_ahead: float | None
    """`value` minus the best single model's."""
    value_ahead_interval: Interval | None
    """Of `value_ahead`, paired over items."""
    gap_closed_from_bar: float | None = None
    """(value - best bar's) / (optimum's - best bar's); null if that gap is under 0.005."""
    value_ahead_of_bar: float | None = None
    """`value` minus the best bar's."""
    value_ahead_of_bar_interval: Interval | None = None
    """Of `value_ahead_of_bar`, paired over items; what a mark at a name is of."""


class OverallFigures(ValueFigures, TaskFigures):
    """Figures over all items."""

    routing_cost: Cost
    """Cost of the router's own encoder, per item; not part of `cost`."""
    routing_cost_unit: str
    """Unit of `routing_cost`."""
    calls: dict[str, float]
    """Mean calls per item of each model."""
    pipelines: dict[Pipeline, Share]
    """The final pipelines, written `a > b`, and the expected share of the items that each of them answers."""
    collapsed_to: str | None
    """The model that gets at least 99% of the calls, or null."""
    bound: bool
    """True for the exact optimum, which is no router."""
    exact: bool
    """Whether expectations were computed, not sampled."""
    notes: list[str]
    """What a reader must know: what was trained where, and at which cost weight; at which cost weights its value on
    validation items is below the best single model's (of train items alone a part is held out; not said of routers that
    are fitted on these items, too)."""


class LatencyFigures(Schema):
    """Seconds from the query to the last response: those of all calls of the pipeline, one after another.

    Over items and over what the router draws. A quantile is the least number of seconds that this share of the episodes
    does not exceed (definition 1 of Hyndman and Fan, 1996). A vote's calls are made at the same time: the longest
    counts. Intervals are 95%, percentile bootstrap over items, as those of quality.
    """

    seconds: Seconds
    """Mean."""
    seconds_interval: tuple[Seconds, Seconds]
    """Of `seconds`."""
    p50: Seconds
    """Median."""
    p95: Seconds
    """Quantile of 95%."""
    p95_interval: tuple[Seconds, Seconds]
    """Of `p95`."""
    p99: Seconds
    """Quantile of 99%."""
    tail_hops: Annotated[float, Field(ge=0)]
    """Mean number of models called in the episodes that take as long as `p95`, or longer."""
    own_seconds: Seconds | None = None
    """The router's own decisions for an episode, not part of the others: the median of up to 32 items, one at a time.
    Measured by the clock of the machine that ran it, so it differs from run to run, and nothing compares it. Null for
    bounds."""


class PointFigures(ValueFigures, QualityCost):
    """One router at one of several cost weights, or one of its trainings, over all items; a part of `overall`."""


class Spread(Schema):
    """How far the trainings of a router lie apart in one figure.

    For `K` trainings with mean m and standard deviation s of their means over items. Of few trainings the quantile
    t(K - 1) is high: 4.3 of three, 2.8 of five.
    """

    deviation: Annotated[float, Field(ge=0)]
    """s."""
    interval: Interval
    """Over trainings, 95%, the items as they are: m +- t(K - 1) s / sqrt(K) (Student, 1908)."""
    both_interval: Interval
    """Over items and trainings, 95%: m +- t(f) sqrt(v + s^2 / K), with v the variance of the mean over items and f the
    degrees of freedom of Satterthwaite (1946). Items and trainings are crossed, so their variances add up (Owen, The
    pigeonhole bootstrap, 2007)."""


class SeedFigures(Schema):
    """A router that was trained with several seeds.

    Its other figures are means over the trainings, and their intervals are over items, the trainings as they are. Here
    is how far the trainings lie apart.
    """

    trainings: Annotated[dict[str, PointFigures], Field(min_length=2)]
    """By seed; intervals are over items."""
    quality: Spread
    """Of `quality`."""
    cost: Spread | None
    """Of `cost`; null if no costs were recorded."""
    value: Spread
    """Of `value`."""
    value_ahead_of_bar: Spread | None
    """Of `value_ahead_of_bar`; a mark at the router's name is of its interval over both. Null without a bar."""


class RouterSummary(Schema):
    """One router: over all items, the mean over tasks, and each task."""

    overall: OverallFigures
    """Over all items."""
    macro: MacroFigures
    """Mean over tasks."""
    tasks: dict[str, TaskFigures]
    """By task."""
    new_wording: TaskFigures | None = None
    """Over the items that are worded as no train item is; null without any."""
    latency: LatencyFigures | None = None
    """How long users wait, over all items; null if the recording's seconds are no latency."""
    seeds: SeedFigures | None = None
    """With several seeds, of a router that was trained with each: how far the trainings lie apart."""


class FrontierPoint(Schema):
    """Every router at one of several cost weights."""

    cost_weight: float
    """The lambda of the reward."""
    routers: dict[str, PointFigures]
    """By router."""
    best_bar: str | None = None
    """The best bar at this cost weight."""


class Summary(Schema):
    """What routers attained in a run. `summary.json` is this; fields are added to it, never renamed or removed."""

    title: str = ""
    """Pool, suite, its tasks if only some were asked for, and how many items of which split."""
    split: str = "all"
    """Which items were evaluated on: train, validation, test or all."""
    cost_model: str
    """Name of the cost model."""
    cost_unit: str
    """Unit of every cost; empty if none was recorded."""
    cost_weight: Annotated[float, Field(ge=0)]
    """The lambda of the reward, in quality per unit of cost; of several the first."""
    latency_weight: Annotated[float, Field(ge=0)] = 0.0
    """What the reward charges for a second, in quality."""
    items: Annotated[int, Field(ge=1)]
    """How many items."""
    routers: Annotated[dict[str, RouterSummary], Field(min_length=1)]
    """By router, in the order of the table; all have the same tasks."""
    best_bar: str | None = None
    """The bar with the best value on these items; null without one. Bars are the baselines of the run that read no
    answer: single models, the best pipelines, `query-only`. The best of them on the very items that are evaluated is
    taken, not on validation items: chance may favour it, never the router that is compared to it."""
    frontier: list[FrontierPoint] | None = None
    """With several cost weights: every router at each of them."""
    frontier_metrics: FrontierMetrics | None = None
    """With several cost weights, or `--frontier`: what the routers come to over all cost weights."""
    budget: Budget | None = None
    """With `--budget` or `--cap`: the routers within it."""
    no_worse_than: NoWorseThan | None = None
    """With `--no-worse-than`: the routers at a quality that is kept."""

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order of the table."""
        return list(next(iter(self.routers.values())).tasks)

    @property
    def value_formula(self) -> str:
        """Value, as a reader is told: `quality - 2 x cost - 0.1 x seconds`, without what is not charged for."""
        charged = [(self.cost_weight if self.cost_unit else 0.0, "cost"), (self.latency_weight, "seconds")]
        return " - ".join(["quality", *(f"{weight:g} x {what}" for weight, what in charged if weight)])

    @property
    def best_single(self) -> str | None:
        """The single model with the best value, which ratios and gap are measured against; None without one."""
        singles = [name for name in self.routers if name.startswith("single:")]
        return max(singles, key=lambda name: self.routers[name].overall.value, default=None)


def summarise(
    outcomes: Mapping[str, Outcome],
    best_single: Outcome | None,
    optimum_name: str,
    tree: Tree,
    cost_weight: float,
    seed: int,
    notes: Mapping[str, Sequence[str]],
    routing_cost_unit: str,
    new_wording: NDArray[np.bool_] | None = None,
    latency_weight: float = 0.0,
    own_seconds: Mapping[str, float] = {},
    trainings: Mapping[str, Mapping[int, Outcome]] = {},
) -> Summary:
    """Quality, cost, regret and gap closed of every router: per task, their mean over tasks (`macro`) and overall.

    best_single: of the single model with the best value, what the ratios and the gap are measured against. Marks are
    against the best bar, and from it the gap is measured, too.
    If the tree's cost model has no unit, no cost was recorded and none is given.
    optimum_name: which outcome is the exact optimum. Without one of them, what needs it is None.
    notes: what a reader of a router's row must know. routing_cost_unit: of what the routers' own models cost.
    new_wording: `[I]` which items are worded as no train item is. own_seconds: of routers whose decisions were timed.
    trainings: of routers that were trained with several seeds, by seed; their outcome is the mean.
    """
    optimum, costs = outcomes.get(optimum_name), bool(tree.cost_model.unit)
    weights = cost_weight, latency_weight
    bar_name = best_bar(outcomes, *weights)
    bar = None if bar_name is None else outcomes[bar_name]
    bootstrap = Bootstrap.draw(len(tree.items), seed)
    task_of = np.array([item.task for item in tree.items])
    of_task = {task: task_of == task for task in dict.fromkeys(task_of.tolist())}
    over_tasks = TaskBootstrap.draw(task_of, seed)
    routers: dict[str, RouterSummary] = {}

    def in_value(outcome: Outcome) -> dict[str, Any]:
        """The fields of `ValueFigures`."""
        lost = None if optimum is None else bootstrap.mean(regret(outcome, optimum, *weights))
        ahead, ahead_of_bar = (
            None if other is None else bootstrap.mean(value(outcome, *weights) - value(other, *weights))
            for other in (best_single, bar)
        )
        closed, closed_from_bar = (
            None if optimum is None or other is None else gap_closed(outcome, other, optimum, *weights)
            for other in (best_single, bar)
        )
        return {
            "hops": float(outcome.hops.mean()),
            "value": float(value(outcome, *weights).mean()),
            **_estimate("regret", lost),
            "gap_closed": closed,
            **_estimate("value_ahead", ahead),
            "gap_closed_from_bar": closed_from_bar,
            **_estimate("value_ahead_of_bar", ahead_of_bar),
        }

    def over_seeds(of: Mapping[int, Outcome]) -> SeedFigures:
        quality, cost, values = (
            np.stack([read(outcome) for outcome in of.values()])
            for read in (lambda o: o.quality, lambda o: o.cost, lambda o: value(o, *weights))
        )
        each = {
            str(seed): PointFigures(
                **_estimate("quality", bootstrap.mean(outcome.quality)),
                **_estimate("cost", bootstrap.mean(outcome.cost) if costs else None),
                **in_value(outcome),
            )
            for seed, outcome in of.items()
        }
        return SeedFigures(
            trainings=each,
            quality=_spread(quality),
            cost=_spread(cost) if costs else None,
            value=_spread(values),
            value_ahead_of_bar=None if bar is None else _spread(values - value(bar, *weights)),
        )

    for name, outcome in outcomes.items():
        overall = OverallFigures(
            **_figures(outcome, best_single, bar, bootstrap.mean, costs),
            items=len(tree.items),
            **in_value(outcome),
            routing_cost=float(outcome.routing_cost.mean()),
            routing_cost_unit=routing_cost_unit,
            calls=dict(zip(tree.models, outcome.calls.mean(axis=0).tolist(), strict=True)),
            pipelines=_pipelines(outcome, tree),
            collapsed_to=None if name.startswith("single:") else collapsed_to(outcome, tree.models),
            bound=name.partition(":")[0] == optimum_name,
            exact=outcome.exact,
            notes=list(notes.get(name, ())),
        )

        def of_items(chosen: NDArray[np.bool_], outcome: Outcome = outcome) -> TaskFigures:
            mean = partial(bootstrap.mean, chosen=chosen)
            return TaskFigures(**_figures(outcome, best_single, bar, mean, costs), items=int(chosen.sum()))

        tasks = {task: of_items(chosen) for task, chosen in of_task.items()}
        new = of_items(new_wording) if new_wording is not None and new_wording.any() else None
        macro = MacroFigures(**_figures(outcome, best_single, bar, over_tasks.mean, costs), tasks=len(tasks))
        waits = outcome.waits
        latency = None if waits is None else latency_figures(waits, bootstrap, own_seconds.get(name))
        seeds = over_seeds(trainings[name]) if name in trainings else None
        routers[name] = RouterSummary(
            overall=overall, macro=macro, tasks=tasks, new_wording=new, latency=latency, seeds=seeds
        )
    return Summary(
        cost_model=tree.cost_model.name,
        cost_unit=tree.cost_model.unit,
        cost_weight=cost_weight,
        latency_weight=latency_weight,
        items=len(tree.items),
        routers=routers,
        best_bar=bar_name,
    )


def newly_worded(items: Sequence[Item], train: Sequence[Item]) -> NDArray[np.bool_]:
    """`[I]` which items are worded as no train item is; not those whose task says no wording."""
    known = {(item.task, item.wording) for item in train}
    return np.array([bool(item.wording) and (item.task, item.wording) not in known for item in items])


def latency_figures(waits: Waits, bootstrap: Bootstrap, own_seconds: float | None) -> LatencyFigures:
    """How long users wait, and what the router itself took if that was measured."""
    seconds = bootstrap.mean(waits.mean)
    p50, p95, p99 = (float(quantile(waits, p)[0]) for p in (0.5, 0.95, 0.99))
    low, high = np.percentile(quantile(waits, 0.95, bootstrap.weights), [2.5, 97.5]).tolist()
    return LatencyFigures(
        **_estimate("seconds", seconds),
        p50=p50,
        p95=p95,
        p95_interval=(low, high),
        p99=p99,
        tail_hops=tail_hops(waits, 0.95),
        own_seconds=own_seconds,
    )


def best_bar(outcomes: Mapping[str, Outcome], cost_weight: float, latency_weight: float = 0.0) -> str | None:
    """The bar with the best mean value, of equals the first; None without one."""
    bars = [name for name in outcomes if name.partition(":")[0] in BARS]
    return max(bars, key=lambda name: value(outcomes[name], cost_weight, latency_weight).mean(), default=None)


def frontier_point(summary: Summary) -> FrontierPoint:
    """The overall figures of every router, at the cost weight of a summary."""
    routers = {
        name: PointFigures(**{key: getattr(router.overall, key) for key in PointFigures.model_fields})
        for name, router in summary.routers.items()
    }
    return FrontierPoint(cost_weight=summary.cost_weight, routers=routers, best_bar=summary.best_bar)


def pipeline_models(tree: Tree, node: int) -> Pipeline:
    """The names of a pipeline's models, in order."""
    return tuple(tree.models[action] for action in tree.pipeline(node))


def _pipelines(outcome: Outcome, tree: Tree) -> dict[Pipeline, float]:
    """Expected share of the items that each pipeline answers, the largest first; without those that answer none."""
    share = outcome.end.mean(axis=0)
    order = np.argsort(-share, kind="stable")
    return {pipeline_models(tree, int(node)): float(share[node]) for node in order if share[node] > 0}


def _figures(
    outcome: Outcome,
    best_single: Outcome | None,
    bar: Outcome | None,
    mean: Callable[[FloatArray], Estimate],
    costs: bool,
) -> dict[str, Any]:
    """The fields of `Figures` over a selection of items, `mean` being over it."""
    quality, cost = mean(outcome.quality), mean(outcome.cost)
    quality_ratio = cost_ratio = ahead = None
    if best_single is not None:
        quality_ratio = relative(quality.mean, mean(best_single.quality).mean)
        cost_ratio = relative(cost.mean, mean(best_single.cost).mean)
        ahead = mean(outcome.quality - best_single.quality)
    return {
        **_estimate("quality", quality),
        **_estimate("cost", cost if costs else None),
        "quality_ratio": quality_ratio,
        "cost_ratio": cost_ratio,
        **_estimate("quality_ahead", ahead),
        **_estimate("quality_ahead_of_bar", None if bar is None else mean(outcome.quality - bar.quality)),
    }


def _spread(values: FloatArray) -> Spread:
    """The spread of trainings with values `[K, I]`."""
    found = seed_spread(values)
    return Spread(deviation=found.deviation, interval=(found.low, found.high), both_interval=found.both)


def _estimate(name: str, found: Estimate | None) -> dict[str, Any]:
    """The two fields of an estimate, its mean and its interval."""
    mean, interval = (None, None) if found is None else (found.mean, (found.low, found.high))
    return {name: mean, f"{name}_interval": interval}
