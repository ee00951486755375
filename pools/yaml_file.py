"""A YAML file that somebody wrote, read as plain data, whatever stands in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pools.errors import UserError
from pools.names import did_you_mean

MAX_BYTES = 256_000
# To YAML 1.1 `1:30` is 90, and `010` is 8.
_ODD_NUMBER = re.compile(r"[_:]|^[-+]?0[0-9box]")


def read_yaml(path: Path, what: str) -> Any:
    """The data of a YAML file; no tag constructs anything but plain values. `what` is it, for a UserError: "pool".

    Raises UserError if it cannot be read, is not YAML, uses anchors, or names a key twice.
    """
    return _read(path, what, _Loader.get_single_data)


def _did_you_mean_file(path: Path) -> str:
    """The end of an error on a file that is not there: the one beside it whose name is nearest, if one comes close."""
    try:
        beside = [each.name for each in path.parent.iterdir()]
    except (OSError, ValueError):  # no such folder; a name with a NUL
        return ""
    return did_you_mean(path.name, beside)


def top_level(path: Path, what: str) -> dict[str, str | None]:
    """The keys of a file that another library is to read, whatever its tags; each with its text, if it has one.

    Raises UserError if `read_yaml` would, but for tags.
    """
    node = _read(path, what, _Loader.get_single_node)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {str(key.value): value.value if isinstance(value, yaml.ScalarNode) else None for key, value in pairs}


class _Loader(yaml.SafeLoader):
    """Plain YAML: no anchors, by which a short file stands for as much as one likes, no odd numbers, each key once."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark
        if self.peek_event().anchor:
            raise yaml.MarkedYAMLError(problem="write a value out in place of an anchor or alias", problem_mark=mark)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode):
            node.value.encode()  # half of a surrogate pair is no text
            if node.tag.endswith((":int", ":float")) and _ODD_NUMBER.search(node.value):
                problem = "a number is written as 1_000, 1:30, 010 or 0x10; use the digits 0 to 9, or quote a text"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        elif isinstance(node, yaml.MappingNode):
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if keys.total() > len(keys):
                problem = f"key {keys.most_common(1)[0][0]} is named twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        return node


def _read(path: Path, what: str, read: Callable[[_Loader], Any]) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        hint = _did_you_mean_file(path) if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"cannot read {what} file {path}: {reason}{hint}") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{what} file {path} has more than {MAX_BYTES:,} bytes; expected a short file in YAML")
    try:
        return read(_Loader(content.decode("utf-8")))
    # The constructors of numbers, dates and truth values raise whatever Python does.
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        raise UserError(f"{what} file {path} is not YAML: {_reason(error)}; expected YAML of plain values") from None


def _reason(error: Exception) -> str:
    """What is wrong and where, without the text that stands there: it may be a key."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return re.sub(r"'[^'<]{4,}'", "...", " ".join(filter(None, (error.context, error.problem)))) + place
    return " ".join(str(error).split())[:300]
