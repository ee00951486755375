"""Write the pages of docs/reference that describe the fields of JSON files: `python docs/make_reference.py`."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from docstring_parser import parse_from_object

from harness.evaluation.summary import Summary
from harness.leaderboard.entry import Entry
from pools.schema import Schema

FOLDER = Path(__file__).parent / "reference"
SUMMARY = """# `summary.json`

Every run writes it; `harness.evaluate(...).summary` and `harness.load_run(...).summary` are it.
This page is made from the code by `python docs/make_reference.py`.
"""
ENTRY = """# An entry of a leaderboard

A JSON file in a folder of entries: what a router attained on each item of a recording. `python -m harness leaderboard
RUN` makes entries of runs, checks all and ranks them ([guide](../guides/leaderboard.md)). An entry is refused if its
means are not those of its items (to 1 in a million), if another entry of the same table has other items, and if it is
not at the place that its table and router name: `FOLDER/TABLE/ROUTER.json`.
This page is made from the code by `python docs/make_reference.py`.
"""
_PLAIN = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "NoneType": "null"}


def pages() -> dict[str, str]:
    """The pages by their names."""
    return {"summary.md": _page(SUMMARY, Summary), "leaderboard.md": _page(ENTRY, Entry)}


def _page(head: str, schema: type[Schema]) -> str:
    """A section per schema, the given one first, each with a row per field."""
    return "\n".join([head, *map(_section, _schemas(schema))])


def _section(schema: type[Schema]) -> str:
    """A table of the fields that a schema adds to those it is built on."""
    bases = _bases(schema)
    known = {name for base in bases for name in base.model_fields}
    links = " and ".join(f"[{base.__name__}](#{base.__name__.lower()})" for base in bases)
    says = {param.arg_name: param.description for param in parse_from_object(schema).params}
    rows = [
        f"| `{name}` | {_form(field.annotation)} | {_line(says.get(name))} |"
        for name, field in schema.model_fields.items()
        if name not in known
    ]
    table = ["| field | form | meaning |", "|---|---|---|", *rows, ""] if rows else []
    about = _line(schema.__doc__) + (f" With all of {links}." if bases else "")
    return "\n".join([f"## {schema.__name__}", "", about, "", *table])


def _bases(schema: type[Schema]) -> list[type[Schema]]:
    return [base for base in reversed(schema.__bases__) if base is not Schema]


def _line(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip().replace("|", r"\|")


def _schemas(schema: type[Schema]) -> list[type[Schema]]:
    """A schema and those in its fields, each once, and before each those that it is built on."""
    found: dict[type[Schema], None] = {}

    def visit(annotation: Any) -> None:
        for part in get_args(annotation):
            visit(part)
        if isinstance(annotation, type) and issubclass(annotation, Schema) and annotation not in found:
            for base in _bases(annotation):
                visit(base)
            found[annotation] = None
            for field in annotation.model_fields.values():
                visit(field.annotation)

    visit(schema)
    return list(found)


def _form(annotation: Any) -> str:
    """The JSON form of a type, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _form(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_form, parts))
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is dict:
        return f"object of {_form(parts[1])}"
    if origin in (list, tuple):
        if origin is tuple and Ellipsis not in parts:
            return f"[{', '.join(map(_form, parts))}]"
        return f"list of {_form(parts[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Schema):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return _PLAIN[annotation.__name__]


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
