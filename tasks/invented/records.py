"""Invented people: where and when they were born, and where they worked. Three registries know a third each.

Person `n` has one item in the suite: one fact, asked in one wording. Every tenth person is in no registry. Nothing in
a name or a wording says which registry knows it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tasks.invented.wording import choose, split_of_number

ITEMS = 520
REGISTRIES = ("north", "east", "west")
SEED = "records 3000000000"
# fmt: off
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "birthplace": (
        ("Where was {} born?", "In which town was {} born?", "Which town is the birthplace of {}?",
         "What is the birthplace of {}?", "Name the town that {} was born in."),
        ("From which town does {} come?", "Give the native town of {}.", "The cradle of {} stood in which town?"),
    ),
    "birth year": (
        ("When was {} born?", "In which year was {} born?", "What is the birth year of {}?",
         "Which year is the birth year of {}?", "Name the year that {} was born in."),
        ("How is the birth of {} dated?", "Give the year in which {} came into the world.",
         "What year is entered for the birth of {}?"),
    ),
    "employer": (
        ("Who employed {}?", "For which house did {} work?", "Which house is the employer of {}?",
         "What is the employer of {}?", "Name the house that {} worked for."),
        ("In whose service was {}?", "Give the firm that paid {}.", "The wages of {} came from which firm?"),
    ),
}
"""For each kind the wordings that train items have, and those of the test items alone."""
FIRST = tuple(
    a + b
    for a in ("Ba", "De", "Fi", "Go", "Ha", "Jo", "Ka", "Li", "Mo", "Na", "Pe", "Ru", "Sa", "Ti")
    for b in ("dan", "lia", "mir", "nok", "ra", "sel", "ton", "vi")
)
NEW_FIRST = tuple(
    a + b
    for a in ("Ae", "Cy", "Eu", "Io", "Oz", "Ul", "Yv", "Xa")
    for b in ("bel", "gor", "hane", "phi", "rik")
)
LAST = tuple(
    a + b + c
    for a in ("Al", "Bren", "Cor", "Dal", "Fen", "Gar", "Hol", "Kes",
              "Lan", "Mar", "Nor", "Pol", "Ros", "Sten", "Tar", "Var")
    for b in ("a", "be", "di", "ko", "mu", "ne", "ri", "so", "ta", "vu")
    for c in ("berg", "dor", "lin", "man", "nik", "rov", "sky", "well")
)
NEW_LAST = tuple(
    a + b + c
    for a in ("Ash", "Chi", "Dru", "Eck", "Gry", "Ith", "Jux", "Oph", "Quil", "Zem")
    for b in ("e", "la", "mo", "ny", "pu", "zi")
    for c in ("cott", "fax", "gard", "horn", "thwaite", "zen")
)
TOWNS = tuple(a + b for a in ("Amber", "Birch", "Cold", "Dun", "Elm", "Frost", "Grey", "High")
              for b in ("bridge", "ford", "haven", "mere", "port"))
HOUSES = tuple(a + " " + b for a in ("Abbot", "Bishop", "Carver", "Draper", "Fuller", "Glover", "Harper", "Mercer")
               for b in ("Brothers", "Mill", "Press", "Yard", "Works"))
# fmt: on


@dataclass(frozen=True)
class Person:
    """One invented person. registry: which one knows the facts, or None. facts: by kind of question."""

    name: str
    registry: str | None
    facts: dict[str, str]


@cache
def people() -> tuple[Person, ...]:
    """The people of the suite, one an item, with surnames of their own."""
    rng = random.Random(SEED)
    surnames, new_surnames = rng.sample(LAST, len(LAST)), rng.sample(NEW_LAST, len(NEW_LAST))
    made = []
    for number in range(ITEMS):
        _, is_new = split_of_number(number)
        name = f"{rng.choice(NEW_FIRST if is_new else FIRST)} {(new_surnames if is_new else surnames).pop()}"
        registry = None if rng.random() < 0.1 else rng.choice(REGISTRIES)
        facts = {
            "birthplace": rng.choice(TOWNS),
            "birth year": str(rng.randrange(1700, 2000)),
            "employer": rng.choice(HOUSES),
        }
        made.append(Person(name, registry, facts))
    return tuple(made)


@cache
def strangers() -> tuple[str, ...]:
    """Surnames that no person of the suite has."""
    used = {person.name.split()[1] for person in people()}
    return tuple(name for name in (*LAST, *NEW_LAST) if name not in used)


def docs() -> Iterator[dict[str, Any]]:
    """The suite's items: `question`, `answer`, `kind`, `wording`, `split`."""
    rng = random.Random(f"{SEED} items")
    for number, person in enumerate(people()):
        split, is_new = split_of_number(number)
        kind = rng.choice(list(WORDINGS))
        wording = choose(rng, *WORDINGS[kind], is_new)
        yield {
            "question": wording.format(person.name),
            "answer": person.facts[kind],
            "kind": kind,
            "wording": wording,
            "split": split,
        }
