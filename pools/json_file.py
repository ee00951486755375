"""A JSON file of objects: a list of them, or one in each line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pools.errors import UserError, shown


def read_objects(path: Path, example: str) -> list[dict[str, Any]]:
    """The objects of a list, or in a .jsonl file those of its lines. example: a list that is expected, for messages.

    Raises UserError for anything else, and for a key that is there twice.
    """
    content = path.read_bytes()
    if not content.strip():
        raise UserError(f"{path} is empty; expected {example}")
    if path.suffix == ".jsonl":
        lines = enumerate(content.splitlines(), 1)
        expected = "an object in each line, in UTF-8; correct it, or delete the line if it was cut off"
        rows = [_parsed(line, f"{path}: line {number}", expected) for number, line in lines if line.strip()]
    else:
        rows = _parsed(content, str(path), "a JSON file, in UTF-8")
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise UserError(f"{path} is no list of objects; expected {example}")
    return rows


def _parsed(text: bytes, where: str, expected: str) -> Any:
    """What a JSON text says. Raises UserError for another text."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        said = f"{error.msg}: {place}"
    except (ValueError, RecursionError) as error:
        said = str(error)
    raise UserError(f"{where} cannot be read: {said}; expected {expected}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError if a key is there twice, of which Python would take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {shown(next(name for name in names if names.count(name) > 1))} is there twice")
    return found
