"""Sums, differences, products and mixtures of them, with results from one digit to five.

About half of them have a number, given or on the way, that is larger than a small calculator's display.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tasks.invented.arithmetic import largest, natural
from tasks.invented.wording import choose, computed

ITEMS = 340
DISPLAY = 999
LARGE = 0.45
"""Share of the items on whose way a number is larger than the display of a small calculator."""
SEED = "sums 3000000000"
KINDS = ("sum", "difference", "product", "mixture")
# fmt: off
WORDINGS = (
    ("What is {}?", "Work out {}.", "Compute {}.", "Calculate {}.", "How much is {}?", "Find the value of {}.",
     "Give the result of {}.", "{} = ?"),
    ("Tell me what {} comes to.", "Reckon {} for me.", "I need the number that {} makes.", "{} makes how much?"),
)
# fmt: on


def number(rng: random.Random, low: int, high: int) -> int:
    """A whole number in a range, as often of few digits as of many."""
    return min(high, int(low * ((high + 1) / low) ** rng.random()))


def expression(rng: random.Random, kind: str) -> str:
    """An expression of a kind, without negative results on the way."""
    is_large = rng.random() < LARGE
    while True:
        if kind == "sum":
            made = " + ".join(str(number(rng, 20, 900)) for _ in range(rng.randint(2, 4)))
        elif kind == "difference":
            made = " - ".join(str(number(rng, 20, 5000)) for _ in range(rng.randint(2, 3)))
        elif kind == "product":
            made = f"{number(rng, 4, 200)} * {number(rng, 3, 99)}"
        else:
            a, b, c = number(rng, 4, 99), number(rng, 3, 60), number(rng, 2, 500)
            made = rng.choice((f"{a} * {b} + {c}", f"{c} + {a} * {b}", f"{a} * {b} - {c}", f"({a} + {c}) * {b}"))
        if natural(made) and (largest(made) > DISPLAY) == is_large:
            return made


def problem(rng: random.Random, is_new: bool) -> tuple[str, str, str, str]:
    """Text, expression, kind and wording."""
    kind = rng.choice(KINDS)
    made = expression(rng, kind)
    wording = choose(rng, *WORDINGS, is_new)
    return wording.format(made), made, kind, wording


def docs() -> Iterator[dict[str, Any]]:
    """The suite's items: `question`, `answer`, `expression`, `kind`, `wording`, `split`."""
    return computed(problem, SEED, ITEMS)
