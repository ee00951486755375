"""Numbers as people write them: with the digits 0 to 9 and nothing that only Python reads as a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tyro.constructors import ConstructorRegistry

_N = TypeVar("_N", int, float)


def read_number(text: str, kind: type[_N]) -> _N:
    """The number that a text writes.

    Raises ValueError if it writes none, or one that `int` and `float` take and a reader may take for another:
    `1_000`, digits of other scripts, white space around it.
    """
    if not text.isascii() or "_" in text or text != text.strip():
        raise ValueError(f"{text!a} is no number in the digits 0 to 9 alone, as 1000 or 0.5")
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!a} is no {'whole number' if kind is int else 'number'}") from None


def counted(number: int, noun: str) -> str:
    """How many of something, in words: `1 router`, `2 routers`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def number_arguments() -> ConstructorRegistry:
    """What makes tyro read the numbers of a command line so."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[float] | None:
        kind = info.type
        if kind is not int and kind is not float:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=kind.__name__.upper(),
            instance_from_str=lambda arguments: read_number(arguments[0], kind),
            is_instance=lambda value: isinstance(value, int if kind is int else int | float),
            str_from_instance=lambda value: [str(value)],
        )

    return registry
