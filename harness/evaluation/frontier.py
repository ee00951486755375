"""Curves of quality over cost, and over the share of strong calls: AIQ, PGR, APGR, CPT. Pure functions on arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Curve = tuple[FloatArray, FloatArray]
"""Vertices of a piecewise linear curve: abscissae, increasing, and ordinates."""


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


def aiq_resampled(
    cost: FloatArray, quality: FloatArray, weights: FloatArray, lowest: float, highest: float
) -> FloatArray:
    """`[R]` AIQ on each resample of the items: the means of the points, and so their hull, are taken anew in each.

    cost, quality: `[P, I]` of `P` points on `I` items. weights: `[R, I]` how often a resample drew each item, divided
    by `I`. The bounds stay, so that the same weights give paired figures of several routers.
    """
    costs, qualities = weights @ cost.T, weights @ quality.T
    return np.array([aiq(c, q, lowest, highest) for c, q in zip(costs, qualities, strict=True)])


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
    reached = np.flatnonzero(heights >= level)
    if not len(reached):
        return None
    around = slice(max(reached[0] - 1, 0), reached[0] + 1)
    return float(np.interp(level, heights[around], shares[around]))


def _with_ends(share: ArrayLike, recovered: FloatArray) -> Curve:
    return np.append(np.asarray(share, np.float64), [0.0, 1.0]), np.append(recovered, [0.0, 1.0])


def _mean(curve: Curve, low: float, high: float) -> float:
    """Mean height of a piecewise linear curve between two abscissae, level beyond its ends; exact."""
    inside = curve[0][(curve[0] > low) & (curve[0] < high)]
    at = np.concatenate([[low], inside, [high]])
    return float(np.trapezoid(np.interp(at, *curve), at) / (high - low))


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])
