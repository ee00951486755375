"""MBPP as an lm-eval task: the program in a response, and its score."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.code.code_eval import passes
from tasks.code.extract import program


def extract(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Filter: the program in each response, for every document."""
    return [
        [program(response, _tested(doc), "") for response in responses]
        for responses, doc in zip(resps, docs, strict=True)
    ]


def grade(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score of one document: 1.0 if its program passes the three tests, else 0.0."""
    # The set-up may use what the program defines, as a class of nodes.
    return {"pass@1": float(passes(f"{results[0]}\n{doc['test_setup_code']}", "\n".join(doc["test_list"])))}


def _tested(doc: Mapping[str, Any]) -> str:
    """The function that the tests call: of those that the reference defines, the one in the first test."""
    defined = {node.name for node in ast.parse(doc["code"]).body if isinstance(node, ast.FunctionDef)}
    [name, *_] = (
        node.id
        for node in ast.walk(ast.parse(doc["test_list"][0]))
        if isinstance(node, ast.Name) and node.id in defined
    )
    return name
