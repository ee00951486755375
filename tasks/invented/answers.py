"""The answer that a response states, or that its program returns, and whether it is right."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.code.extract import program
from tasks.code.grade import examine

ENTRY_POINT, HEAD = "solve", "def solve():\n"
LONGEST = 50_000  # characters from the end that are looked at
_PROGRAM = re.compile(r"^\s*def\s+solve\s*\(", re.MULTILINE)
_STATED = re.compile(r"\banswer[ *_]{0,4}:[ \t*_]{0,4}([^\n]{1,200})", re.IGNORECASE)


def extract(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Filter: of each response the program `solve()`, if it writes one, else the last answer that it states, or ""."""
    return [[_meant(response[-LONGEST:]) for response in responses] for responses in resps]


def _meant(response: str) -> str:
    if _PROGRAM.search(response):
        return program(response, ENTRY_POINT, HEAD)
    stated = _STATED.findall(response)
    return str(stated[-1]).strip(" \t*_.`$") if stated else ""


def grade(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score of one document: 1.0 if the answer is stated, or returned by the program, else 0.0."""
    if not _PROGRAM.search(results[0]):
        return {"exact_match": float(says(results[0].replace(",", ""), doc["answer"]))}
    definitions = f"from __future__ import annotations\n{inspect.getsource(says)}"
    tests = f"def check(candidate):\n    assert says(candidate(), {doc['answer']!r})\n"
    return {"exact_match": float(examine(results[0], ENTRY_POINT, definitions, tests).passed)}


def says(value: Any, answer: str) -> bool:
    """Whether what was stated or returned is the answer: as a number of its value, or as text."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return answer.isdigit() and value == int(answer)
    return isinstance(value, str) and value.strip().lower() == answer.lower()
