"""Write the pages of docs/reference that are made from the code: `python docs/make_reference.py`."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
from docstring_parser import parse_from_object

from harness.cli.app import COMMANDS
from harness.evaluation.summary import Summary
from harness.report.leaderboard.entry import Entry
from pools.schema import Schema
from routers.registry import ROUTERS, describe, names, router_options

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
COMMANDS_HEAD = """# Commands

`python -m harness COMMAND [options]`; `python -m harness COMMAND --help` says the same on the screen. Bad input
ends with one line and exit code 2. In brackets after an option is its default; `...` stands for one or several values.
This page is made from the code by `python docs/make_reference.py`.
"""
ROUTERS_HEAD = """# Routers and their options

What `--router` takes: a name, for some with `:ARGUMENT` behind it, as in `single:reader`; or a file of your own
([guide](../guides/routers.md)). Options are given as `--router-args name=value,name=value`, from Python as
`router_args={"NAME": {"name": value}}`. In brackets is an option's default.
This page is made from the code by `python docs/make_reference.py`.
"""
_PLAIN = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "NoneType": "null"}


def pages() -> dict[str, str]:
    """The pages by their names."""
    described = {"summary.md": _page(SUMMARY, Summary), "leaderboard.md": _page(ENTRY, Entry)}
    return {**described, "commands.md": commands(), "routers.md": routers()}


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


def commands() -> str:
    """The page on the command line: a section per command, its own options first and then those that it shares."""
    return "\n".join([COMMANDS_HEAD, *map(_command, COMMANDS)])


def _command(command: type) -> str:
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", command.__name__).lower()
    says: dict[str, str] = {}
    for each in command.__mro__[:-1]:
        says = {**says, **{param.arg_name: param.description or "" for param in parse_from_object(each).params}}
    hints = typing.get_type_hints(command, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(command)}
    options = [_option(fields[each], hints[each], text) for each, text in says.items()]
    about = "\n\n".join(_with_flags(_line(part)) for part in (command.__doc__ or "").split("\n\n"))
    return "\n".join([f"## `{name}`", "", about, "", *options, ""])


def _option(field: dataclasses.Field[Any], hint: Any, says: str) -> str:
    """What an option takes, its default, and what it is for, as an item of a list."""
    values = _values(hint)
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    positional = required or tyro.conf.Positional in getattr(hint, "__metadata__", ())
    flag = f"--{'no-' if field.default is True else ''}{field.name.replace('_', '-')}"
    shown = (values or field.name.upper()) if positional else f"{flag} {values}".rstrip()
    return f"- `{shown}`{_default(field.default)}: {_with_flags(_line(says))}"


def _default(value: Any) -> str:
    if isinstance(value, bool) or value in (None, (), "", dataclasses.MISSING):
        return ""
    return f" (`{' '.join(map(str, value)) if isinstance(value, tuple) else value}`)"


def _values(hint: Any) -> str:
    """What stands behind an option: nothing for a switch, the choices, or the kind of value."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _values(parts[0])
    if origin in (typing.Union, types.UnionType):
        kind = next(part for part in parts if part is not types.NoneType)
        return "{True,False}" if kind is bool else _values(kind)
    if origin is Literal:
        return f"{{{','.join(map(str, parts))}}}"
    if origin is tuple:
        return f"{_values(parts[0])} ..."
    return {bool: "", int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}.get(hint, "VALUE")


def _with_flags(text: str) -> str:
    """The text with the options that it names as code, and nothing that reads as HTML."""
    return re.sub(r"(?<![\w`-])--[a-z][a-z-]+", r"`\g<0>`", text.replace("<", "&lt;"))


def routers() -> str:
    """The page on routers: a section for those without options, then one for each that has some."""
    ours = [name for name in names() if ROUTERS.entry(name)[1].__module__.startswith("routers.")]
    plain = [name for name in ours if not _options(name)]
    rest = [name for name in ours if name not in plain]
    listed = [f"- `{name}`: {_with_flags(_line(describe(name)))}" for name in plain]
    return "\n".join([ROUTERS_HEAD, "## Without options", "", *listed, "", *map(_router, rest)])


def _router(name: str) -> str:
    return "\n".join([f"## `{name}`", "", _with_flags(_line(describe(name))), "", *_options(name), ""])


def _options(name: str) -> list[str]:
    return [f"- `{o.name}`, {o.type} (`{o.default}`): {_with_flags(_line(o.doc))}" for o in router_options(name)]


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
