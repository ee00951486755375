"""What the fuzz tests share: how many cases, the rule that each must hold, and what the cases are made of.

`HARNESS_FUZZ=1` makes as many cases as the tests say, drawn anew, `HARNESS_FUZZ=20` twenty times as many; without it
there is a tenth of them, the same each time. Each test appends a line of JSON, its subject and its cases, to the file
that `HARNESS_FUZZ_TABLE` names.
"""

from __future__ import annotations

import copy
import faulthandler
import functools
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from harness.__main__ import main
from pools import UserError

FACTOR = float(os.environ.get("HARNESS_FUZZ", 0))
USUAL = 0.1
SECONDS, WAITED = 10, 120  # of the processor, and of the clock, that one case may take unless a test says otherwise
LONGEST = 3000  # characters of the one line


class Hang(Exception):
    """A case took too long."""


@contextmanager
def deadline(seconds: int = SECONDS) -> Iterator[None]:
    """Raise Hang after so much work, or waiting; where no Python code runs any more, end the process with its trace."""

    def stop(*_: object) -> None:
        raise Hang(f"a case took more than {seconds} seconds of work, or {WAITED} seconds")

    before = {kind: signal.signal(kind, stop) for kind in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(WAITED)
    faulthandler.dump_traceback_later(2 * WAITED, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for kind, handler in before.items():
            signal.signal(kind, handler)


def fuzz(subject: str, cases: int, seconds: int = SECONDS) -> Callable[[Any], Any]:
    """Decorates a test that `given` has decorated: so many cases of a subject, each with its deadline, counted."""

    def decorate(test: Any) -> Any:
        inner, count = test.hypothesis.inner_test, [0]

        @functools.wraps(inner)
        def one(*arguments: Any, **named: Any) -> None:
            count[0] += 1
            with deadline(seconds):
                inner(*arguments, **named)

        test.hypothesis.inner_test = one
        test = settings(
            max_examples=max(1, int(cases * (FACTOR or USUAL))),
            derandomize=not FACTOR,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )(test)

        @functools.wraps(test)
        def counted(*arguments: Any, **named: Any) -> None:
            count[0] = 0
            try:
                test(*arguments, **named)
            finally:
                if table := os.environ.get("HARNESS_FUZZ_TABLE"):
                    with Path(table).open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"subject": subject, "cases": count[0]}) + "\n")

        return counted

    return decorate


# --- the rule --------------------------------------------------------------------------------------------------------


def told(call: Callable[[], Any], *given: object) -> Any:
    """What the call returns; None where it raised a UserError that names one of what was `given`.

    Whatever else is raised fails the test.
    """
    try:
        return call()
    except UserError as error:
        assert any(str(one) in str(error) for one in given), f"{error} names none of {given}"
        return None


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def refused(self) -> bool:
        """Whether the input was bad, told in one line; asserts that it ended well or so."""
        assert self.code in (0, 2), self
        if self.code == 0:
            return False
        assert self.err.startswith("harness: ") and self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        assert len(self.err) <= LONGEST and self.err[:-1].isprintable(), self.err
        return True


def command(*arguments: object) -> Ended:
    """The command line in this process, with streams that take nothing but UTF-8, as a terminal's."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: Any = 0
    with mock.patch.multiple(sys, argv=["harness", *map(str, arguments)], stdout=out, stderr=err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    return Ended(int(code or 0), *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]


# --- what cases are made of ------------------------------------------------------------------------------------------

SURROGATES = ("\ud800", "\udfff", "\ude00\ud83d")
_CODE = "</script><b> {{7*7}} {%raw%} &amp; ' \" \\ [bold] [/] %s $x^2$ ```"
ODDITIES = (
    *("", " > ", "\x00", "\x1b[31m", "\x85", "\u2028", "\r", "\n", "\t", "\ufeff", "\u200b", "\u202e", "\u2066"),
    *("e\u0301\u0327", "a" + "\u0300" * 40, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea"),
    *("\ue000", "\ufffe", "\uffff", "\U0010ffff", "\ufdd0", "\ufdfa", "\u0130", "\u00df", "\ufb01", *_CODE.split()),
)


def texts(surrogates: bool = False, pieces: int = 5) -> st.SearchStrategy[str]:
    """Texts of odd pieces; with halves of surrogate pairs, which UTF-8 cannot hold, only where asked for."""
    odd = ODDITIES + SURROGATES if surrogates else ODDITIES
    return st.lists(st.sampled_from(odd) | st.text(max_size=6), max_size=pieces).map("".join)


HUGE = (2**31, 2**63, 2**64, 10**30, 10**350, -1, -(10**350))
NUMBERS = (
    st.sampled_from(HUGE)
    | st.integers()
    | st.floats()
    | st.sampled_from([0, 1, -0.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")])
)


def junk(surrogates: bool = False) -> st.SearchStrategy[Any]:
    """Any plain data."""
    words = texts(surrogates)
    leaves = st.none() | st.booleans() | NUMBERS | words
    return (
        leaves
        | st.lists(leaves, max_size=3)
        | st.dictionaries(words, leaves | st.lists(leaves, max_size=2), max_size=3)
    )


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value, with each of its keys."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in entries:
        yield value, key
        yield from _places(below)


@st.composite
def mutated(draw: Any, value: Any, surrogates: bool = False) -> Any:
    """A copy of plain data in which a few values are replaced, left out, renamed or repeated."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places or draw(st.integers(0, 30)) == 0:
            return draw(junk(surrogates))
        container, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "repeat", "rename"]))
        if how == "remove":
            del container[key]
        elif how == "repeat" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif how == "rename" and isinstance(container, dict):
            container[draw(texts(surrogates))] = container.pop(key)
        else:
            container[key] = draw(junk(surrogates))
    return value


@st.composite
def damaged(draw: Any, whole: bytes) -> bytes:
    """Bytes that were cut, overwritten, moved or lengthened."""
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*(st.integers(0, len(whole)),) * 2)))
        how = draw(st.sampled_from(["cut", "overwrite", "insert", "repeat", "one byte"]))
        if how == "cut":
            whole = whole[:start] + (whole[end:] if draw(st.booleans()) else b"")
        elif how == "repeat":
            whole = whole[:end] + whole[start : start + 1000] + whole[end:]
        elif how == "one byte" and start < len(whole):
            whole = whole[:start] + bytes([draw(st.integers(0, 255))]) + whole[start + 1 :]
        else:
            new = draw(
                st.binary(max_size=30) | st.sampled_from([b"\x00" * 9, b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"\n"])
            )
            whole = whole[:start] + new + whole[start + len(new) if how == "overwrite" else start :]
    return whole
