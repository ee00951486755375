"""What a run over several cost weights comes to: AIQ against the zero router; APGR and CPT against two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.evaluation.evaluate import Outcome
from harness.evaluation.frontier import Points, aiq, apgr, areas, cpt, hulls
from harness.evaluation.metrics import Bootstrap
from pools.errors import UserError
from pools.schema import Schema

FloatArray = NDArray[np.float64]
RESAMPLES = 500
LEVELS = {"cpt_50": 0.5, "cpt_80": 0.8}
SEVERAL_HOPS = "APGR and CPT are not defined with several hops: they are of one call of one of two models"


class ZeroRouter(Schema):
    """The no-skill line: the hull of the single models, reached by mixing them at random."""

    aiq: float
    """Its AIQ."""


class AgainstZeroRouter(Schema):
    """A router's points against the zero router."""

    aiq: float
    """AIQ of the hull of its points and (0, 0), over `cost_range`."""
    aiq_ahead: float
    """`aiq` minus the zero router's."""
    aiq_ahead_interval: tuple[float, float]
    """Of `aiq_ahead`, 95%, paired over items (500 resamples, the range of costs kept)."""


class AgainstTwoModels(Schema):
    """A router's points between a strong and a weak model."""

    strong_share: list[float]
    """Share of the items that the strong model answers, at each cost weight."""
    other_share: list[float]
    """Share of the items that a model answers which is neither, at each cost weight."""
    apgr: float
    """Average share of the gap in quality between the two that is recovered."""
    cpt_50: float | None
    """The least share of items for the strong model that recovers 50% of the gap; null if it is not reached."""
    cpt_80: float | None
    """The same for 80%."""


class TwoModels(Schema):
    """APGR and CPT between two models, or why they are not defined."""

    undefined: str | None
    """Why they are not defined: several hops, or neither model is better; else null."""
    strong: str | None = None
    """The strong model."""
    weak: str | None = None
    """The weak model."""
    routers: dict[str, AgainstTwoModels] = Field(default_factory=dict)
    """By router."""


class FrontierMetrics(Schema):
    """What a run's points at several cost weights come to."""

    cost_range: tuple[float, float] | None
    """Mean cost of the cheapest and of the most expensive single model; every AIQ is over this range. Null, with
    `zero_router` and each of `routers`, where no costs were recorded, all models cost the same, or live models were not
    all asked."""
    zero_router: ZeroRouter | None
    """The no-skill line."""
    routers: dict[str, AgainstZeroRouter | None]
    """By router."""
    two_models: TwoModels | None
    """APGR and CPT; null if the pool has more than two models and none were named (`--strong`, `--weak`)."""


def frontier_metrics(
    swept: Sequence[Mapping[str, Outcome]],
    singles: Mapping[str, Outcome],
    costs: bool,
    max_hops: int,
    seed: int,
    strong: str | None = None,
    weak: str | None = None,
) -> FrontierMetrics:
    """What the points come to.

    swept: the routers' outcomes at each cost weight. singles: each model's, by its name; costs: whether any were
    recorded. strong, weak: the two models of APGR and CPT; if the pool has just two, the better is the strong one.
    Raises UserError for two that are named and are not one better than the other.
    """
    curves = {name: [outcomes[name] for outcomes in swept] for name in swept[0]}
    two_models = _against_two_models(curves, singles, max_hops, strong, weak)
    means = [float(outcome.cost.mean()) for outcome in singles.values()] if costs else []
    if not means or min(means) == max(means):
        return FrontierMetrics(cost_range=None, zero_router=None, routers=dict.fromkeys(curves), two_models=two_models)
    bounds = min(means), max(means)
    items = len(next(iter(singles.values())).cost)
    weights = Bootstrap.draw(items, seed, RESAMPLES).weights
    floor, floors = _heights([*singles.values()], weights, bounds)
    routers: dict[str, AgainstZeroRouter | None] = {}
    for name, outcomes in curves.items():
        height, heights = _heights(outcomes, weights, bounds)
        low, high = np.percentile(heights - floors, [2.5, 97.5]).tolist()
        routers[name] = AgainstZeroRouter(aiq=height, aiq_ahead=height - floor, aiq_ahead_interval=(low, high))
    zero_router = ZeroRouter(aiq=floor)
    return FrontierMetrics(cost_range=bounds, zero_router=zero_router, routers=routers, two_models=two_models)


def _heights(points: Sequence[Outcome], weights: FloatArray, bounds: tuple[float, float]) -> tuple[float, FloatArray]:
    """AIQ of these points, and on each resample."""
    cost, quality = np.stack([o.cost for o in points]), np.stack([o.quality for o in points])
    return aiq(cost.mean(axis=1), quality.mean(axis=1), *bounds), areas(hulls(Points(cost, quality), weights), bounds)


def _against_two_models(
    curves: Mapping[str, Sequence[Outcome]],
    singles: Mapping[str, Outcome],
    max_hops: int,
    strong: str | None,
    weak: str | None,
) -> TwoModels | None:
    if strong is None and weak is None and len(singles) != 2:
        return None
    if max_hops > 1:
        return TwoModels(undefined=SEVERAL_HOPS)
    quality = {model: float(outcome.quality.mean()) for model, outcome in singles.items()}
    named = strong is not None and weak is not None
    strong, weak = (strong, weak) if named else sorted(quality, key=quality.__getitem__, reverse=True)
    assert strong is not None and weak is not None
    top, floor = quality[strong], quality[weak]
    if not top > floor:
        said = f"{strong} is not better than {weak} on these items ({top:.3f} and {floor:.3f})"
        if named:
            raise UserError(f"--strong {strong} --weak {weak}: {said}; name a stronger and a weaker model")
        return TwoModels(undefined=f"APGR and CPT need a stronger and a weaker model, and {said}")
    index = {model: number for number, model in enumerate(singles)}
    routers = {}
    for name, outcomes in curves.items():
        called = np.stack([o.calls.mean(axis=0) for o in outcomes])
        shares = called[:, index[strong]].clip(0, 1)
        qualities = [float(o.quality.mean()) for o in outcomes]
        routers[name] = AgainstTwoModels(
            strong_share=shares.tolist(),
            other_share=np.delete(called, [index[strong], index[weak]], axis=1).sum(axis=1).clip(0, 1).tolist(),
            apgr=apgr(shares, qualities, floor, top),
            **{key: cpt(shares, qualities, floor, top, level) for key, level in LEVELS.items()},
        )
    return TwoModels(undefined=None, strong=strong, weak=weak, routers=routers)
