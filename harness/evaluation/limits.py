"""Routers set to limits: the best quality within a budget or a cap, and the least cost at a quality that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.frontier import Points
from harness.evaluation.metrics import Bootstrap, relative
from harness.evaluation.risk import passing
from pools.mdp.constrained import ROUNDING, best_mix
from pools.schema import Schema

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]
Resource = Literal["cost", "latency"]
"""What can be limited: cost in its unit, latency in seconds."""


class Attained(Schema):
    """Quality and cost on the items that are evaluated, with 95% intervals (as those of `overall`)."""

    quality: float
    """Mean task score."""
    quality_interval: Interval
    """Of `quality`."""
    cost: float
    """Mean cost per item, in `cost_unit`."""
    cost_interval: Interval
    """Of `cost`."""
    seconds: float | None
    """Mean seconds per item where seconds are limited, else null: of all calls of the pipeline, one after another; of a
    vote, whose calls need no answer of each other, of the longest."""
    seconds_interval: Interval | None
    """Of `seconds`; null with it."""


class LimitedOptimum(Attained):
    """The exact optimum within the limits: a bound, it has seen the outcomes, and meets the limits on these items."""

    price: float
    """The quality that one more unit of the budget would bring: the cost weight, or latency weight, at which this is
    the optimum; 0 if it does not spend the budget, or there is none."""
    unanswered: float
    """Share of the items of which every call spends more than the cap: they are not answered, and score 0."""


class Setting(Schema):
    """What a router is set to, for a share of the items that is drawn at random."""

    share: float = 1.0
    """The share."""
    cost_weight: float | None = None
    """The cost weight; null of a router without a frontier, which is as it is."""
    model: str | None = None
    """Of the zero router, the model that answers; else null."""


class Limited(Attained):
    """A router, set on validation items to the best quality within the limits."""

    set_to: list[Setting]
    """One setting, or two that are mixed."""
    meets_on_validation: bool
    """Whether its mean cost, or its mean seconds, on validation items are within the budget; if not, it is set to the
    one that spends least."""
    validation_quality: float
    """Mean score on validation items."""
    validation_cost: float
    """Mean cost on them."""
    validation_seconds: float | None
    """Mean seconds on them, where seconds are limited; else null."""
    met: bool | None
    """Whether `cost`, or `seconds`, is within the budget; null without one."""
    over_cap: float | None
    """Share of the items that spend more than the cap; null without one."""
    behind: float
    """Quality of the optimum minus this one's, in which an item that spends more than the cap counts as 0; of a router
    that spends more than the budget it may be below 0."""
    behind_interval: Interval
    """Of `behind`, 95%, paired over items."""
    ahead_of_zero: float | None = None
    """Quality minus the zero router's within the same limits; null of the zero router itself."""
    ahead_of_zero_interval: Interval | None = None
    """Of `ahead_of_zero`, 95%, paired over items."""
    notes: list[str]
    """What a reader must know."""


class Budget(Schema):
    """Routers within a budget on what an item costs or takes in the mean, a cap on what each does, or both."""

    resource: Resource
    """What is limited: `cost`, in `cost_unit`, or `latency`, in seconds."""
    budget: float | None
    """The most that an item may spend of it on average; null without a budget."""
    cap: float | None
    """The most that any item may spend; null without a cap."""
    validation_items: int
    """On how many items routers were set."""
    optimum: LimitedOptimum
    """The exact optimum within the limits."""
    zero_router: Limited
    """The single models, mixed at random, set as routers are; under a cap each of them is capped as they are, so that
    a call which does not fit is one of another model: that is some skill."""
    routers: dict[str, Limited]
    """By router."""

    @property
    def title(self) -> str:
        """The limits, as in `budget cost=0.02, cap cost=0.05`."""
        limits = {"budget": self.budget, "cap": self.cap}
        return ", ".join(f"{name} {self.resource}={limit:g}" for name, limit in limits.items() if limit is not None)


class Kept(Attained):
    """A router at the cheapest of its points that passed on validation items."""

    set_to: Setting
    """The point."""
    ahead: float
    """Quality minus the model's."""
    ahead_interval: Interval
    """Of `ahead`, 95%, paired over items."""
    held: bool
    """Whether `ahead` is at least `-margin`."""
    cost_ratio: float | None
    """`cost` / the model's; null if that is 0."""
    validation_ahead: float
    """Quality minus the model's on validation items."""


class Calibrated(Schema):
    """A router's points, tested one after another on validation items, from cost weight 0 upwards."""

    points: int
    """How many points its curve has."""
    passed: int
    """How many passed before the first that did not."""
    kept: Kept | None
    """The router at the cheapest of these; null if none passed: use the model."""
    notes: list[str]
    """What a reader must know."""


class NoWorseThan(Schema):
    """Routers at a quality that is, with a stated confidence, not below a model's by more than a margin."""

    model: str
    """The model."""
    margin: float
    """How far below its quality may be."""
    confidence: float
    """How sure it has to be, on validation items; of one router that was named before, not of the best of several."""
    validation_items: int
    """How many there are."""
    least_margin: float | None
    """The least margin that a router with the model's score on each of these items would pass at; null if none."""
    routers: dict[str, Calibrated]
    """By router, without the model itself."""

    @property
    def title(self) -> str:
        """The model and the margin, as in `no worse than gpt-4 by 0.01`."""
        return f"no worse than {self.model} by {self.margin:g}"


@dataclass(frozen=True)
class Judged:
    """What is expected of `I` items. quality, cost: `[I]`. over: `[I]` the chance that the cap is broken.

    within: `[I]` the quality if nothing scores that breaks the cap. seconds: `[I]` where they are limited, else None.
    """

    quality: FloatArray
    cost: FloatArray
    over: FloatArray
    within: FloatArray
    seconds: FloatArray | None = None

    @property
    def spent(self) -> FloatArray:
        """`[I]` of what is limited."""
        return self.cost if self.seconds is None else self.seconds


def setting(points: Points, budget: float = np.inf) -> tuple[Mapping[int, float], bool]:
    """The shares of a router's points that give it the best mean quality for at most `budget`; whether that is met.

    points: `[P, I]`, their cost that of what is limited. Two are mixed at random where that is better than one: the
    same problem as the optimum's, with the router's points as the options. If none meets the budget it is the cheapest.
    """
    quality, cost = points.quality.mean(axis=1)[None], points.cost.mean(axis=1)[None]
    mix = best_mix(quality, cost, budget)
    if mix is None:
        return {int(np.lexsort((-quality[0], cost[0]))[0]): 1.0}, False
    if mix.share == 0:
        return {int(mix.first[0]): 1.0}, True
    return {int(mix.first[0]): 1 - mix.share, int(mix.second[0]): mix.share}, True


def mixture(shares: FloatArray, parts: Sequence[Judged]) -> Judged:
    """What is attained if for each item one of the parts is drawn with these probabilities `[P]`."""
    names = ("quality", "cost", "over", "within")
    quality, cost, over, within = (shares @ [getattr(part, name) for part in parts] for name in names)
    seconds = [part.seconds for part in parts if part.seconds is not None]
    return Judged(quality, cost, over, within, shares @ seconds if seconds else None)


def optimum_figures(optimum: Judged, price: float, answered: NDArray[np.bool_], draws: Bootstrap) -> LimitedOptimum:
    """Figures of the optimum, from what it attains, and who can be answered within the cap `[I]`."""
    return LimitedOptimum(**_attained(optimum, draws), price=price, unanswered=float(1 - answered.mean()))


def limited_figures(
    judged: Judged,
    validation: Judged,
    optimum: FloatArray,
    zero: Judged | None,
    budget: float | None,
    cap: float | None,
    set_to: Sequence[Setting],
    meets: bool,
    notes: Sequence[str],
    draws: Bootstrap,
) -> Limited:
    """Figures of a router within a budget and a cap.

    validation: what it attains on validation items. optimum: `[I]` quality of the optimum. zero: the zero router, None
    of itself. meets: whether it meets the budget on validation items.
    """
    behind = draws.mean(optimum - judged.within)
    ahead = None if zero is None else draws.mean(judged.quality - zero.quality)
    return Limited(
        **_attained(judged, draws),
        set_to=list(set_to),
        meets_on_validation=meets,
        validation_quality=float(validation.quality.mean()),
        validation_cost=float(validation.cost.mean()),
        validation_seconds=None if validation.seconds is None else float(validation.seconds.mean()),
        met=None if budget is None else bool(judged.spent.mean() <= budget * (1 + ROUNDING)),
        over_cap=None if cap is None else float(judged.over.mean()),
        behind=behind.mean,
        behind_interval=(behind.low, behind.high),
        ahead_of_zero=None if ahead is None else ahead.mean,
        ahead_of_zero_interval=None if ahead is None else (ahead.low, ahead.high),
        notes=list(notes),
    )


def cheapest_passing(
    points: Points, model: FloatArray, margin: float, confidence: float, seed: int
) -> tuple[int, int | None]:
    """How many of a router's points pass, from the first on, and the cheapest of these; None if none passes.

    points: `[P, I]` by rising cost weight. model: `[I]` its quality. seed: of the order that items are tested in.
    """
    order = np.random.default_rng(seed).permutation(len(model))
    count = passing((points.quality - model)[:, order], margin, confidence)
    cost = points.cost[:count].mean(axis=1)
    return count, int(cost.argmin()) if count else None


def kept_figures(
    judged: Judged, model: Judged, set_to: Setting, margin: float, validation_ahead: float, draws: Bootstrap
) -> Kept:
    """Figures of a router at the point that was chosen, against the model's on the same items."""
    ahead = draws.mean(judged.quality - model.quality)
    return Kept(
        **_attained(judged, draws),
        set_to=set_to,
        ahead=ahead.mean,
        ahead_interval=(ahead.low, ahead.high),
        held=bool(ahead.mean >= -margin - ROUNDING),
        cost_ratio=relative(float(judged.cost.mean()), float(model.cost.mean())),
        validation_ahead=validation_ahead,
    )


def _attained(judged: Judged, draws: Bootstrap) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("quality", "cost", "seconds"):
        of_items = getattr(judged, name)
        mean = None if of_items is None else draws.mean(of_items)
        found[name] = None if mean is None else mean.mean
        found[f"{name}_interval"] = None if mean is None else (mean.low, mean.high)
    return found
