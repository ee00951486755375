"""Curves of quality over cost, and over the share of strong calls: AIQ, cost at parity, PGR, APGR, CPT.

Pure functions on arrays. A router is the points `[P, I]` that it attains on `I` items at `P` cost weights; points of
several folds are put side by side along the items.

    draws = with_sample(Bootstrap.draw(items, seed, 500))
    bounds = cost_range(singles)
    of_one, of_other = (hulls(mixed(points, singles), draws) for points in (one, other))
    ahead = reflected(areas(of_one, bounds) - areas(of_other, bounds))
    share = cost_at_parity(one, singles, of_one, draws, 0.98)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.evaluation.metrics import NOISE, Bootstrap, Estimate

FloatArray = NDArray[np.float64]
Curve = tuple[FloatArray, FloatArray]
"""Vertices of a piecewise linear curve: abscissae, increasing, and ordinates."""
Bounds = tuple[float, float]
"""The range of costs that AIQ is taken over."""
SHARES = np.linspace(0.0, 1.0, 401)
"""Where an interval of a share is looked for."""


@dataclass(frozen=True)
class Points:
    """What is attained on each of `I` items at `P` cost weights, or by `P` models. cost, quality: `[P, I]`."""

    cost: FloatArray
    quality: FloatArray


def mixed(*parts: Points) -> Points:
    """All these points, of the same items: their hull is what mixing any of them at random attains."""
    return Points(np.concatenate([p.cost for p in parts]), np.concatenate([p.quality for p in parts]))


def with_sample(bootstrap: Bootstrap) -> FloatArray:
    """`[1 + R, I]` weights of the items: first the sample itself, then each resample."""
    items = bootstrap.weights.shape[1]
    return np.concatenate([np.full((1, items), 1 / items), bootstrap.weights])


def reflected(draws: FloatArray) -> Estimate:
    """The sample's figure, which is `draws[0]`, with its 95% interval from those of the resamples, `draws[1:]`.

    The basic bootstrap, `[2 x - q97.5, 2 x - q2.5]` (Davison and Hinkley 1997, 5.2). A hull over noisy points lies too
    high, and the hull of a resample as much higher again, so the percentile interval would call a useless router better
    than no skill about every second time; this one does so in about one of a hundred.
    """
    low, high = np.percentile(draws[1:], [2.5, 97.5]).tolist()
    estimate = float(draws[0])
    return Estimate(estimate, 2 * estimate - high, 2 * estimate - low)


def concave_hull(cost: ArrayLike, quality: ArrayLike) -> Curve:
    """The least non-decreasing concave curve above all points and above (0, 0); RouterBench's hull, arXiv 2403.12031.

    Each point of it can be reached: by drawing at random which of two routers answers, or that none does, which costs
    nothing and scores 0 (that is our reading of what lies left of the cheapest point). Right of the last vertex it
    stays level. cost, quality: `[n]`, costs >= 0.
    """
    points = np.column_stack([np.append(cost, 0.0), np.append(quality, 0.0)]).tolist()
    vertices: list[tuple[float, float]] = []
    for c, q in sorted(points, key=lambda point: (point[0], -point[1])):
        if vertices and (c == vertices[-1][0] or q <= vertices[-1][1]):
            continue  # dominated by a point that is no worse and no more expensive
        while len(vertices) > 1 and _slope(vertices[-2], vertices[-1]) <= _slope(vertices[-1], (c, q)):
            vertices.pop()
        vertices.append((c, q))
    return np.array([c for c, _ in vertices]), np.array([q for _, q in vertices])


def aiq(cost: ArrayLike, quality: ArrayLike, lowest: float, highest: float) -> float:
    """Average improvement in quality (RouterBench, arXiv 2403.12031): the hull's mean from lowest to highest cost.

    `1 / (c_max - c_min) * integral of the non-decreasing concave hull`, in score; the bounds must be the same for all
    routers that are compared.
    """
    return _mean(concave_hull(cost, quality), lowest, highest)


def cost_range(singles: Points) -> Bounds | None:
    """Mean cost of the cheapest and of the most expensive single model; None if all cost the same."""
    means = singles.cost.mean(axis=1)
    low, high = float(means.min()), float(means.max())
    return (low, high) if high - low > NOISE * high else None


def hulls(points: Points, draws: FloatArray) -> list[Curve]:
    """The hull of the points' means on each draw `[D, I]` of the items; the same draws give paired figures."""
    costs, qualities = draws @ points.cost.T, draws @ points.quality.T
    return [concave_hull(c, q) for c, q in zip(costs, qualities, strict=True)]


def areas(of: Sequence[Curve], bounds: Bounds) -> FloatArray:
    """`[D]` AIQ of the hull of each draw. The bounds stay, so that the same draws give paired figures."""
    return np.array([_mean(hull, *bounds) for hull in of])


def span(points: Points, singles: Points, bounds: Bounds) -> float:
    """The share of the range of costs that a router's own points span.

    It is spanned from the cheapest point to the most expensive one; from there on as well if no single model is better
    than the router's best point, since more money then buys nothing.
    """
    cost, (low, high) = points.cost.mean(axis=1), bounds
    first, last = np.clip([cost.min(), cost.max()], low, high)
    if points.quality.mean(axis=1).max() >= singles.quality.mean(axis=1).max() - NOISE:
        last = high
    return float((last - first) / (high - low))


def best_model(singles: Points) -> int:
    """The single model with the highest quality, of equals the cheapest."""
    return int(np.lexsort((singles.cost.mean(axis=1), -singles.quality.mean(axis=1)))[0])


def cost_at_parity(
    points: Points, singles: Points, of: Sequence[Curve], draws: FloatArray, keep: float
) -> Estimate | None:
    """The least share of the best single model's cost at which a router keeps `keep` of its quality.

    Read off the hull `of[0]` of the sample; None if no point of the router itself has that quality, so that only the
    best model, mixed in, would reach it. of: the hulls of the router's points mixed with the single models', for each
    of the draws `[D, I]`, the first of which is the sample. The interval holds all shares at which the reflected 95%
    interval of `hull - keep * quality of the best model` contains 0; docs/reference/frontier.md says how often it is
    right.
    """
    best = best_model(singles)
    cost, quality = draws @ singles.cost[best], draws @ singles.quality[best]
    if cost[0] <= 0 or points.quality.mean(axis=1).max() < keep * quality[0] - NOISE:
        return None
    above = np.stack(
        [np.interp(SHARES * c, *hull) - keep * q for hull, c, q in zip(of, cost, quality, strict=True)]
    )  # [D, S]
    share = _first(of[0][0] / cost[0], of[0][1] - keep * quality[0])
    return _share(share, above)


def pgr(quality: ArrayLike, weak: float, strong: float) -> FloatArray:
    """Performance gap recovered (RouteLLM, arXiv 2406.18665): `(q - q_weak) / (q_strong - q_weak)`, elementwise."""
    return np.asarray((np.asarray(quality, np.float64) - weak) / (strong - weak))


def monotone_envelope(share: ArrayLike, quality: ArrayLike) -> Curve:
    """The best quality for at most a share of strong calls: the running maximum of the interpolated curve.

    share: `[n]` in [0, 1], in any order; of equal shares the best counts. The vertices where the curve comes up to its
    earlier maximum again are added, so that the envelope is exact.
    """
    shares, qualities = np.asarray(share, np.float64), np.asarray(quality, np.float64)
    order = np.lexsort((-qualities, shares))
    shares, first = np.unique(shares[order], return_index=True)
    qualities = qualities[order][first]
    at, height = [shares[0]], [qualities[0]]
    for a, b, p, q in zip(shares, shares[1:], qualities, qualities[1:], strict=False):
        top = height[-1]
        if q > top > p:  # it crosses its earlier maximum between the two
            at.append(a + (b - a) * (top - p) / (q - p))
            height.append(top)
        at.append(b)
        height.append(max(top, q))
    return np.array(at), np.array(height)


def apgr(share: ArrayLike, quality: ArrayLike, weak: float, strong: float) -> float:
    """Average PGR over the share of strong calls from 0 to 1 (RouteLLM, arXiv 2406.18665), on the monotone envelope.

    The envelope is integrated exactly; the ends, no and only strong calls, are the two models themselves.
    """
    return _mean(monotone_envelope(*_with_ends(share, pgr(quality, weak, strong))), 0.0, 1.0)


def cpt(share: ArrayLike, quality: ArrayLike, weak: float, strong: float, level: float) -> float | None:
    """Call-performance threshold (RouteLLM, arXiv 2406.18665): least share of strong calls with PGR >= level.

    On the monotone envelope; None if the level is not reached.
    """
    shares, heights = monotone_envelope(*_with_ends(share, pgr(quality, weak, strong)))
    return _first(shares, heights - level) if heights[-1] >= level else None


def strong_calls(
    called: FloatArray,
    quality: FloatArray,
    weak: FloatArray,
    strong: FloatArray,
    draws: FloatArray,
    levels: Sequence[float],
) -> tuple[Estimate, list[Estimate]]:
    """APGR, and CPT at each level, with 95% intervals; all are reached, at the latest by the strong model itself.

    called: `[P, I]` the chance that the strong model is called for an item, once or more. quality: `[P, I]`. weak,
    strong: `[I]` qualities of the two models. draws: `[D, I]`, the first of which is the sample; those in which the
    strong model is not better are left out. Intervals are as those of `reflected` and `cost_at_parity`.
    """
    shares, heights = draws @ called.T, draws @ quality.T
    floor, top = draws @ weak, draws @ strong
    gap = top > floor + NOISE
    if not gap[0]:
        raise ValueError("the strong model is not better than the weak one")
    curves = [
        monotone_envelope(*_with_ends(s, pgr(q, low, high)))
        for s, q, low, high in zip(shares[gap], heights[gap], floor[gap], top[gap], strict=True)
    ]
    area = reflected(np.array([_mean(curve, 0.0, 1.0) for curve in curves]))
    recovered = np.stack([np.interp(SHARES, *curve) for curve in curves])
    thresholds = [_share(_first(curves[0][0], curves[0][1] - level), recovered - level) for level in levels]
    return area, thresholds


def _share(share: float, above: FloatArray) -> Estimate:
    """A share in [0, 1] with its interval, from how far each draw `[D, S]` is above the level at `SHARES`."""
    low, high = np.percentile(above[1:], [2.5, 97.5], axis=0)
    ends = [_first(SHARES, np.maximum.accumulate(2 * above[0] - end)) for end in (low, high)]
    return Estimate(min(share, 1.0), min(ends[0], share), max(ends[1], min(share, 1.0)))


def _first(at: FloatArray, height: FloatArray) -> float:
    """Where a non-decreasing piecewise linear curve first reaches 0; its end if it does nowhere."""
    reached = np.flatnonzero(height >= -NOISE)
    if not len(reached):
        return float(at[-1])
    around = slice(max(reached[0] - 1, 0), reached[0] + 1)
    return float(np.interp(0.0, height[around], at[around]))


def _with_ends(share: ArrayLike, recovered: FloatArray) -> Curve:
    return np.append(np.asarray(share, np.float64), [0.0, 1.0]), np.append(recovered, [0.0, 1.0])


def _mean(curve: Curve, low: float, high: float) -> float:
    """Mean height of a piecewise linear curve between two abscissae, level beyond its ends; exact."""
    inside = curve[0][(curve[0] > low) & (curve[0] < high)]
    at = np.concatenate([[low], inside, [high]])
    return float(np.trapezoid(np.interp(at, *curve), at) / (high - low))


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])
