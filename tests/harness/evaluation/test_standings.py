"""The order of routers and their groups, on figures whose order is known."""

from __future__ import annotations

import numpy as np
import pytest

from harness.evaluation.metrics import Bootstrap
from harness.evaluation.paired import Figures
from harness.evaluation.standings import group_letters, not_told_apart, standings


def test_two_share_a_letter_if_and_only_if_they_are_alike() -> None:
    alike = np.eye(4, dtype=bool)
    for one, other in ((0, 1), (1, 2), (0, 2), (2, 3)):
        alike[one, other] = alike[other, one] = True
    assert group_letters(alike) == ["a", "a", "ab", "b"]
    drawn = np.random.default_rng(1).random((9, 9)) < 0.5
    drawn = drawn | drawn.T | np.eye(9, dtype=bool)
    letters = group_letters(drawn)
    shared = [[bool(set(one) & set(other)) for other in letters] for one in letters]
    np.testing.assert_array_equal(shared, drawn)
    assert group_letters(np.ones((60, 60), bool)) == ["a"] * 60  # at once, as of many seeds of one router


def test_of_equal_routers_any_two_are_told_apart_in_one_of_twenty_tables() -> None:
    """The level holds for all pairs of a table at once: ten routers have 45."""
    apart = 0
    for table in range(300):
        values = np.random.default_rng(table).random((10, 200))
        apart += not not_told_apart(values, Bootstrap.draw(200, table, 500)).all()
    assert apart / 300 == pytest.approx(0.05, abs=0.03)


def test_the_best_value_comes_first_and_bounds_last() -> None:
    generator = np.random.default_rng(3)
    quality = generator.random(400)
    routers = {
        "costly": Figures(quality, np.full(400, 0.5)),
        "twin": Figures(quality.copy(), np.full(400, 0.1)),
        "cheap": Figures(quality, np.full(400, 0.1)),
        "oracle": Figures(np.ones(400), np.zeros(400)),
    }
    found = standings(routers, frozenset({"oracle"}), 1.0)
    assert [each.router for each in found] == ["cheap", "twin", "costly", "oracle"]
    assert [each.groups for each in found] == ["a", "a", "b", ""]
    assert found[0].value.mean == pytest.approx(quality.mean() - 0.1)
    assert found[0].value.low < found[0].value.mean < found[0].value.high and found[0].cost is not None
