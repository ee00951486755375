"""AIQ, PGR, APGR and CPT: cases computed on paper, and an independent computation of the same numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation.frontier import (
    Points,
    aiq,
    apgr,
    areas,
    concave_hull,
    cost_at_parity,
    cpt,
    hulls,
    mixed,
    monotone_envelope,
    pgr,
    reflected,
    strong_calls,
    with_sample,
)
from harness.evaluation.metrics import Bootstrap

settings.register_profile("busy", deadline=None)  # tests share the cores with others
settings.load_profile("busy")
costs = st.floats(0, 100, allow_subnormal=False).map(lambda x: round(x, 3))
scores = st.floats(0, 1, allow_subnormal=False).map(lambda x: round(x, 3))
points = st.lists(st.tuples(costs, scores), min_size=1, max_size=12)
shares = st.lists(st.tuples(scores, scores), min_size=1, max_size=12)


def best_mixture(given_points: list[tuple[float, float]], budget: float) -> float:
    """The best expected quality for an expected cost of at most the budget, by trying every pair of routers."""
    known = [(0.0, 0.0), *given_points]
    best = max(q for c, q in known if c <= budget)
    for (c, q), (d, r) in itertools.permutations(known, 2):
        if c <= budget < d:
            best = max(best, q + (r - q) * (budget - c) / (d - c))
    return best


def best_until(curve: list[tuple[float, float]], share: float) -> float:
    """The running maximum of the interpolated curve, by looking at every vertex before the share and at the share."""
    xs = sorted({x for x, _ in curve})
    ys = [max(y for x, y in curve if x == at) for at in xs]
    return max([y for x, y in zip(xs, ys, strict=True) if x <= share] + [float(np.interp(share, xs, ys))])


def area_until_one(curve: list[tuple[float, float]]) -> float:
    """The integral of `best_until` from 0 to 1: exact, since it is straight between vertices and crossings.

    Crossings are taken of every segment with every vertex's height, whether the maximum turns there or not.
    """
    xs = sorted({x for x, _ in curve})
    ys = [max(y for x, y in curve if x == at) for at in xs]
    turns = set(xs)
    for (a, p), (b, q) in itertools.pairwise(zip(xs, ys, strict=True)):
        turns |= {a + (b - a) * (y - p) / (q - p) for y in ys if min(p, q) < y < max(p, q)}
    at = sorted(turns)
    return float(np.trapezoid([best_until(curve, x) for x in at], at))


def test_hull_and_aiq_on_paper():
    # (0,0)-(1,.5)-(3,.7) and level; (2,.55) lies below the line from (1,.5) to (3,.7), (4,.6) is dominated.
    cost, quality = [2, 1, 4, 3], [0.55, 0.5, 0.6, 0.7]
    hull = concave_hull(cost, quality)
    assert hull[0].tolist() == [0, 1, 3] and hull[1].tolist() == [0, 0.5, 0.7]
    # From 1 to 5: a trapezium of mean 0.6 over 2, then 0.7 over 2.
    assert aiq(cost, quality, 1, 5) == pytest.approx((0.6 * 2 + 0.7 * 2) / 4)
    # From 0 to 1: a triangle.
    assert aiq(cost, quality, 0, 1) == pytest.approx(0.25)
    assert aiq([0.0], [0.3], 0, 7) == pytest.approx(0.3)


def test_pgr_apgr_and_cpt_on_paper():
    # Weak 0.2, strong 0.6. At half the calls 0.5, so PGR 0.75; straight lines between.
    assert pgr([0.2, 0.5, 0.6, 0.1], 0.2, 0.6).tolist() == pytest.approx([0, 0.75, 1, -0.25])
    assert apgr([0.5], [0.5], 0.2, 0.6) == pytest.approx(0.5 * 0.375 + 0.5 * 0.875)
    assert cpt([0.5], [0.5], 0.2, 0.6, 0.5) == pytest.approx(1 / 3)
    assert cpt([0.5], [0.5], 0.2, 0.6, 0.8) == pytest.approx(0.5 + 0.5 * 0.05 / 0.25)
    # A dip: up to 0.75 at 0.25, down to 0.25 at 0.5, up to 1 at 1. It is back at 0.75 at 0.5 + 0.5 * 0.5/0.75 = 5/6.
    share, quality = [0.25, 0.5], [0.5, 0.3]
    envelope = monotone_envelope([0, 0.25, 0.5, 1], [0, 0.75, 0.25, 1])
    assert envelope[0].tolist() == pytest.approx([0, 0.25, 0.5, 5 / 6, 1])
    assert envelope[1].tolist() == pytest.approx([0, 0.75, 0.75, 0.75, 1])
    area = 0.25 * 0.375 + (5 / 6 - 0.25) * 0.75 + (1 / 6) * 0.875
    assert apgr(share, quality, 0.2, 0.6) == pytest.approx(area)
    assert cpt(share, quality, 0.2, 0.6, 0.8) == pytest.approx(5 / 6 + (1 / 6) * 0.2)
    # Random routing is the diagonal.
    assert apgr([0.5], [0.4], 0.2, 0.6) == pytest.approx(0.5)
    assert cpt([0.5], [0.4], 0.2, 0.6, 0.0) == 0.0
    assert cpt([0.5], [0.4], 0.2, 0.6, 1.01) is None


@given(points, costs, st.floats(0.1, 50))
def test_aiq_is_the_mean_of_the_best_mixture(found, low, width):
    high = low + width
    xs = sorted({low, high, *(c for c, _ in found if low < c < high)})
    # Between neighbouring costs of points the best mixture is straight, so the trapezium rule is exact.
    heights = [best_mixture(found, x) for x in xs]
    expected = np.trapezoid(heights, xs) / (high - low)
    cost, quality = zip(*found, strict=True)
    hull = concave_hull(cost, quality)
    assert (np.diff(hull[0]) > 0).all() and (np.diff(hull[1]) > 0).all()
    assert aiq(cost, quality, low, high) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 3), st.integers(2, 5), st.integers(0, 1000))
def test_resampled_aiq_is_that_of_the_items_drawn(routers, items, seed):
    generator = np.random.default_rng(seed)
    cost, quality = generator.random((routers, items)) * 4, generator.random((routers, items))
    drawn = generator.integers(0, items, (3, items))
    weights = np.array([[np.mean(row == item) for item in range(items)] for row in drawn])
    low, high = 1.0, 3.0
    found = areas(hulls(Points(cost, quality), weights), (low, high))
    for row, height in zip(drawn, found, strict=True):
        means = [(float(c[row].mean()), float(q[row].mean())) for c, q in zip(cost, quality, strict=True)]
        xs = sorted({low, high, *(c for c, _ in means if low < c < high)})
        expected = np.trapezoid([best_mixture(means, x) for x in xs], xs) / (high - low)
        assert height == pytest.approx(expected, abs=1e-9)


def two_models(items, generator, weak=0.3):
    """Qualities `[2, I]` and costs of a weak and a strong model."""
    chance = np.array([[weak], [0.7]])
    return (generator.random((2, items)) < chance).astype(float), np.repeat([[1.0], [3.0]], items, axis=1)


def test_a_router_that_draws_a_model_for_each_item_is_rarely_called_better():
    """Its hull over noisy points is above the zero router's by chance; a percentile interval marks half of them."""
    marked, seeds = np.zeros(2, int), 30
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        quality, cost = two_models(100, generator)
        strong = generator.random(100) < np.linspace(0, 1, 12)[:, None]
        singles = Points(cost, quality)
        points = Points(np.where(strong, cost[1], cost[0]), np.where(strong, quality[1], quality[0]))
        draws = with_sample(Bootstrap.draw(100, seed, 200))
        floors, heights = (areas(hulls(each, draws), (1, 3)) for each in (singles, mixed(points, singles)))
        ahead = reflected(heights - floors)
        assert ahead.mean >= 0 and ahead.low <= ahead.mean <= ahead.high
        marked += [ahead.low > 1e-9, np.percentile((heights - floors)[1:], 2.5) > 1e-9]
    assert marked[0] <= 2 and marked[1] >= seeds / 4


def test_cost_at_parity_and_its_interval():
    generator = np.random.default_rng(2)
    quality, cost = two_models(3000, generator, weak=0.5)
    singles = Points(cost, quality)
    # Asks the strong model where the weak one fails: at three in ten of these items, and at all.
    asked = (quality[0] == 0) & (generator.random(3000) < np.array([[0.3], [1.0]]))
    points = Points(np.where(asked, cost[1], cost[0]), np.where(asked, quality[1], quality[0]))
    draws = with_sample(Bootstrap.draw(3000, 1, 300))
    of = hulls(mixed(points, singles), draws)
    share = cost_at_parity(points, singles, of, draws, 0.98)
    # At chance c: 0.5 + 0.35 c for 1 + c, of the strong model's 0.7 for 3.
    assert share is not None and share.low < (1 + (0.98 * 0.7 - 0.5) / 0.35) / 3 < share.high < share.low + 0.1
    (at, height), wanted = of[0], 0.98 * quality[1].mean()
    assert np.interp(share.mean * 3, at, height) == pytest.approx(wanted)
    # Three in ten are too few: only the strong model, mixed in, would reach it.
    few = Points(points.cost[:1], points.quality[:1])
    assert cost_at_parity(few, singles, hulls(mixed(few, singles), draws), draws, 0.98) is None


def test_strong_calls_have_intervals_around_what_is_true():
    generator = np.random.default_rng(3)
    quality, _ = two_models(2000, generator)
    order = generator.random(2000)
    called = (order < np.linspace(0, 1, 9)[:, None]).astype(float)
    draws = with_sample(Bootstrap.draw(2000, 1, 300))
    mixture = np.where(called > 0, quality[1], quality[0])
    area, (half, most) = strong_calls(called, mixture, quality[0], quality[1], draws, [0.5, 0.8])
    assert area.low < 0.5 < area.high and half.low < 0.5 < half.high and most.low < 0.8 < most.high
    means = called.mean(axis=1), mixture.mean(axis=1), quality[0].mean(), quality[1].mean()
    assert area.mean == pytest.approx(apgr(*means)) and half.mean == pytest.approx(cpt(*means, 0.5))


@given(shares, st.floats(0, 0.4), st.floats(0.5, 1), st.floats(0.01, 1))
def test_cpt_is_the_least_share_that_reaches_the_level(found, weak, strong, level):
    share, quality = zip(*found, strict=True)
    curve = [*zip(share, pgr(quality, weak, strong).tolist(), strict=True), (0.0, 0.0), (1.0, 1.0)]
    least = cpt(share, quality, weak, strong, level)
    assert least is not None, "only strong calls recover everything"
    assert best_until(curve, least) >= level - 1e-9
    if least > 1e-6:
        assert best_until(curve, least - 1e-6) < level + 1e-9
    assert apgr(share, quality, weak, strong) == pytest.approx(area_until_one(curve), abs=1e-9)
