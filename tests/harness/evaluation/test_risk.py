"""The stated risk: its p-value by hand, its confidence and its power in many draws of validation items."""

from __future__ import annotations

import numpy as np
import pytest

from harness.evaluation.risk import BETS, least_margin, p_value, passing

MARGIN, CONFIDENCE, DRAWS = 0.02, 0.9, 1000


def test_the_p_value_of_a_few_items_by_hand() -> None:
    stake = BETS / (1 - MARGIN)
    after = [np.mean(1 + stake * 1.02), np.mean((1 + stake * 1.02) * (1 - stake * 0.98))]
    assert after[1] < 1 < after[0], "what was won at first counts"
    assert p_value(np.array([1.0, -1.0]), MARGIN) == pytest.approx(1 / after[0])
    assert p_value(np.array([-1.0, -1.0]), MARGIN) == 1
    assert p_value(np.zeros(0), MARGIN) == 1


AHEAD = np.array([0.1, 0.05, 0.0, -0.01, -MARGIN, -0.04, -0.3])
RARE, NOISY = (np.zeros(5), np.linspace(0, 0.08, 5)), ((0.4 + AHEAD) / 2, (0.4 - AHEAD) / 2)
"""The chances that points gain and lose an item against the model; from one of them on, they lose the margin or more.

Without gains a loss of the margin is seldom seen among few items: there a bootstrap is wrong far too often.
"""


@pytest.mark.parametrize("items", [100, 400])
@pytest.mark.parametrize(("gains", "losses"), [RARE, NOISY], ids=["rare losses", "gains and losses"])
def test_no_point_passes_that_is_below_by_more_in_as_many_draws_as_stated(
    items: int, gains: np.ndarray, losses: np.ndarray
) -> None:
    rng, within = np.random.default_rng(1), int((gains - losses > -MARGIN + 1e-9).sum())
    wrong = passed = 0
    for _ in range(DRAWS):
        drawn = rng.random(items)
        ahead = (drawn < gains[:, None]).astype(float) - (drawn > 1 - losses[:, None])
        count = passing(ahead, MARGIN, CONFIDENCE)
        wrong, passed = wrong + (count > within), passed + (count > 0)
    assert wrong <= (1 - CONFIDENCE) * DRAWS
    if items == 400:
        assert passed > 0.5 * DRAWS, "a router that is ahead, or never behind, is found to be"


def test_testing_ends_at_the_first_point_that_fails() -> None:
    better, worse = np.full(200, 0.5), np.full(200, -0.5)
    assert passing(np.stack([better, better, worse, better]), MARGIN, CONFIDENCE) == 2
    assert passing(np.stack([worse, better]), MARGIN, CONFIDENCE) == 0
    assert passing(np.stack([better]), MARGIN, CONFIDENCE) == 1


def test_few_items_cannot_show_a_small_margin() -> None:
    found = [least_margin(items, 0.95) for items in (3, 50, 300, 3000)]
    assert found[0] is not None and found == sorted(found, reverse=True)
    assert found[3] is not None and found[3] <= 0.002
    assert p_value(np.zeros(300), found[2] or 0) <= 0.05 < p_value(np.zeros(300), (found[2] or 0) - 0.001)
