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
    lines, content = path.suffix == ".jsonl", path.read_bytes()
    try:
        texts = filter(bytes.strip, content.splitlines()) if lines else [content]
        parsed = [json.loads(text, object_pairs_hook=_once) for text in texts]
    except (ValueError, RecursionError) as error:
        kind = "an object in each line" if lines else "a JSON file"
        raise UserError(f"{path} cannot be read: {error}; expected {kind}, in UTF-8") from None
    rows = parsed if lines else parsed[0]
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise UserError(f"{path} is no list of objects; expected {example}")
    return rows


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError if a key is there twice, of which Python would take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {shown(next(name for name in names if names.count(name) > 1))} is there twice")
    return found
