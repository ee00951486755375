"""What all file formats share: pydantic models that are strict and frozen, and their errors in one line."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pools.errors import UserError, shown

_S = TypeVar("_S", bound="Schema")
_T = TypeVar("_T")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")

# For the dataclasses of what users write: what is misspelt is refused, nothing is converted, numbers are finite.
WRITTEN = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Schema(BaseModel):
    """A value with a file format. Field docstrings are its documentation; numbers are finite; nothing is converted."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def parse_json(schema: type[_S], content: str | bytes) -> _S:
    """The value that a JSON text holds. Raises ValueError, whose text is one line, if it holds none."""
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(one_line(error)) from None


def from_plain(kind: type[_T], data: Any, where: str, secret: tuple[str, ...] = ()) -> _T:
    """The value that plain data, as YAML or JSON give it, stands for. where: names the data in a message.

    secret: keys whose values no message shows. Raises UserError for other data, and for what JSON cannot hold.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(data, allow_nan=False))
    except ValidationError as error:
        raise UserError(f"{where}: {one_line(error, secret)}") from None
    except (TypeError, ValueError, RecursionError):
        raise UserError(
            f"{where}: expected plain data that JSON can hold: texts, finite numbers, lists, and mappings of texts"
        ) from None


def one_line(error: ValidationError, secret: tuple[str, ...] = ()) -> str:
    """What is wrong first: where, what was expected, what was given."""
    found: list[Any] = error.errors(include_url=False)
    # A misspelt key is one that is missing, too.
    first = next((one for one in found if one["type"] in _UNKNOWN), found[0])
    where = ".".join(map(str, first["loc"]))
    if first["type"] in _UNKNOWN:
        return f"unknown key {shown(where)}"
    if first["type"] in ("missing", "missing_argument"):
        return f"`{where}` is missing"
    said = str(first["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    told = first["type"] not in ("value_error", "json_invalid") and not {*map(str, first["loc"])} & {*secret}
    given = f", got {shown(first['input'])}" if told else ""
    if first["type"] == "float_type" and isinstance(first["input"], str):
        given += " (YAML reads 1e-4 as text, 1.0e-4 as a number)"
    return f"{where}: {said}{given}" if where else f"{said}{given}"
