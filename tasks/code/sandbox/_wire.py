"""What the two ends of a sandbox say to each other: one JSON object a line.

Values travel as JSON; what JSON lacks is an object with one tagged key (`{"tuple": [...]}`). Only built-in types ever
come out of `decode`, whatever the other side sent, so a hostile value cannot bring its own `__eq__` along. A value that
is no literal (a class instance, a function) arrives as an `Opaque`, which equals nothing. The sizes of numbers, texts
and replies are capped, so that nobody computes for long with what a program returned.
"""

from __future__ import annotations

import itertools
import json
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

MAX_NUMBER = 10_000
"""Characters of one number as it is sent, in hexadecimal or decimal digits; the exponent of a Decimal, too."""
MAX_TEXT = 1_000_000
"""Characters of one text, and of the hexadecimal digits of bytes."""
MAX_VALUES = 100_000
"""Values in one reply, those inside of others included."""
MAX_ITEMS = 50_000
"""Items taken out of a lazy iterable (a generator, `range`) before it is cut off."""


class TooLarge(ValueError):
    """A value is over one of the caps."""


class Opaque:
    """A value that is no literal: equal to nothing; keeps its truth value and, of an iterable, the items."""

    __hash__ = object.__hash__

    def __init__(self, truth: bool, items: list[Any] | None) -> None:
        self._truth = truth
        self._items = items

    def __eq__(self, other: object) -> bool:
        return False

    def __bool__(self) -> bool:
        return self._truth

    def __iter__(self) -> Iterator[Any]:
        if self._items is None:
            raise TypeError("the value is not iterable")
        return iter(self._items)


def encode(value: Any) -> Any:
    """The JSON form of `value`; subclasses of built-in types are sent as the built-in type they extend."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        value = int(value)
        return value if value.bit_length() <= 64 else {"int": hex(value)}  # hex: no limit on digits
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [encode(item) for item in list.__iter__(value)]
    if isinstance(value, tuple):
        return {"tuple": [encode(item) for item in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in dict.items(value)]}
    if isinstance(value, set | frozenset):
        return {"frozenset" if isinstance(value, frozenset) else "set": [encode(item) for item in value]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    # Numbers that compare equal to plain ones; their modules are loaded only if the program loaded them.
    decimal, fractions = sys.modules.get("decimal"), sys.modules.get("fractions")
    if decimal and isinstance(value, decimal.Decimal):
        return {"decimal": str(value)}
    if fractions and isinstance(value, fractions.Fraction):
        return {"fraction": [encode(value.numerator), encode(value.denominator)]}
    try:
        items = [encode(item) for item in itertools.islice(value, MAX_ITEMS)]
    except TypeError:
        items = None
    return {"opaque": [bool(value), items]}


def decode(value: Any) -> Any:
    """The value that `encode` was given.

    Raises TooLarge over a cap; ValueError, TypeError, LookupError or ArithmeticError on what `encode` never makes.
    """
    return _decode(value, iter(range(MAX_VALUES)))


def _decode(value: Any, left: Iterator[int]) -> Any:
    """left: has an item for each value that may still come."""
    if next(left, None) is None:
        raise TooLarge(f"more than {MAX_VALUES} values")
    if isinstance(value, list):
        return [_decode(item, left) for item in value]
    if isinstance(value, str):
        return _text(value, MAX_TEXT)
    if not isinstance(value, dict):
        return value
    ((tag, body),) = value.items()
    if tag == "int":
        return int(_text(body, MAX_NUMBER), 16)
    if tag == "dict":
        return {_decode(key, left): _decode(item, left) for key, item in body}
    if tag == "bytes":
        return bytes.fromhex(_text(body, MAX_TEXT))
    if tag == "complex":
        return complex(float(body[0]), float(body[1]))
    if tag == "decimal":
        from decimal import Decimal

        number = Decimal(_text(body, MAX_NUMBER))
        if abs(number.adjusted()) > MAX_NUMBER:
            raise TooLarge(f"an exponent over {MAX_NUMBER}")
        return number
    if tag == "fraction":
        from fractions import Fraction

        numerator, denominator = _decode(body[0], left), _decode(body[1], left)
        if not isinstance(numerator, int) or not isinstance(denominator, int):
            raise TypeError("a fraction is of whole numbers")
        return Fraction(numerator, denominator)
    if tag == "opaque":
        return Opaque(bool(body[0]), None if body[1] is None else _decode(body[1], left))
    kinds: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
    return kinds[tag](_decode(body, left))


def _text(body: Any, longest: int) -> str:
    if not isinstance(body, str):
        raise TypeError("not a text")
    if len(body) > longest:
        raise TooLarge(f"a number or text of more than {longest} characters")
    return body


def dump(message: dict[str, Any]) -> bytes:
    """One line of the channel."""
    return json.dumps(message).encode("ascii") + b"\n"


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException:  # an exception class of the program may raise in __str__
        return "an exception that cannot be shown"


def _module(name: str) -> types.ModuleType:
    # A module of its own, in sys.modules: dataclasses, pickle and typing look the defining module up by name.
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


def answer(requests: BinaryIO, replies: BinaryIO) -> None:
    """Untrusted side: defines what it is sent as `source`, then answers calls, until the channel closes.

    Requests: `{"source": str}` or `{"function": str, "args": [...], "kwargs": {...}}`. Replies: `{"value": ...}` or
    `{"error": str}`.
    """
    module = _module("solution")
    for line in requests:
        request = json.loads(line)
        try:
            if "source" in request:
                exec(compile(request["source"], "<solution>", "exec"), module.__dict__)
                reply = dump({"value": None})
            else:
                kwargs = {name: decode(item) for name, item in request["kwargs"].items()}
                value = module.__dict__[request["function"]](*decode(request["args"]), **kwargs)
                reply = dump({"value": encode(value)})
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: they are answers like any other
            reply = dump({"error": _describe(error)})
        replies.write(reply)
        replies.flush()


class CandidateError(Exception):
    """The candidate raised, or sent no value."""


def examine(requests: BinaryIO, replies: BinaryIO) -> None:
    """Trusted side: runs `check(candidate)` of a data set's test, where `candidate` asks the other sandbox.

    First request: `{"definitions": str, "tests": str, "entry_point": str}`. It then sends `{"args", "kwargs"}` for
    each call and reads that call's reply; last it sends `{"verdict": bool, "detail": str}`.
    """
    exam = json.loads(requests.readline())

    def candidate(*args: Any, **kwargs: Any) -> Any:
        named = {name: encode(item) for name, item in kwargs.items()}
        replies.write(dump({"args": encode(list(args)), "kwargs": named}))
        replies.flush()
        reply = json.loads(requests.readline() or '{"error": "the program ended"}')
        if "value" not in reply:
            raise CandidateError(str(reply.get("error")))
        return decode(reply["value"])

    module = _module("exam")
    try:
        exec(compile(exam["definitions"], "<definitions>", "exec"), module.__dict__)
        # Some tests call the function by its own name instead of `candidate`.
        module.__dict__[exam["entry_point"]] = candidate
        exec(compile(exam["tests"], "<tests>", "exec"), module.__dict__)
        module.__dict__["check"](candidate)
        verdict = {"verdict": True, "detail": "passed"}
    except BaseException as error:
        verdict = {"verdict": False, "detail": _describe(error)}
    replies.write(dump(verdict))
    replies.flush()
