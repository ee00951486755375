"""Find the final answer in a response, as text that can be compared exactly.

An explicit "Answer:" decides, the last one if there are several: a response may quote an earlier one. Then `\\boxed{}`,
then "the answer is". Without any of them the last number, or the last allowed word, is taken. Nothing is evaluated,
and no pattern can backtrack over more than a few characters. Knows nothing of the rest of the project, so that
lm-eval can load this file by its path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

# fmt: off
COLORS = frozenset({
    "red", "green", "blue", "yellow", "white", "orange", "purple", "pink", "brown", "gray", "cyan", "magenta", "gold",
    "silver", "indigo", "violet",
})
SMALL_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on
SPELLINGS = {"grey": "gray"}
NUMBER_WORDS = {word: str(number) for number, word in enumerate(SMALL_NUMBERS)}
LONGEST = 50_000  # characters from the end that are looked at
LONGEST_LINE = 2_000  # characters behind a marker
MARKERS = 20  # of a kind, from the end

# In order of authority. Between "answer" and its colon: markdown's emphasis, nothing else.
_MARKERS = (
    re.compile(r"\banswer[\s*_]{0,4}[:=]", re.IGNORECASE),
    re.compile(r"\\boxed\s{0,2}\{"),
    re.compile(r"\banswer\s{1,4}is\b\s{0,4}:?", re.IGNORECASE),
)
# A minus is a sign only where no operand stands before it: "9-4" holds 9 and 4.
_NUMBER = re.compile(r"(?:(?<![\w).])[-+])?(?<![\w.])(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?")
_WORD = re.compile(r"[a-z]+")
_MARKUP = re.compile(r"\\(?:boxed|text|mathrm|mathbf)\s?\{|\\[\[\](),;! ]|[*_`$\"'{}<>]")


def number_answer(response: str) -> str:
    """The response's final number, canonical as of `canonical_number`; "" where there is none."""
    stated, text = _final(response)
    if not stated:
        numbers = _NUMBER.findall(text)
        return canonical_number(numbers[-1]) if numbers else ""
    equals = text.rfind("=")
    numbers = _NUMBER.findall(text, equals + 1)
    if numbers and (equals >= 0 or _NUMBER.match(text)):
        return canonical_number(numbers[0])
    if numbers:
        return canonical_number(numbers[-1])
    word = _WORD.match(text.lower())
    return NUMBER_WORDS.get(word.group(), "") if word else ""


def word_answer(response: str, allowed: Iterable[str]) -> str:
    """The allowed word that the response ends up with, in lower case; "" where there is none."""
    stated, text = _final(response)
    words = [SPELLINGS.get(word, word) for word in _WORD.findall(text.lower())]
    allowed = frozenset(allowed)
    if stated and words and words[0] in allowed:
        return words[0]
    return next((word for word in reversed(words) if word in allowed), "")


def canonical_number(text: str) -> str:
    """A decimal number without thousands commas, plus sign, leading zeros and trailing decimal zeros; no "-0"."""
    negative, digits = text.startswith("-"), text.lstrip("+-").replace(",", "")
    whole, _, decimals = digits.partition(".")
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    value = f"{whole}.{decimals}" if decimals else whole
    return f"-{value}" if negative and value != "0" else value


def _final(response: str) -> tuple[bool, str]:
    """Whether the response states its answer, and the line that does; else the whole response. Without markup."""
    text = response[-LONGEST:].replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")
    for marker in _MARKERS:
        for found in reversed(list(marker.finditer(text))[-MARKERS:]):
            behind = text[found.end() : found.end() + LONGEST_LINE]
            lines = (_MARKUP.sub(" ", line).strip() for line in behind.split("\n"))
            line = next((line for line in lines if re.search(r"\w", line)), "")
            if line:  # nothing after it: the marker quotes the question, or the response was cut off
                return True, line
    return False, _MARKUP.sub(" ", text)


def numbers(resps: Sequence[Sequence[str]], docs: Sequence[dict[str, Any]]) -> list[str]:
    """lm-eval filter: the final number of each document's first response."""
    return [number_answer(responses[0]) for responses in resps]


def colors(resps: Sequence[Sequence[str]], docs: Sequence[dict[str, Any]]) -> list[str]:
    """lm-eval filter: the final colour of each document's first response."""
    return [word_answer(responses[0], COLORS) for responses in resps]
