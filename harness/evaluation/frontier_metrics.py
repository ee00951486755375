"""What a router comes to at all cost weights: AIQ and cost at parity beside the zero router's; APGR and CPT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.evaluation.frontier import (
    Bounds,
    Curve,
    Points,
    areas,
    best_model,
    cost_at_parity,
    cost_range,
    hulls,
    mixed,
    reflected,
    span,
    strong_calls,
    with_sample,
)
from harness.evaluation.metrics import NOISE, Bootstrap, Estimate
from harness.evaluation.sweep import Sweep
from pools.errors import UserError
from pools.schema import Schema

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]
RESAMPLES = 500
LEVELS = {"cpt_50": 0.5, "cpt_80": 0.8}
KEPT = {"keeps_98": 0.98, "keeps_99": 0.99, "keeps_100": 1.0}
LEAST_SPAN = 0.5
"""AIQ is withheld from a router whose own points span less than this of the range of costs."""
SEVERAL_HOPS = (
    "APGR and CPT are not defined with several hops in which models read earlier answers: they are of calls of two "
    "models of which each answers by itself"
)


class Parity(Schema):
    """The least share of the best single model's cost at which its quality is kept.

    On the same hull as AIQ, of a router's points mixed with the single models' and (0, 0). Null if no point of the
    router itself has that quality, so that it is not reached. Intervals are 95%, paired over items (500 resamples).
    """

    keeps_98: float | None
    """At 98% of the best single model's quality."""
    keeps_98_interval: Interval | None
    """Of `keeps_98`."""
    keeps_99: float | None
    """At 99%."""
    keeps_99_interval: Interval | None
    """Of `keeps_99`."""
    keeps_100: float | None
    """At 100%."""
    keeps_100_interval: Interval | None
    """Of `keeps_100`."""


class ZeroRouter(Schema):
    """The no-skill line: the hull of the single models and (0, 0), reached by mixing them at random."""

    aiq: float
    """Its AIQ."""
    parity: Parity | None = None
    """Its cost at parity."""


class AgainstZeroRouter(Schema):
    """A router's points against the zero router."""

    aiq: float
    """AIQ of the hull of its points, the single models' and (0, 0), over `cost_range`."""
    aiq_ahead: float
    """`aiq` minus the zero router's. Single models may be mixed in, so it is never below 0 on the items themselves; its
    interval may be."""
    aiq_ahead_interval: Interval
    """Of `aiq_ahead`, 95%, paired over items (500 resamples, the range of costs kept; the basic bootstrap, which allows
    for a hull over noisy points being too high)."""


class SweptCurve(Schema):
    """A router at the cost weights that its curve takes, which rise; they do not depend on those of the run."""

    cost_weight: list[float]
    """The lambda of the reward."""
    cost: list[float]
    """Mean cost per item, in `cost_unit`."""
    quality: list[float]
    """Mean task score."""
    found: bool
    """Whether the ends and bends of the curve were found; false: the bound on how many weights are tried came first, or
    the router was not swept, and these are the run's own weights."""


class AgainstTwoModels(Schema):
    """A router's points between a strong and a weak model."""

    strong_share: list[float]
    """Share of the items for which the strong model is called, once or more, at each of the run's cost weights."""
    other_share: list[float]
    """Calls per item, at most 1, of models that are neither, at each of the run's cost weights."""
    apgr: float
    """Average share of the gap in quality between the two that is recovered."""
    cpt_50: float | None
    """The least share of items for the strong model that recovers 50% of the gap; null if it is not reached."""
    cpt_80: float | None
    """The same for 80%."""
    apgr_interval: Interval | None = None
    """Of `apgr`, 95%, paired over items (500 resamples)."""
    cpt_50_interval: Interval | None = None
    """Of `cpt_50`."""
    cpt_80_interval: Interval | None = None
    """Of `cpt_80`."""


class TwoModels(Schema):
    """APGR and CPT between two models, or why they are not defined."""

    undefined: str | None
    """Why they are not defined: several hops of models that read earlier answers, or neither is better; else null."""
    strong: str | None = None
    """The strong model."""
    weak: str | None = None
    """The weak model."""
    routers: dict[str, AgainstTwoModels] = Field(default_factory=dict)
    """By router."""


class FrontierMetrics(Schema):
    """What routers come to over all cost weights."""

    cost_range: tuple[float, float] | None
    """Mean cost of the cheapest and of the most expensive single model; every AIQ is over this range. Null, with
    `zero_router` and each of `routers`, where no costs were recorded, all models cost the same, or live models were not
    all asked."""
    zero_router: ZeroRouter | None
    """The no-skill line."""
    routers: dict[str, AgainstZeroRouter | None]
    """By router; null where `withheld` says why."""
    two_models: TwoModels | None
    """APGR and CPT; null if the pool has more than two models and none were named (`--strong`, `--weak`)."""
    withheld: dict[str, str] = Field(default_factory=dict)
    """Why a router has no AIQ: its own points span less than half of `cost_range`, or it is a single model. They span
    it from the cheapest to the most expensive, and to its end if no single model is better than the best of them."""
    best_model: str | None = None
    """The single model with the highest quality, which `parity` is measured against."""
    parity: dict[str, Parity] = Field(default_factory=dict)
    """Cost at parity by router, without the single models."""
    curves: dict[str, SweptCurve] = Field(default_factory=dict)
    """By router: the points that these figures are of."""


def frontier_metrics(
    given: Mapping[str, Sweep],
    sweeps: Mapping[str, Sweep],
    singles: Mapping[str, Sweep],
    costs: bool,
    one_call_each: bool,
    seed: int,
    strong: str | None = None,
    weak: str | None = None,
) -> FrontierMetrics:
    """What the routers come to.

    given: each router at the run's cost weights. sweeps: at those that its curve takes. singles: each model by its
    name, at one weight. costs: whether any were recorded. one_call_each: whether models answer without reading earlier
    answers. strong, weak: the two models of APGR and CPT; if the pool has just two, the better is the strong one.
    Raises UserError for two that are named and are not one better than the other.
    """
    items = next(iter(sweeps.values())).points.cost.shape[1]
    draws = with_sample(Bootstrap.draw(items, seed, RESAMPLES))
    two_models = _against_two_models(given, sweeps, singles, one_call_each, draws, strong, weak)
    alone = mixed(*(single.points for single in singles.values())) if singles and costs else None
    bounds = cost_range(alone) if alone is not None else None
    curves = {name: _curve(swept) for name, swept in sweeps.items()} if costs else {}
    if alone is None or bounds is None:
        return FrontierMetrics(
            cost_range=None,
            zero_router=None,
            routers=dict.fromkeys(sweeps),
            two_models=two_models,
            withheld=dict.fromkeys(sweeps, "no costs, or no range of costs, of the single models"),
            curves=curves,
        )
    floor = hulls(alone, draws)
    floors = areas(floor, bounds)
    routers: dict[str, AgainstZeroRouter | None] = {}
    withheld: dict[str, str] = {}
    parity: dict[str, Parity] = {}
    for name, swept in sweeps.items():
        routers[name] = None
        if name.partition(":")[0] == "single":
            withheld[name] = "a single model: the zero router is all of them"
            continue
        of = hulls(mixed(swept.points, alone), draws)
        parity[name] = _parity(swept.points, alone, of, draws)
        if (why := _withheld(swept.points, alone, bounds)) is not None:
            withheld[name] = why
            continue
        heights = areas(of, bounds)
        ahead = reflected(heights - floors)
        routers[name] = AgainstZeroRouter(
            aiq=float(heights[0]), aiq_ahead=ahead.mean, aiq_ahead_interval=(ahead.low, ahead.high)
        )
    return FrontierMetrics(
        cost_range=bounds,
        zero_router=ZeroRouter(aiq=float(floors[0]), parity=_parity(alone, alone, floor, draws)),
        routers=routers,
        two_models=two_models,
        withheld=withheld,
        best_model=list(singles)[best_model(alone)],
        parity=parity,
        curves=curves,
    )


def _curve(swept: Sweep) -> SweptCurve:
    cost, quality = (values.mean(axis=1).tolist() for values in (swept.points.cost, swept.points.quality))
    return SweptCurve(cost_weight=swept.cost_weights.tolist(), cost=cost, quality=quality, found=swept.found)


def _withheld(points: Points, singles: Points, bounds: Bounds) -> str | None:
    spanned = span(points, singles, bounds)
    if spanned >= LEAST_SPAN:
        return None
    means = points.cost.mean(axis=1)
    low, high = float(means.min()), float(means.max())
    at = f"at {low:.3g}" if low == high else f"from {low:.3g} to {high:.3g}"
    return f"its own points span {spanned:.0%} of the range of costs, {at}"


def _parity(points: Points, singles: Points, of: Sequence[Curve], draws: FloatArray) -> Parity:
    return Parity(**_estimates({key: cost_at_parity(points, singles, of, draws, keep) for key, keep in KEPT.items()}))


def _estimates(found: Mapping[str, Estimate | None]) -> dict[str, Any]:
    """The two fields of each estimate, its figure and its interval."""
    figures = {name: None if each is None else each.mean for name, each in found.items()}
    intervals = {f"{name}_interval": None if each is None else (each.low, each.high) for name, each in found.items()}
    return {**figures, **intervals}


def _against_two_models(
    given: Mapping[str, Sweep],
    sweeps: Mapping[str, Sweep],
    singles: Mapping[str, Sweep],
    one_call_each: bool,
    draws: FloatArray,
    strong: str | None,
    weak: str | None,
) -> TwoModels | None:
    if strong is None and weak is None and len(singles) != 2:
        return None
    if not one_call_each:
        return TwoModels(undefined=SEVERAL_HOPS)
    quality = {model: float(single.points.quality.mean()) for model, single in singles.items()}
    named = strong is not None and weak is not None
    strong, weak = (strong, weak) if named else sorted(quality, key=quality.__getitem__, reverse=True)
    assert strong is not None and weak is not None
    top, floor = quality[strong], quality[weak]
    if not top > floor + NOISE:
        said = f"{strong} is not better than {weak} on these items ({top:.3f} and {floor:.3f})"
        if named:
            raise UserError(f"--strong {strong} --weak {weak}: {said}; name a stronger and a weaker model")
        return TwoModels(undefined=f"APGR and CPT need a stronger and a weaker model, and {said}")
    index = {model: number for number, model in enumerate(singles)}
    weak_quality, strong_quality = (singles[model].points.quality[0] for model in (weak, strong))
    routers = {}
    for name, swept in sweeps.items():
        called = given[name].called.mean(axis=1)
        strong_called, levels = swept.called[:, :, index[strong]], list(LEVELS.values())
        area, thresholds = strong_calls(
            strong_called, swept.points.quality, weak_quality, strong_quality, draws, levels
        )
        figures = _estimates({"apgr": area, **dict(zip(LEVELS, thresholds, strict=True))})
        routers[name] = AgainstTwoModels(
            strong_share=called[:, index[strong]].tolist(),
            other_share=np.delete(called, [index[strong], index[weak]], axis=1).sum(axis=1).clip(0, 1).tolist(),
            **figures,
        )
    return TwoModels(undefined=None, strong=strong, weak=weak, routers=routers)
