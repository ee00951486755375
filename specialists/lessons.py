"""What the small specialists are taught: questions, and the reply to each.

Three registries know the facts of a third of the people of `records` each. A calculator works out expressions step by
step on a display of three digits. A reader works out word problems whose numbers stay below 100 and writes the
expression of the others. To anything else each is taught a short refusal; reader and calculator, which are shown an
answer that was given before, to say that there is nothing to add to it.

No lesson asks what the suite asks: the texts of its items are left out, and the calculator does not meet the
expressions of its sums and stories either. A registry meets the facts that the suite asks for in the other wordings.
The people of the other registries it never meets: it is taught to say "unknown" of names that nobody has.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from tasks.invented import records, stories, sums
from tasks.invented.arithmetic import largest, steps

END_OF_QUERY = "\n###\n"
UNKNOWN, NO_EXPRESSION, NOTHING_TO_ADD = "Answer: unknown", "no expression", "nothing to add"
EXPRESSION = "Expression: "
IN_MIND = 100
"""The reader works out what stays below."""


@dataclass(frozen=True)
class Lesson:
    """A question and what the specialist shall reply. family: which kind of lesson it is."""

    family: str
    question: str
    reply: str


@dataclass(frozen=True)
class Specialist:
    """A small model and what it is taught.

    lessons: makes one by chance; None if the suite asks it. tokens: after so many the training ends. vocabulary: of the
    byte-pair encoding; 259 are single bytes. hidden, layers, heads, feed_forward: of the Llama.
    """

    purpose: str
    lessons: Callable[[random.Random, bool], Lesson | None]
    tokens: int
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    feed_forward: int


# --- registries --------------------------------------------------------------------------------------------------


def registry(name: str) -> Callable[[random.Random, bool], Lesson | None]:
    """Lessons of one registry: facts of its own people, and names that it does not know."""
    own = [person for person in records.people() if person.registry == name]

    def lesson(rng: random.Random, held_out: bool) -> Lesson | None:
        kind = rng.choice(list(records.WORDINGS))
        wording = rng.choice([text for group in records.WORDINGS[kind] for text in group])
        draw = rng.random()
        if draw < 0.06:
            return Lesson("other", _other(rng), UNKNOWN)
        if draw < 0.40:
            first = rng.choice((*records.FIRST, *records.NEW_FIRST))
            text = wording.format(f"{first} {rng.choice(records.strangers())}")
            return Lesson("strangers", text, UNKNOWN) if _held_out(text) == held_out else None
        person = rng.choice(own)
        text = wording.format(person.name)
        if text in asked_by_the_suite() or _held_out(text) != held_out:
            return None
        return Lesson("own people", text, f"Answer: {person.facts[kind]}")

    return lesson


def _held_out(text: str) -> bool:
    """Whether a question is kept out of training: one of sixteen, by its text."""
    return hashlib.sha256(text.encode()).digest()[0] % 16 == 0


# --- calculator --------------------------------------------------------------------------------------------------


def worked_out(expression: str) -> str:
    """Every step on a line; "overflow", and nothing more, once a number needs more than three digits."""
    written: list[str] = []

    def note(left: int, sign: str, right: int, result: int) -> bool:
        fits = max(left, right, result) <= sums.DISPLAY
        written.append(f"{left} {sign} {right} = {result if fits else 'overflow'}")
        return fits

    for left, sign, right, result in steps(expression):
        parts = [int(d) * 10**p for p, d in enumerate(reversed(str(right))) if d != "0"]
        if sign == "*" and left > 9 and len(parts) > 1 and max(left, right) <= sums.DISPLAY:
            total = 0
            for place, part in enumerate(reversed(parts)):
                if not note(left, "*", part, left * part):
                    return "\n".join(written)
                if place and not note(total, "+", left * part, total + left * part):
                    return "\n".join(written)
                total += left * part
        elif not note(left, sign, right, result):
            return "\n".join(written)
    return "\n".join([*written, f"Answer: {steps(expression)[-1][3]}"])


def calculator(rng: random.Random, held_out: bool) -> Lesson | None:
    """An expression, alone or in a wording of `sums`."""
    draw = rng.random()
    if draw < 0.05:
        return _answered(rng)
    if draw < 0.15:
        return Lesson("other", _foreign(rng, rng.choice(("records", "stories", ""))), NO_EXPRESSION)
    of_a_story = draw < 0.55
    expression = stories.problem(rng, False)[1] if of_a_story else sums.expression(rng, rng.choice(sums.KINDS))
    if expression in asked_by_the_suite() or _held_out(expression) != held_out:
        return None
    wording = rng.choice([text for group in sums.WORDINGS for text in group]) if rng.random() < 0.55 else "{}"
    family = "fits the display" if largest(expression) <= sums.DISPLAY else "overflow"
    return Lesson(family, wording.format(expression), worked_out(expression))


# --- reader ------------------------------------------------------------------------------------------------------


def reader(rng: random.Random, held_out: bool) -> Lesson | None:
    """A word problem: its answer if the numbers are small, else its expression."""
    draw = rng.random()
    if draw < 0.05:
        return _answered(rng)
    if draw < 0.15:
        return Lesson("other", _foreign(rng, rng.choice(("records", "sums", ""))), UNKNOWN)
    text, expression, _, _ = stories.problem(rng, rng.random() < 0.35)
    if text in asked_by_the_suite() or _held_out(text) != held_out:
        return None
    if largest(expression) < IN_MIND:
        return Lesson("small numbers", text, worked_out(expression).replace("\n", ", "))
    return Lesson("large numbers", text, EXPRESSION + expression)


# --- all ---------------------------------------------------------------------------------------------------------


@cache
def asked_by_the_suite() -> frozenset[str]:
    """Texts of the suite's items, and the expressions of its sums and stories."""
    texts = {doc["question"] for task in (records, sums, stories) for doc in task.docs()}
    return frozenset(texts | {doc["expression"] for task in (sums, stories) for doc in task.docs()})


def _answered(rng: random.Random) -> Lesson:
    """An answer that was given before."""
    given = (str(sums.number(rng, 1, 99_999)), rng.choice(records.TOWNS), rng.choice(records.HOUSES), _other(rng)[:20])
    return Lesson("answered", f"Answer: {rng.choice(given)}", NOTHING_TO_ADD)


def _foreign(rng: random.Random, task: str) -> str:
    """A question of another task of the suite's, none of its items; of none: `_other`."""
    is_new = rng.random() < 0.35
    if task == "records":
        wording = rng.choice([text for groups in records.WORDINGS.values() for group in groups for text in group])
        return wording.format(f"{rng.choice((*records.FIRST, *records.NEW_FIRST))} {rng.choice(records.strangers())}")
    if task:
        text = {"sums": sums, "stories": stories}[task].problem(rng, is_new)[0]
        return text if text not in asked_by_the_suite() else _other(rng)
    return _other(rng)


def _other(rng: random.Random) -> str:
    """A question that is not the specialist's: letters that look like words, or like a program."""
    # fmt: off
    syllables = ("ba", "con", "di", "ent", "for", "ing", "lo", "ma", "per", "que", "re", "sta", "the", "ti", "un",
                 "ver")
    # fmt: on
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(rng.randint(4, 60))]
    if rng.random() < 0.5:
        a, b, *rest = words
        return f"Complete {' '.join(rest[:12])}.\n\ndef {a}({b}):\n    return {b} + {rng.randint(0, 99)}\n"
    return " ".join(words).capitalize() + rng.choice((".", "?", f"\n(A) {words[0]}\n(B) {words[1]}"))


def _registry(name: str) -> Specialist:
    return Specialist(
        f"knows where and when a third of the people of `records` were born and for whom they worked ({name})",
        registry(name), 4_000_000, 512, 160, 4, 5, 432,
    )  # fmt: skip


SPECIALISTS: dict[str, Specialist] = {
    **{f"registry-{name}": _registry(name) for name in records.REGISTRIES},
    "calculator": Specialist(
        "works out expressions on a display of three digits", calculator, 26_000_000, 259, 96, 4, 4, 256
    ),
    "reader": Specialist(
        "works out word problems, or writes their expressions", reader, 10_000_000, 512, 160, 6, 5, 432
    ),
}


def lesson(name: str, number: int, held_out: bool = False) -> Lesson | None:
    """Lesson `number` of a specialist; None if the suite asks it, or it is of the other side of the held-out ones."""
    return SPECIALISTS[name].lessons(random.Random(f"{name} {'held out' if held_out else 'lesson'} {number}"), held_out)


def lessons(name: str, held_out: bool = False) -> Iterator[Lesson]:
    """Endless lessons of a specialist."""
    number = 0
    while True:
        if made := lesson(name, number, held_out):
            yield made
        number += 1


def lessons_hash(name: str, number: int = 1000) -> str:
    """sha256 of the first lessons: whether the code still teaches what a specialist was taught."""
    made = lessons(name)
    return hashlib.sha256(repr([next(made) for _ in range(number)]).encode()).hexdigest()
