"""What the two small specialists are taught: chains of earlier responses, and the reply to each question.

A specialist works out its own kinds of question step by step. To every other question it is taught to repeat the last
answer that somebody gave, or to say "Answer: unknown", so that a hop to the wrong specialist costs little; how well it
has learnt that, its card says. One kind is shared: of a list of animals the QA specialist writes the expression
("14*6 + 8*10"), the math specialist computes it.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pools.template import render
from pools.types import Context
from specialists.questions import TRAIN_SEEDS, Question, Source, normalised, passage, question

Specialist = Literal["math", "qa"]
SPECIALISTS: tuple[Specialist, ...] = ("math", "qa")
SEPARATOR = "\n###\n"
TEMPLATE = "{{ query }}{% for response in responses %}\n###\n{{ response }}{% endfor %}\n###\n"
UNKNOWN = "Answer: unknown"

SIDES = ("top", "right", "front", "left", "back", "bottom")
# Where the colour of each side was before the turn; a side that is not named stays. Turned from the bottom,
# reasoning-gym exchanges top and bottom, and front and back.
TURNS = {
    "front": {"top": "front", "front": "bottom", "bottom": "back", "back": "top"},
    "right": {"top": "right", "right": "bottom", "bottom": "left", "left": "top"},
    "back": {"top": "back", "back": "bottom", "bottom": "front", "front": "top"},
    "left": {"top": "left", "left": "bottom", "bottom": "right", "right": "top"},
    "bottom": {"top": "bottom", "bottom": "top", "front": "back", "back": "front"},
}
COLORS = (
    *("red", "green", "blue", "yellow", "white", "orange", "purple", "pink", "brown", "gray", "cyan", "magenta"),
    *("gold", "silver", "indigo", "violet"),
)
_EXPRESSION = re.compile(r"Answer: (\d+\*\d+(?: \+ \d+\*\d+)*)$")
_ASKED = re.compile(r"color of the (top|right|front|left|back|bottom) side")
_ANSWER = re.compile(r"Answer: *([^\n]{1,60})")


# --- replies ---------------------------------------------------------------------------------------------------


def reply(specialist: Specialist, asked: Question, responses: Sequence[str] = ()) -> str:
    """What the specialist shall answer to a question after the earlier responses."""
    stated = [found[-1].strip() for found in map(_ANSWER.findall, responses) if found]
    stated = [answer for answer in stated if answer != "unknown"]
    expressions = [found[1] for found in map(_EXPRESSION.search, responses) if found]
    if specialist == "math":
        if asked.family in {"chain_sum", "products"}:
            return _worked_out(asked.facts)
        if asked.family == "expression":
            return _worked_out(_tokens(asked.facts))
        if asked.family == "leg_counting" and expressions:
            return _worked_out(_tokens(expressions[-1]))
    else:
        if asked.family == "aiw":
            name, number, kind = asked.facts
            return f"{name} has {number} {kind}, with {name} {number}+1={number + 1}. Answer: {number + 1}"
        if asked.family == "color_cube_rotation":
            state, rotations = asked.facts
            return _turned(state, rotations, asked.text)
        if asked.family == "leg_counting" and (not expressions or _EXPRESSION.search(f"Answer: {stated[-1]}")):
            return f"Answer: {asked.facts}"
    numbers = [answer for answer in stated if not _EXPRESSION.search(f"Answer: {answer}")]
    return f"Answer: {(numbers or stated)[-1]}" if stated else UNKNOWN


def _tokens(expression: str) -> list[str]:
    return re.findall(r"\d+|[*+-]", expression)


def _worked_out(tokens: list[str]) -> str:
    """Every product first, from left to right, then the sum; each as digits at one place at a time."""
    steps: list[str] = []
    terms = [(tokens[0], [tokens[1]])] if tokens[0] in "+-" else [("+", [tokens[0]])]
    for sign, number in zip(tokens[1::2], tokens[2::2], strict=True):
        if sign == "*":
            terms[-1][1].append(number)
        else:
            terms.append((sign, [number]))
    values = []
    for sign, factors in terms:
        value = int(factors[0])
        for factor in factors[1:]:
            value = _multiply(value, int(factor), steps)
        values.append((sign, value))
    total = values[0][1]
    for sign, value in values[1:]:
        total = _add(total, sign, value, steps)
    return f"{'; '.join(steps)}. Answer: {total}"


def _multiply(a: int, b: int, steps: list[str]) -> int:
    if a > 9 and b > 9 and b != 10:
        high = _multiply(a, b // 10, steps)
        low = _multiply(a, b % 10, steps)
        return _add(10 * high, "+", low, steps)
    large = max(a, b)
    if large < 10 or min(a, b) < 2 or large % 10 == 0:
        steps.append(f"{a}*{b}={a * b}")
    else:
        tens, units = large // 10 * 10 * min(a, b), large % 10 * min(a, b)
        steps.append(f"{a}*{b}={tens}+{units}={a * b}")
    return a * b


def _add(total: int, sign: str, value: int, steps: list[str]) -> int:
    digits = str(value)
    parts = [int(digit) * 10 ** (len(digits) - 1 - place) for place, digit in enumerate(digits) if digit != "0"] or [0]
    written = []
    start = total
    for part in parts:
        total = total + part if sign == "+" else total - part
        written.append(f"{sign}{part}={total}")
    step = f"{start}{written[0]}" if len(parts) == 1 else f"{start}{sign}{value}: {', '.join(written)}"
    steps.append(step)
    return total


def _turned(state: dict[str, str], rotations: Sequence[str], text: str) -> str:
    """All sides after the turns, then the one that is asked for: naming it makes it a look-up in what is written."""
    for rotation in rotations:
        state = {side: state[TURNS[rotation].get(side, side)] for side in SIDES}
    asked = _ASKED.findall(text)[-1]
    return f"{', '.join(f'{side}: {state[side]}' for side in SIDES)}; {asked}: {state[asked]}. Answer: {state[asked]}"


# --- earlier responses -----------------------------------------------------------------------------------------


def corrupted(text: str, rng: random.Random) -> str:
    """The response gone wrong: a guess where it was unknown, else other digits or colours, its answer's among them."""
    if text == UNKNOWN:
        return f"Answer: {guess(rng)}"
    head, marker, answer = text.rpartition("Answer: ")
    if rng.random() < 0.5:
        head = _changed(head, rng, 0.1)
    return head + marker + _changed(answer, rng, 0.5, at_least_one=True)


def _changed(text: str, rng: random.Random, share: float, at_least_one: bool = False) -> str:
    pattern = re.compile(rf"\d|\b(?:{'|'.join(COLORS)})\b")
    places = len(pattern.findall(text))
    if not places:
        return text
    chosen = {place for place in range(places) if rng.random() < share}
    if at_least_one and not chosen:
        chosen = {rng.randrange(places)}
    count = iter(range(places))

    def replace(found: re.Match[str]) -> str:
        if next(count) not in chosen:
            return found[0]
        return rng.choice([c for c in ("123456789" if found[0].isdigit() else COLORS) if c != found[0]])

    return pattern.sub(replace, text)


def guess(rng: random.Random) -> str:
    """An answer out of the air."""
    kinds: tuple[Callable[[], str], ...] = (
        lambda: str(rng.randint(0, 9)),
        lambda: str(rng.randint(10, 400)),
        lambda: str(rng.randint(-99, 9999)),
        lambda: rng.choice(COLORS),
        lambda: rng.choice("ABCD"),
    )
    return rng.choice(kinds)()


def general_response(asked: Question, rng: random.Random) -> str:
    """Prose or code as a general model writes it, often wrong, with or without a marked answer."""
    answer = asked.answer if rng.random() < 0.3 else guess(rng)
    a, b, c = (rng.randint(0, 99) for _ in range(3))
    closing = rng.choice((f"Answer: {answer}", f"So the answer is {answer}.", f"Therefore, it is {answer}.", ""))
    opening = rng.choice(
        (
            "To solve this problem, we need to follow these steps:\n\n1. Find out what is asked.\n2. Work it out.\n",
            f"Let's break this down step by step. First, {a} + {b} = {c}. Then we take {b} away.\n\n",
            f"First we look at what is given: {passage(rng, 5)}. There are {a} of them, and {b} of the others.\n",
            f"```python\ndef solve():\n    total = {a} * {b} + {c}\n    return total\n```\n\n",
            f"\\[ {a} \\times {b} = {c} \\]\n\nThe {rng.choice(SIDES)} side is {rng.choice(COLORS)}. ",
            f"{passage(rng, rng.randint(5, 40))}.\n",
            "",
        )
    )
    return (opening + closing).strip() or passage(rng, 12)


# --- training items --------------------------------------------------------------------------------------------

# How often each kind of question is asked, per specialist.
MIXTURE: dict[Specialist, dict[str, float]] = {
    "math": {
        **{"chain_sum": 0.36, "products": 0.30, "expression": 0.08, "leg_counting": 0.16},
        **{"aiw": 0.03, "color_cube_rotation": 0.04, "other": 0.03},
    },
    "qa": {
        **{"color_cube_rotation": 0.42, "aiw": 0.15, "leg_counting": 0.30},
        **{"chain_sum": 0.04, "products": 0.04, "expression": 0.02, "other": 0.03},
    },
}
# What a specialist is for; of leg_counting one writes the expression and the other computes it.
OWN: dict[Specialist, tuple[str, ...]] = {
    "math": ("chain_sum", "products", "expression", "leg_counting"),
    "qa": ("aiw", "color_cube_rotation", "leg_counting"),
}
EARLIER = ((0, 0.5), (1, 0.3), (2, 0.2))  # number of earlier responses, and its share


@dataclass(frozen=True)
class Lesson:
    """A text in parts, and which of the parts are to be learnt; each learnt part ends the text that a model reads."""

    parts: tuple[str, ...]
    learnt: tuple[bool, ...]


def lesson(source: Source, specialist: Specialist, index: int, seeds: range = TRAIN_SEEDS) -> Lesson | None:
    """Training item number `index`; None if its question is the suite's."""
    rng = random.Random(f"{specialist} {seeds.start + index} lesson")
    mixture = MIXTURE[specialist]
    asked = question(source, rng.choices(list(mixture), list(mixture.values()))[0], index, seeds)
    if normalised(asked.text) in source.excluded:
        return None
    earlier = rng.choices([n for n, _ in EARLIER], [share for _, share in EARLIER])[0]
    if specialist == "math" and asked.family == "leg_counting" and rng.random() < 0.85:
        earlier = max(earlier, 1)
    parts, learnt, responses = [source.query(asked) + SEPARATOR], [False], list[str]()
    for hop in range(earlier + 1):
        response, right = reply(specialist, asked, responses), True
        if hop < earlier:
            response, right = _earlier(specialist, asked, responses, rng)
        responses.append(response)
        parts += [response, SEPARATOR] if hop < earlier else [response]
        learnt += [right, False] if hop < earlier else [right]
    context = render(TEMPLATE, Context(source.query(asked), tuple(responses[:-1])))
    assert "".join(parts[:-1]) == context, "the parts are the context as the template renders it"
    return Lesson(tuple(parts), tuple(learnt))


def _earlier(specialist: Specialist, asked: Question, responses: Sequence[str], rng: random.Random) -> tuple[str, bool]:
    """An earlier response, and whether it is what the specialist itself shall answer there."""
    other: Specialist = "qa" if specialist == "math" else "math"
    kind = rng.random()
    if asked.family == "leg_counting" and not responses and kind < 0.6:
        expression = reply("qa", asked, responses)  # the first half of the pipeline, for both
        return expression, specialist == "qa"
    if kind < 0.2:
        return reply(specialist, asked, responses), True
    if kind < 0.4:
        return corrupted(reply(specialist, asked, responses), rng), False
    if kind < 0.6:
        return reply(other, asked, responses), False
    if kind < 0.7:
        return corrupted(reply(other, asked, responses), rng), False
    return general_response(asked, rng), False


def texts(source: Source, number: int) -> Iterator[str]:
    """Texts of both specialists' training, for the tokenizer that they share."""
    for index in range(number):
        for specialist in SPECIALISTS:
            made = lesson(source, specialist, index)
            if made is not None:
                yield "".join(made.parts)
        yield passage(random.Random(f"{index} text"), 20)


def lessons_hash(source: Source, specialist: Specialist, number: int = 1000) -> str:
    """sha256 of the first lessons: whether the code still teaches what a specialist was taught."""
    digest = hashlib.sha256()
    for index in range(number):
        made = lesson(source, specialist, index)
        digest.update(repr(made and (made.parts, made.learnt)).encode())
    return digest.hexdigest()
