"""The answer that a response states, or that its program returns, and whether it is right."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.code.extract import program
from tasks.code.grade import examine

ENTRY_POINT, HEAD = "solve", "def solve():\n"
MAX_CHARACTERS = 50_000  # characters from the end that are looked at
MAX_LINE = 2_000  # characters behind a marker
MARKERS = 20  # of a kind, from the end

_PROGRAM = re.compile(r"^[ \t]*def[ \t]+solve[ \t]*\(", re.MULTILINE)
# In order of authority. Between "answer" and its colon: markdown's emphasis, nothing else.
_MARKERS = (
    re.compile(r"\banswer[\s*_]{0,4}[:=]", re.IGNORECASE),
    re.compile(r"\\boxed\s{0,2}\{"),
    re.compile(r"\banswer\s{1,4}is\b\s{0,4}:?", re.IGNORECASE),
)
# A minus is a sign only where no operand stands before it: "9-4" holds 9 and 4.
_NUMBER = re.compile(r"(?:(?<![\w).])[-+])?(?<![\w.,])(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])|[0-9]+)(?:\.[0-9]+)?")
_MARKUP = re.compile(r"\\(?:boxed|text|mathrm|mathbf)\s?\{|\\[\[\](),;! ]|[*_`$\"'{}<>]")


def extract(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Filter: of each response the program `solve()`, if it writes one, else the line that states its answer, or ""."""
    return [[_meant(response[-MAX_CHARACTERS:]) for response in responses] for responses in resps]


def _meant(response: str) -> str:
    return program(response, ENTRY_POINT, HEAD) if _PROGRAM.search(response) else stated(response)


def stated(response: str) -> str:
    """The line behind the last "Answer:", else behind `\\boxed{` or "the answer is"; without markup. "" without any."""
    for marker in _MARKERS:
        for found in reversed(list(marker.finditer(response))[-MARKERS:]):
            behind = response[found.end() : found.end() + MAX_LINE]
            lines = (_MARKUP.sub(" ", line).strip() for line in behind.split("\n"))
            line = next((line for line in lines if re.search(r"\w", line)), "")
            if line:  # nothing after it: the marker quotes the question, or the response was cut off
                return line
    return ""


def number(line: str) -> str:
    """The number that a line states: behind its last "=", else the first one. Without commas; "" without any."""
    found = _NUMBER.search(line, line.rfind("=") + 1) or _NUMBER.search(line)
    return found.group().replace(",", "") if found else ""


def grade(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score of one document: 1.0 if the answer is stated, or returned by the program, else 0.0."""
    said, answer = results[0], doc["answer"]
    if _PROGRAM.search(said):
        definitions = f"from __future__ import annotations\n{inspect.getsource(says)}"
        tests = f"def check(candidate):\n    assert says(candidate(), {answer!r})\n"
        return {"exact_match": float(examine(said, ENTRY_POINT, definitions, tests).passed)}
    if answer.isdigit():
        return {"exact_match": float(bool(value := number(said)) and float(value) == int(answer))}
    return {"exact_match": float(says(said.strip(" .()"), answer))}


def says(value: Any, answer: str) -> bool:
    """Whether what was stated or returned is the answer: as a number of its value, or as text."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return answer.isdigit() and value == int(answer)
    return isinstance(value, str) and value.strip().lower() == answer.lower()
