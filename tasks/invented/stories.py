"""Word problems of one to three steps, told of made-up people and their things.

Kinds share openings: what is asked at the end decides what is to be computed. How large the numbers become does not
depend on the wording.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tasks.invented.arithmetic import largest, natural
from tasks.invented.sums import number
from tasks.invented.wording import choose, computed

ITEMS = 440
SEED = "stories 3000000000"
SIZES = {100: 0.35, 1000: 0.37, 10_000: 0.28}
"""Share of the problems whose largest number, given or on the way, lies below the bound and not below the last one."""
# fmt: off
PEOPLE = ("Mara", "Tobin", "Selma", "Ruben", "Ines", "Kasper", "Lotte", "Emil", "Nadia", "Viktor", "Hanna", "Oskar")
NEW_PEOPLE = ("Zuleika", "Bartek", "Philippa", "Yannick", "Dagny", "Chidi")
THINGS = ("pens", "apples", "stamps", "candles", "buttons", "tiles", "bulbs", "cards", "nails", "plums", "ribbons",
          "tickets")
NEW_THINGS = ("walnuts", "hinges", "postcards", "marbles", "lanterns", "zips")
BOXES = ("boxes", "bags", "crates", "trays", "packs", "baskets")
NEW_BOXES = ("sacks", "drawers", "cartons", "jars")
_PACKED = "{n} has {a} {u} with {b} {t} each"
_FILLS = "{n} fills {a} {u} with {b} {t} in each of them"
_BUYS = "{n} buys {a} {u} of {b} {t}"
_TWO = "{n} has {a} {t}"
WORDINGS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "total": ("{a} * {b} + {c}", (
        f"{_PACKED} and {{c}} more. How many {{t}} are there?",
        f"{_PACKED}. {{m}} adds {{c}} {{t}}. How many {{t}} are there then?",
        f"{_FILLS}. {{c}} {{t}} do not fit. How many {{t}} are there in all?",
        f"{_BUYS}. At home there are {{c}} {{t}} already. How many {{t}} are that together?",
        f"{_BUYS} and gets {{c}} {{t}} as a gift. How many {{t}} does {{n}} have now?",
    ), (
        "On a shelf stand {a} {u}, {b} {t} in every one, and {c} {t} lie beside them. Count the {t}.",
        "{c} loose {t} and {a} {u} of {b} {t}: that is what {n} owns. What number of {t} is it?",
        "{n} carried home {a} {u}. Each held {b} {t}, and the pockets of {n} another {c}. How many {t} came home?",
    )),
    "left": ("{a} * {b} - {c}", (
        f"{_PACKED} and gives away {{c}}. How many {{t}} are left?",
        f"{_PACKED}. {{m}} takes {{c}} {{t}}. How many {{t}} are there then?",
        f"{_FILLS}. {{c}} {{t}} break. How many {{t}} are whole?",
        f"{_BUYS}. On the way {{c}} {{t}} are lost. How many {{t}} are left?",
        f"{_BUYS} and sells {{c}} {{t}} again. How many {{t}} does {{n}} have now?",
    ), (
        "On a shelf stood {a} {u}, {b} {t} in every one, until {m} carried off {c} {t}. Count the {t} that remain.",
        "Less {c} spoilt {t}, {n} owns {a} {u} of {b} {t}. What number of {t} is good?",
        "{n} carried {a} {u} away. Each held {b} {t}, but {c} fell out. How many {t} came home?",
    )),
    "change": ("{c} - {a} * {b}", (
        "{n} has {c} coins and buys {a} {u} of {t} at {b} coins each. How many coins are left?",
        "{n} pays for {a} {u} of {t} at {b} coins each with {c} coins. How many coins come back?",
        "{n} has {c} {t} and fills {a} {u} with {b} {t} each. How many {t} are left over?",
        "There are {c} {t}. {n} gives {a} children {b} {t} each. How many {t} are left?",
        "{n} saved {c} coins and spends {b} coins on each of {a} days. How many coins are left?",
    ), (
        "Of {c} {t}, {n} hands {b} to each of {a} guests. What number of {t} stays with {n}?",
        "A purse of {c} coins, {a} {u} of {t} for {b} coins apiece: what remains in the purse of {n}?",
        "{c} {t} lie on the table. Into each of {a} {u} go {b} of them. Count the {t} on the table now.",
    )),
    "together": ("{a} + {a} + {b}", (
        f"{_TWO}. {{m}} has {{b}} {{t}} more than {{n}}. How many {{t}} do they have together?",
        f"{_TWO}, and {{m}} has {{b}} more than that. How many {{t}} are there in all?",
        "{n} finds {a} {t} and {m} {b} more than {n}. How many {t} did they find together?",
        "In the morning {n} sells {a} {t}, in the evening {b} more than in the morning. How many {t} are sold?",
        "{n} needs {a} {t}, {m} needs {b} {t} more than {n}. How many {t} do both need?",
    ), (
        "{m} owns {b} {t} beyond the {a} that {n} owns. What number of {t} do the two own?",
        "Yesterday {n} counted {a} {t}, today {b} more than yesterday. Count both days.",
        "Two heaps of {t}: the first has {a}, the second {b} over that. How many {t} lie in the heaps?",
    )),
    "times": ("{a} + {a} * {b}", (
        f"{_TWO}. {{m}} has {{b}} times as many {{t}} as {{n}}. How many {{t}} do they have together?",
        f"{_TWO}, and {{m}} has {{b}} times that. How many {{t}} are there in all?",
        "{n} finds {a} {t} and {m} {b} times as many as {n}. How many {t} did they find together?",
        "In the morning {n} sells {a} {t}, in the evening {b} times as many as in the morning. How many {t} are sold?",
        "{n} needs {a} {t}, {m} needs {b} times as many {t} as {n}. How many {t} do both need?",
    ), (
        "{m} owns {b} times the {a} {t} that {n} owns. What number of {t} do the two own?",
        "Yesterday {n} counted {a} {t}, today {b} times the number of yesterday. Count both days.",
        "Two heaps of {t}: the first has {a}, the second {b} times that. How many {t} lie in the heaps?",
    )),
    "days": ("({a} + {b}) * {c}", (
        "{n} makes {a} {t} and {m} makes {b} {t} a day. How many {t} do they make in {c} days?",
        "Each day {n} sells {a} {t} in the morning and {b} in the evening. How many {t} are sold in {c} days?",
        "There are {c} {u}. In each are {a} {t} of {n} and {b} {t} of {m}. How many {t} are there in all?",
        "{n} puts {a} red and {b} blue {t} into each of {c} {u}. How many {t} are that together?",
        "{n} needs {a} {t} a day, {m} needs {b}. How many {t} do both need for {c} days?",
    ), (
        "For {c} days {n} and {m} counted {t}, every day {a} and {b} of them. What number is that in all?",
        "{c} {u} hold {a} large and {b} small {t} apiece. Count the {t}.",
        "Day after day {a} {t} come by cart and {b} by boat. How many {t} came after {c} days?",
    )),
    "rest": ("{a} - {b} - {c}", (
        f"{_TWO}, gives {{m}} {{b}} and loses {{c}}. How many {{t}} are left?",
        f"{_TWO}. {{m}} takes {{b}} {{t}}, later {{c}} more. How many {{t}} does {{n}} have now?",
        "There are {a} {t}. {n} sells {b}, {m} sells {c}. How many {t} are left?",
        "{n} saved {a} coins and spends {b} coins on {t} and {c} on {u}. How many coins are left?",
        "{n} needs {a} {t} and has {b}. {m} brings {c}. How many {t} are still missing?",
    ), (
        "Of {a} {t}, {b} went to {m} and {c} were spoilt. What number of {t} stays with {n}?",
        "{a} {t} lay on the table, until {n} took {b} and {m} took {c}. Count the {t} on the table now.",
        "From a purse of {a} coins go {b} for {t} and {c} for {u}. What remains in the purse of {n}?",
    )),
}
"""For each kind its expression, the wordings that train items have, and those of the test items alone."""
_RANGES = {  # of a, b and c
    "total": ((2, 99), (2, 99), (2, 900)), "left": ((2, 99), (2, 99), (2, 900)),
    "change": ((2, 60), (2, 60), (10, 5000)),
    "together": ((5, 3000), (2, 900), (2, 2)), "times": ((2, 400), (2, 30), (2, 2)),
    "days": ((2, 200), (2, 200), (2, 60)), "rest": ((20, 6000), (2, 2000), (2, 2000)),
}
# fmt: on


def problem(rng: random.Random, is_new: bool) -> tuple[str, str, str, str]:
    """Text, expression, kind and wording."""
    kind = rng.choice(list(WORDINGS))
    form, known, new = WORDINGS[kind]
    wording = choose(rng, known, new, is_new)
    below = rng.choices(list(SIZES), list(SIZES.values()))[0]
    lower = max([0, *(size for size in SIZES if size < below)])
    while True:
        a, b, c = (number(rng, low, high) for low, high in _RANGES[kind])
        expression = form.format(a=a, b=b, c=c)
        if natural(expression) and lower <= largest(expression) < below:
            break
    first, second = rng.sample(NEW_PEOPLE if is_new else PEOPLE, 2)
    text = wording.format(
        a=a, b=b, c=c, n=first, m=second,
        t=choose(rng, THINGS, NEW_THINGS, is_new), u=choose(rng, BOXES, NEW_BOXES, is_new),
    )  # fmt: skip
    return text, expression, kind, wording


def docs() -> Iterator[dict[str, Any]]:
    """The suite's items: `question`, `answer`, `expression`, `kind`, `wording`, `split`."""
    return computed(problem, SEED, ITEMS)
