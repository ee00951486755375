from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation.evaluate import Outcome
from harness.evaluation.metrics import (
    Bootstrap,
    TaskBootstrap,
    collapsed_to,
    gap_closed,
    regret,
    relative,
    seed_spread,
    sign_flip_p,
    value,
)

settings.register_profile("busy", deadline=None)  # tests share the cores with others
settings.load_profile("busy")
EIGHTHS = st.integers(-8, 8).map(lambda n: n / 8)  # their sums are exact
AMOUNTS = st.floats(0, 100, allow_subnormal=False).map(lambda x: round(x, 3))
SHARES = st.floats(0, 1, allow_subnormal=False).map(lambda x: round(x, 3))
ITEMS = st.lists(st.tuples(SHARES, AMOUNTS), min_size=1, max_size=9)
WEIGHTS = st.floats(0, 10, allow_subnormal=False).map(lambda x: round(x, 3))


def outcome(quality: list[float], cost: list[float], calls: list[list[float]] | None = None) -> Outcome:
    zeros = np.zeros(len(quality))
    return Outcome(
        np.array(quality), np.array(cost), zeros, zeros, np.array(calls or [[1.0, 0.0]]), np.ones((1, 1)), True
    )


def test_the_interval_covers_a_known_mean_about_19_times_in_20() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        estimate = Bootstrap.draw(60, seed, resamples=500).mean(generator.normal(2.0, 1.0, 60))
        covered += estimate.low <= 2.0 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.98


def test_the_intervals_over_trainings_cover_what_they_are_of() -> None:
    """Items and trainings with effects of their own, and noise."""
    generator = np.random.default_rng(0)
    over_both = over_trainings = 0
    for _ in range(2000):
        item, training = generator.normal(0, 1, 80), generator.normal(0, 0.15, 4)
        values = 2.0 + item + training[:, None] + generator.normal(0, 0.3, (4, 80))
        spread = seed_spread(values)
        over_both += spread.both[0] <= 2.0 <= spread.both[1]
        over_trainings += spread.low <= 2.0 + item.mean() <= spread.high
    assert 0.935 <= over_both / 2000 <= 0.975
    assert 0.935 <= over_trainings / 2000 <= 0.965


def test_trainings_that_do_not_differ_leave_the_interval_over_items() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    spread = seed_spread(np.stack([values, values, values]))
    assert (spread.deviation, spread.low, spread.high) == pytest.approx((0, 0.6, 0.6))
    half = 2.776 * np.sqrt(0.3 / 5)  # t of 4 degrees of freedom; the variance is 0.3
    assert spread.both == pytest.approx((0.6 - half, 0.6 + half), abs=1e-3)


def test_two_trainings_by_hand() -> None:
    spread = seed_spread(np.array([[0.4], [0.6]]))  # s = 0.1414, t of one degree of freedom is 12.706
    assert spread.deviation == pytest.approx(0.1414, abs=1e-4)
    assert (spread.low, spread.high) == pytest.approx((0.5 - 1.2706, 0.5 + 1.2706), abs=1e-3)
    assert spread.both == (spread.low, spread.high)


def test_a_task_is_estimated_from_its_items_alone() -> None:
    values, chosen = np.array([0.0, 1.0, 1.0, 0.0, 5.0]), np.array([True, True, True, True, False])
    estimate = Bootstrap.draw(5, 1).mean(values, chosen)
    assert estimate.mean == 0.5
    assert 0.0 <= estimate.low < 0.5 < estimate.high <= 1.0


def test_a_router_that_calls_one_model_only_is_flagged() -> None:
    names = ("a", "b")
    assert collapsed_to(outcome([1], [1], [[0.0, 1.0]]), names) == "b"
    assert collapsed_to(outcome([1, 1], [1, 1], [[0.9, 0.1], [1.0, 0.0]]), names) is None
    assert collapsed_to(outcome([1], [1], [[1.0]]), ("a",)) is None


@given(st.lists(EIGHTHS, min_size=1, max_size=9))
def test_the_p_value_counts_all_sign_flips(differences: list[float]) -> None:
    observed = abs(sum(differences))
    flips = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
             for signs in product((1, -1), repeat=len(differences))]  # fmt: skip
    expected = sum(flip >= observed for flip in flips) / len(flips)
    assert sign_flip_p(np.array(differences), 1) == pytest.approx(expected)
    assert sign_flip_p(-np.array(differences), 1) == pytest.approx(expected)


@given(st.lists(EIGHTHS.filter(bool), min_size=13, max_size=16), st.integers(0, 5))
@settings(max_examples=25)
def test_the_p_value_of_many_items_is_near_that_of_all_flips(differences: list[float], seed: int) -> None:
    values = np.array(differences)
    signs = np.array(list(product((1, -1), repeat=len(values))))
    expected = (abs(signs @ values) >= abs(values.sum())).mean()
    assert sign_flip_p(values, seed) == pytest.approx(expected, abs=5 * 0.5 / 4999**0.5 + 1e-3)
    assert sign_flip_p(values, seed) == sign_flip_p(values, seed) >= 1 / 5000
    assert sign_flip_p(np.zeros(5), 1) == 1 and sign_flip_p(np.full(60, 0.1), 1) == 1 / 5000


def of_items(items: list[tuple[float, float]]) -> Outcome:
    return outcome([quality for quality, _ in items], [cost for _, cost in items])


@given(st.lists(AMOUNTS, min_size=1, max_size=30), st.integers(0, 99))
def test_an_estimate_is_the_mean_and_its_interval_lies_within_the_values(values: list[float], seed: int) -> None:
    given_values = np.array(values)
    for bootstrap in (Bootstrap.draw(len(values), seed, 200), TaskBootstrap.draw(np.array(["t"] * len(values)), seed)):
        found = bootstrap.mean(given_values)
        assert found.mean == pytest.approx(sum(values) / len(values))
        assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
        shifted = bootstrap.mean(2 * given_values + 3)
        assert (shifted.low, shifted.high) == pytest.approx((2 * found.low + 3, 2 * found.high + 3))


@given(AMOUNTS, AMOUNTS, st.floats(0.1, 10))
def test_ratios_are_of_the_model_whatever_the_unit(attained: float, of_model: float, unit: float) -> None:
    found = relative(attained, of_model)
    assert (found is None) == (of_model == 0)
    if found is not None:
        assert found * of_model == pytest.approx(attained)
        assert relative(attained * unit, of_model * unit) == pytest.approx(found)


@given(ITEMS, WEIGHTS)
def test_value_and_regret_are_by_item_and_add_up(items: list[tuple[float, float]], weight: float) -> None:
    some, best = of_items(items), of_items([(1.0, cost / 2) for _, cost in items])
    assert value(some, weight).tolist() == pytest.approx([quality - weight * cost for quality, cost in items])
    assert value(some, 0).tolist() == some.quality.tolist()
    lost = regret(some, best, weight)
    assert (lost >= -1e-9).all(), "no item is better or cheaper"
    assert (value(some, weight) + lost).tolist() == pytest.approx(value(best, weight).tolist(), abs=1e-9)
    assert (regret(some, some, weight) == 0).all()


@given(ITEMS, WEIGHTS, st.floats(0, 1))
def test_the_gap_closed_by_a_mixture_is_its_share(
    items: list[tuple[float, float]], weight: float, share: float
) -> None:
    single, best = of_items(items), of_items([(1.0, cost / 2) for _, cost in items])
    mixed = of_items([(q + share * (1 - q), c - share * c / 2) for q, c in items])
    gap = value(best, weight).mean() - value(single, weight).mean()
    found = gap_closed(mixed, single, best, weight)
    if abs(gap - 0.005) < 1e-9:
        return
    assert (found is None) == (gap < 0.005)
    if found is not None:
        assert found == pytest.approx(share, abs=1e-6)
        assert found == pytest.approx(1 - regret(mixed, best, weight).mean() / gap, abs=1e-6)
