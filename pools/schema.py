"""What all file formats share: pydantic models that are strict and frozen, and their errors in one line."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pools.errors import shown

_S = TypeVar("_S", bound="Schema")


class Schema(BaseModel):
    """A value with a file format. Field docstrings are its documentation; numbers are finite; nothing is converted."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


def parse_json(schema: type[_S], content: str | bytes) -> _S:
    """The value that a JSON text holds. Raises ValueError, whose text is one line, where it holds none."""
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(one_line(error)) from None


def one_line(error: ValidationError) -> str:
    """What is wrong first: where, what was expected, what was given."""
    first: Any = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    said = str(first["msg"]).removeprefix("Value error, ")
    given = "" if first["type"] in ("missing", "value_error", "json_invalid") else f", got {shown(first['input'])}"
    return f"{where}: {said}{given}" if where else f"{said}{given}"
