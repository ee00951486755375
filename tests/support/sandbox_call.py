"""One call of a function that nobody has read, as the tests of the sandbox make it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.code.sandbox import _wire as wire
from tasks.code.sandbox.session import Isolation, Limits, Session


@dataclass(frozen=True)
class Reply:
    """A value, or the reason why there is none."""

    value: Any = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


def call(
    source: str,
    function: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    isolation: Isolation | None = None,
) -> Reply:
    """Define `source` in a sandbox and call one of its functions."""
    with Session("answer", limits, isolation) as session:
        failed = session.define(source)
        if failed is not None:
            return Reply(error=failed)
        named = {name: wire.encode(value) for name, value in (kwargs or {}).items()}
        session.send(wire.dump({"function": function, "args": wire.encode(list(args)), "kwargs": named}))
        line = session.receive()
    reply = {"error": session.ended} if line is None else json.loads(line)
    return Reply(error=reply["error"]) if "error" in reply else Reply(wire.decode(reply["value"]))
