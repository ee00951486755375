from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluate import Outcome
from harness.metrics import Bootstrap, collapsed_to, gap_closed, regret, sign_flip_p

EIGHTHS = st.integers(-8, 8).map(lambda n: n / 8)  # their sums are exact


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


def test_a_task_is_estimated_from_its_items_alone() -> None:
    values, chosen = np.array([0.0, 1.0, 1.0, 0.0, 5.0]), np.array([True, True, True, True, False])
    estimate = Bootstrap.draw(5, 1).mean(values, chosen)
    assert estimate.mean == 0.5
    assert 0.0 <= estimate.low < 0.5 < estimate.high <= 1.0


def test_gap_closed_is_nothing_at_the_best_single_and_all_at_the_optimum() -> None:
    single, best = outcome([0, 1, 0, 1], [1, 1, 1, 1]), outcome([1, 1, 0, 1], [2, 1, 1, 1])
    between = outcome([0.5, 1, 0, 1], [1.5, 1, 1, 1])
    assert gap_closed(single, single, best, 0.1) == 0
    assert gap_closed(best, single, best, 0.1) == 1
    assert gap_closed(between, single, best, 0.1) == pytest.approx(0.5)
    assert gap_closed(between, single, single, 0.1) is None
    assert regret(between, best, 0.1).tolist() == pytest.approx([0.45, 0, 0, 0])


def test_a_router_that_calls_one_model_only_is_flagged() -> None:
    names = ("a", "b")
    assert collapsed_to(outcome([1], [1], [[0.0, 1.0]]), names) == "b"
    assert collapsed_to(outcome([1, 1], [1, 1], [[0.9, 0.1], [1.0, 0.0]]), names) is None
    assert collapsed_to(outcome([1], [1], [[1.0]]), ("a",)) is None


@given(st.lists(EIGHTHS, min_size=1, max_size=9))
@settings(deadline=None)
def test_the_p_value_counts_all_sign_flips(differences: list[float]) -> None:
    observed = abs(sum(differences))
    flips = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
             for signs in product((1, -1), repeat=len(differences))]  # fmt: skip
    expected = sum(flip >= observed for flip in flips) / len(flips)
    assert sign_flip_p(np.array(differences), 1) == pytest.approx(expected)
    assert sign_flip_p(-np.array(differences), 1) == pytest.approx(expected)


@given(st.lists(EIGHTHS.filter(bool), min_size=13, max_size=16), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_the_p_value_of_many_items_is_near_that_of_all_flips(differences: list[float], seed: int) -> None:
    values = np.array(differences)
    signs = np.array(list(product((1, -1), repeat=len(values))))
    expected = (abs(signs @ values) >= abs(values.sum())).mean()
    assert sign_flip_p(values, seed) == pytest.approx(expected, abs=5 * 0.5 / 4999**0.5 + 1e-3)
    assert sign_flip_p(values, seed) == sign_flip_p(values, seed) >= 1 / 5000


def test_the_p_value_is_uniform_where_nothing_differs() -> None:
    generator = np.random.default_rng(3)
    found = np.array([sign_flip_p(generator.normal(0, 1, 40), seed, draws=199) for seed in range(400)])
    assert 0.02 <= (found <= 0.05).mean() <= 0.085
    assert sign_flip_p(np.zeros(5), 1) == 1
    assert sign_flip_p(np.full(60, 0.1), 1) == 1 / 5000
