"""What a run over several cost weights comes to: AIQ against the zero router; APGR and CPT against two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.evaluate import Outcome
from harness.evaluation.frontier import aiq, aiq_resampled, apgr, cpt
from harness.evaluation.metrics import Bootstrap
from pools.errors import UserError

FloatArray = NDArray[np.float64]
RESAMPLES = 500
LEVELS = {"cpt_50": 0.5, "cpt_80": 0.8}
SEVERAL_HOPS = "APGR and CPT are not defined with several hops: they are of one call of one of two models"


@dataclass(frozen=True)
class Points:
    """A router at `P` cost weights, or `P` routers. cost, quality: `[P, I]` of each item."""

    cost: FloatArray
    quality: FloatArray

    @staticmethod
    def of(outcomes: Sequence[Outcome]) -> Points:
        """One point per outcome."""
        return Points(np.stack([o.cost for o in outcomes]), np.stack([o.quality for o in outcomes]))


def frontier_metrics(
    swept: Sequence[Mapping[str, Outcome]],
    singles: Mapping[str, Outcome],
    costs: bool,
    max_hops: int,
    seed: int,
    strong: str | None = None,
    weak: str | None = None,
) -> dict[str, Any]:
    """The content of `frontier_metrics` in `summary.json`.

    swept: the routers' outcomes at each cost weight. singles: each model's, by its name; costs: whether any were
    recorded. strong, weak: the two models of APGR and CPT; where the pool has just two, the better is the strong one.
    Raises UserError for two that are named and are not one better than the other.
    """
    curves = {name: [outcomes[name] for outcomes in swept] for name in swept[0]}
    found = _against_zero_router(curves, singles, seed) if costs and singles else None
    return {
        **(found or {"cost_range": None, "zero_router": None, "routers": dict.fromkeys(curves)}),
        "two_models": _against_two_models(curves, singles, max_hops, strong, weak),
    }


def _against_zero_router(
    curves: Mapping[str, Sequence[Outcome]], singles: Mapping[str, Outcome], seed: int
) -> dict[str, Any] | None:
    zero = Points.of(list(singles.values()))
    prices = zero.cost.mean(axis=1)
    lowest, highest = float(prices.min()), float(prices.max())
    if not lowest < highest:
        return None
    weights = Bootstrap.draw(zero.cost.shape[1], seed, RESAMPLES).weights
    floor = aiq(prices, zero.quality.mean(axis=1), lowest, highest)
    floors = aiq_resampled(zero.cost, zero.quality, weights, lowest, highest)
    routers = {}
    for name, outcomes in curves.items():
        points = Points.of(outcomes)
        height = aiq(points.cost.mean(axis=1), points.quality.mean(axis=1), lowest, highest)
        ahead = aiq_resampled(points.cost, points.quality, weights, lowest, highest) - floors
        interval = np.percentile(ahead, [2.5, 97.5]).tolist()
        routers[name] = {"aiq": height, "aiq_ahead": height - floor, "aiq_ahead_interval": interval}
    return {"cost_range": [lowest, highest], "zero_router": {"aiq": floor}, "routers": routers}


def _against_two_models(
    curves: Mapping[str, Sequence[Outcome]],
    singles: Mapping[str, Outcome],
    max_hops: int,
    strong: str | None,
    weak: str | None,
) -> dict[str, Any] | None:
    if strong is None and weak is None and len(singles) != 2:
        return None
    if max_hops > 1:
        return {"undefined": SEVERAL_HOPS}
    quality = {model: float(outcome.quality.mean()) for model, outcome in singles.items()}
    named = strong is not None and weak is not None
    strong, weak = (strong, weak) if named else sorted(quality, key=quality.__getitem__, reverse=True)
    assert strong is not None and weak is not None
    top, floor = quality[strong], quality[weak]
    if not top > floor:
        said = f"{strong} is not better than {weak} on these items ({top:.3f} and {floor:.3f})"
        if named:
            raise UserError(f"--strong {strong} --weak {weak}: {said}; name a stronger and a weaker model")
        return {"undefined": f"APGR and CPT need a stronger and a weaker model, and {said}"}
    index = {model: number for number, model in enumerate(singles)}
    routers = {}
    for name, outcomes in curves.items():
        called = np.stack([o.calls.mean(axis=0) for o in outcomes])
        shares = called[:, index[strong]].clip(0, 1)
        qualities = [float(o.quality.mean()) for o in outcomes]
        routers[name] = {
            "strong_share": shares.tolist(),
            "other_share": np.delete(called, [index[strong], index[weak]], axis=1).sum(axis=1).clip(0, 1).tolist(),
            "apgr": apgr(shares, qualities, floor, top),
            **{key: cpt(shares, qualities, floor, top, level) for key, level in LEVELS.items()},
        }
    return {"strong": strong, "weak": weak, "undefined": None, "routers": routers}
