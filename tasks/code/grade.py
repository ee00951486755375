"""Grades a function that nobody has read against tests that it cannot reach.

The program and the tests never share an interpreter. One sandbox defines the program and answers calls; a second one
runs the data set's `check(candidate)`, where `candidate` sends its arguments to the first and gets a literal back. The
verdict is the second one's word, so nothing the program prints, patches, kills or exits can make a pass: all it can do
is return values, and values of built-in types only. Values are decoded and compared inside the second sandbox, never in
this process: what that costs is limited, too.

Compared with running both by `exec` in one interpreter: a value that is no literal equals nothing (there, an object
with `__eq__` true passes every test); a change that the program makes to its argument in place is not seen by the
test; and only the standard library can be imported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tasks.code.sandbox import _wire as wire
from tasks.code.sandbox.session import Isolation, Limits, Session


@dataclass(frozen=True)
class Verdict:
    """Whether the tests passed, and the first reason why not."""

    passed: bool
    detail: str


def examine(
    program: str,
    entry_point: str,
    definitions: str,
    tests: str,
    limits: Limits | None = None,
    isolation: Isolation | None = None,
) -> Verdict:
    """Run `tests`, which define `check(candidate)`, on the function `entry_point` of `program`.

    `definitions` is trusted text that the tests may use (the prompt's imports and helpers). Never raises for what the
    program does: a huge reply, for one, may end the tests without a verdict, and then the program has failed.
    """
    with Session("answer", limits, isolation) as subject, Session("examine", limits, isolation) as examiner:
        failed = subject.define(program)
        if failed is not None:
            return Verdict(False, failed)
        exam = {"definitions": definitions, "tests": tests, "entry_point": entry_point}
        examiner.send(wire.dump(exam))
        while (line := examiner.receive()) is not None:
            message = json.loads(line)
            if "verdict" in message:
                return Verdict(message["verdict"] is True, message["detail"])
            subject.send(wire.dump({"function": entry_point, **message}))
            # Handed on unread: whether it is well formed is decided inside the second sandbox.
            reply = subject.receive()
            if reply is None:
                return Verdict(False, str(subject.ended))
            examiner.send(reply + b"\n")
        return Verdict(False, f"the tests gave no verdict: {examiner.ended}")
