"""Which split an item of the invented tasks belongs to, and which wordings the train items lack.

Item `n` of a task goes by its number: of twenty in a row three are in a wording that is tested alone, with names and
things that no other item has; six more are tested, eight are train items and three validation items. So a third of a
task's test items is new in wording and content.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from tasks.invented.arithmetic import steps

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


def computed(
    problem: Callable[[random.Random, bool], tuple[str, str, str, str]], seed: str, items: int
) -> Iterator[dict[str, Any]]:
    """The items of a task whose answers are computed: so many different problems, drawn from a seed.

    problem: text, expression, kind and wording, of which the last is new or known.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < items:
        split, is_new = split_of_number(len(seen))
        text, expression, kind, wording = problem(rng, is_new)
        if text not in seen:
            seen.add(text)
            answer = str(steps(expression)[-1][3])
            doc = {"question": text, "answer": answer, "expression": expression, "kind": kind}
            yield {**doc, "wording": wording, "split": split}
