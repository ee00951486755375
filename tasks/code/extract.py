"""The program that a response means: text that Python can be given. Nothing is executed here."""

from __future__ import annotations

import ast
import re
import textwrap

_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)

# No answer to these tasks comes near. Python's parser takes seconds for a megabyte, and it is asked up to forty times.
_LONGEST = 50_000


def program(response: str, entry_point: str, prompt: str) -> str:
    """The program in a response that was asked to complete `prompt`, which ends in the head of `entry_point`.

    The last code block (closed or not) that defines the entry point, behind the prompt's imports and helpers; if none
    does, the same of the whole response; else the prompt with the last block, or the response, as the function's body.
    """
    blocks = _BLOCK.findall(response)
    if len(response) > _LONGEST:
        return prompt + _body(blocks[-1] if blocks else response)
    for text in [*map(textwrap.dedent, reversed(blocks)), response]:  # a block inside a list item is indented
        if (whole := _parsable(text)) is not None and _defines(whole, entry_point):
            return _preamble(prompt, entry_point) + whole
    # Nothing parses: a block that was meant as the whole function fails as such, not as a body.
    for text in reversed(blocks):
        if re.search(rf"^[ \t]*(async\s+)?def\s+{re.escape(entry_point)}\b", text, re.MULTILINE):
            return _preamble(prompt, entry_point) + text
    return prompt + _body(blocks[-1] if blocks else response)


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


def _preamble(prompt: str, entry_point: str) -> str:
    """The prompt's imports and helper functions, without the function that is asked for."""
    tree = _parse(prompt)
    if tree is None:  # a bare head, such as "def solve():"
        return ""
    kept = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == entry_point)]
    return "".join(ast.unparse(node) + "\n" for node in kept) + "\n"


def _body(text: str) -> str:
    """A function body that continues the prompt: indented once where it was written at the margin."""
    lines = text.strip("\n").split("\n")
    if lines[0].startswith((" ", "\t")):
        return "\n".join(lines) + "\n"
    return "".join("    " + line + "\n" for line in lines)
