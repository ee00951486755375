"""Program-aided answers as an lm-eval task: the function in a response, and whether it returns the right answer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.code.extract import program
from tasks.code.grade import examine
from tasks.reasoning_gym.items import dataset as items

__all__ = ["extract", "grade", "items"]

ENTRY_POINT, HEAD = "solve", "def solve():\n"


def extract(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Filter: the program in each response, for every document."""
    return [[program(response, ENTRY_POINT, HEAD) for response in responses] for responses in resps]


def grade(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score of one document: 1.0 if its program's `solve()` returns the answer, else 0.0."""
    definitions = f"from __future__ import annotations\n{inspect.getsource(says)}"
    tests = f"def check(candidate):\n    assert says(candidate(), {doc['answer']!r})\n"
    return {"exact_match": float(examine(results[0], ENTRY_POINT, definitions, tests).passed)}


def says(value: Any, answer: str) -> bool:
    """Whether what a program returned is the answer, a whole number: as int, as float of that value, or as text."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return value == int(answer)
    return isinstance(value, str) and value.strip() == answer
