"""Which split an item of the invented tasks belongs to, and which wordings the train items lack.

Item `n` of a task goes by its number: of twenty in a row three are in a wording that is tested alone, with names and
things that no other item has; six more are tested, eight are train items and three validation items. So a third of a
task's test items is new in wording and content.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

NEW, TESTED, TRAINED = 3, 9, 17  # of twenty items: the first three, the next six, the next eight; then validation


def split_of_number(number: int) -> tuple[str, bool]:
    """The split of item `number`, and whether its wording is new."""
    place = number % 20
    if place < TESTED:
        return "test", place < NEW
    return ("train" if place < TRAINED else "validation"), False


def choose(rng: random.Random, known: Sequence[T], new: Sequence[T], is_new: bool) -> T:
    """One of the known or of the new."""
    return rng.choice(new if is_new else known)
