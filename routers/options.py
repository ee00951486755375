"""Options of routers that learn: the fields of a learner, given as `name=value,name=value` (lm-eval's manner)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import Field

from pools.errors import UserError, shown

# Above this, single precision overflows in one step or another.
_MAX = 1e15
Positive = Annotated[float, Field(gt=0, le=_MAX, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=_MAX, allow_inf_nan=False)]


@dataclass(frozen=True)
class Option:
    """One option: its name, type, default and docstring."""

    name: str
    type: str
    default: Any
    doc: str


@cache
def options_of(learner: type) -> list[Option]:
    """The options of a learner, in order; docstrings of fields are those below them in the source."""
    from docstring_parser import parse_from_object

    docs = {
        param.arg_name: " ".join((param.description or "").split())
        for each in reversed(learner.__mro__)
        if dataclasses.is_dataclass(each)
        for param in parse_from_object(each).params
    }
    types = {name: _type_name(hint) for name, hint in get_type_hints(learner).items()}
    return [Option(f.name, types[f.name], _default(f), docs.get(f.name, "")) for f in dataclasses.fields(learner)]


def parse_arguments(text: str) -> dict[str, str]:
    """`name=value,name=value` as a mapping; a list is written in brackets. Raises UserError for another form."""
    found: dict[str, str] = {}
    for part in re.findall(r"(?:\[[^\]]*\]|[^,\[])+", text):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not name or not equals:
            raise UserError(f"--router-args {shown(text)}: expected name=value,name=value, got {shown(part)}")
        if name in found:
            raise UserError(f"--router-args {shown(text)}: {name} is given twice")
        found[name] = value
    return found


def read_options(learner: type, given: Mapping[str, Any], router: str) -> dict[str, Any]:
    """The values of a learner's options, each as its type. Raises UserError for one it has not, or a wrong value."""
    from pydantic import TypeAdapter, ValidationError

    known = [field.name for field in dataclasses.fields(learner)]
    hints, values = get_type_hints(learner, include_extras=True), {}
    for name, value in given.items():
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(f"router {router} has no option {shown(name)}: {hint}it has {', '.join(known) or 'none'}")
        adapter: TypeAdapter[Any] = TypeAdapter(hints[name])
        try:
            if isinstance(value, str) and value.startswith("["):
                values[name] = adapter.validate_json(value)
            else:
                values[name] = adapter.validate_python(None if value == "none" else value)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise UserError(f"router {router}: {name}={shown(value)}: {said}") from None
    return values


def _type_name(hint: Any) -> str:
    name = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    return name.replace("typing.", "").replace("pathlib.", "")


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
