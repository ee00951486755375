"""A YAML file that somebody wrote, read as plain data, whatever stands in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pools.errors import UserError

# A pool or a suite has a few hundred values. YAML's aliases make a short file stand for as many as one likes.
MAX_BYTES, MAX_VALUES, MAX_LEVELS, MAX_DIGITS = 256_000, 10_000, 50, 400
# To YAML 1.1 `1:30` is 90, and `010` is 8.
_ODD_NUMBER = re.compile(r"[_:]|^[-+]?0[0-9box]")


def read_yaml(path: Path, what: str) -> Any:
    """The data of a YAML file; no tag constructs anything but plain values. `what` is it, for a UserError: "pool".

    Raises UserError where it cannot be read, is not YAML, names a key twice, or stands for too much.
    """
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(_content(path, what).decode("utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {}, MAX_LEVELS)
        return loader.construct_document(node)
    # The constructors of numbers, dates and truth values raise whatever Python does.
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        raise UserError(f"{what} file {path} is not YAML: {_reason(error)}; expected YAML of plain values") from None
    finally:
        if loader is not None:
            loader.dispose()


def check_yaml(path: Path, what: str) -> None:
    """Raise UserError where a file that another library is to read stands for too much."""
    import yaml

    try:
        for node in yaml.compose_all(_content(path, what), yaml.SafeLoader):
            _check(node, {}, MAX_LEVELS)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{what} file {path} is not YAML: {_reason(error)}; expected YAML of plain values") from None


def _reason(error: Exception) -> str:
    """What is wrong and where, without the text that stands there: it may be a key."""
    import yaml

    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return re.sub(r"'[^'<]{4,}'", "...", " ".join(filter(None, (error.context, error.problem)))) + place
    return " ".join(str(error).split())[:300]


def _content(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read {what} file {path}: {reason}") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{what} file {path} has more than {MAX_BYTES:,} bytes; expected a short file in YAML")
    return content


def _check(node: Any, sizes: dict[Any, int | None], levels: int) -> int:
    """How many values a node stands for, with every alias followed. Raises ValueError where they are too many."""
    import yaml

    if node in sizes:
        size = sizes[node]
        if size is None:
            raise ValueError("an alias stands for something that holds itself")
        return size
    if not levels:
        raise ValueError(f"it is nested more than {MAX_LEVELS} deep")
    sizes[node], size = None, 1
    if isinstance(node, yaml.ScalarNode):
        node.value.encode()  # half of a surrogate pair is no text
        if node.tag.endswith(":int") and len(node.value) > MAX_DIGITS:
            raise ValueError(f"a number has more than {MAX_DIGITS} digits")
        if node.tag.endswith((":int", ":float")) and _ODD_NUMBER.search(node.value):
            raise ValueError("a number is written as 1_000, 1:30, 010 or 0x10; use the digits 0 to 9, or quote a text")
    else:
        pairs = isinstance(node, yaml.MappingNode)
        if pairs:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                raise ValueError(f"key {twice} is named twice")
        for below in node.value:
            for part in below if pairs else (below,):
                size += _check(part, sizes, levels - 1)
                if size > MAX_VALUES:
                    raise ValueError(f"it stands for more than {MAX_VALUES:,} values, by its aliases")
    sizes[node] = size
    return size
