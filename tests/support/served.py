"""What the tests of `serve` ask: the command in a process of its own, and models that answer as a test wants."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
from harness.__main__ import main
from harness.serving import routed as opening
from harness.serving.routed import Routed
from pools.cost import paper_cost
from pools.pool import load_pool
from pools.types import Context, Generation, GenerationSettings
from routers import RouterRequest, load

ROOT = Path(harness.__file__).parent.parent
COMMAND = ("-m", "harness")


class Model:
    """Answers as `answers` says; `asked` are the queries of all calls."""

    def __init__(self, answers: Callable[[str], str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def generate(self, model: int, requests: list[tuple[Context, GenerationSettings]]) -> list[Generation]:
        self.asked += [context.query for context, _ in requests]
        return [Generation(self.answers(context.query), 10, 2, "stop", 0.0) for context, _ in requests]


def routed(model: Model, max_hops: int = 1) -> Routed:
    router = load("pipeline:" + ">".join(["a"] * max_hops), RouterRequest(models=("a", "b"), max_hops=max_hops))
    return Routed("p", router, load_pool("lightweight"), model, paper_cost((1.0, 1.0, 1.0), "u"), max_hops)


def chat(query: str, model: str = "m", **more: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"model": model, "messages": [{"role": "user", "content": query}], **more}


@contextmanager
def serving(
    *arguments: object, command: tuple[str, ...] = COMMAND, said: list[str] | None = None, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address. If the test does not end it, SIGTERM does, and it has to end well.

    said: gets the lines that it prints until it listens, its address last.
    """
    said = [] if said is None else said
    process = subprocess.Popen(
        [sys.executable, "-u", *command, "serve", "--port", "0", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:  # models that are loaded are told of before
            said.append(line)
            if found := re.search(r"at (http://\S+)/v1", line):
                break
        else:
            raise AssertionError("".join(said) + process.stderr.read())
        yield process, found[1]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (0, ""), out
            assert "every request that was taken is answered" in out
    finally:
        process.kill()
        process.wait()


SLOW = (__file__,)
"""The command, with models that answer "5 100" after 5 seconds with 100 characters."""


def _slow(query: str) -> str:
    seconds, characters = map(float, query.split())
    time.sleep(seconds)
    return "x" * int(characters)


if __name__ == "__main__":
    opening.routed = lambda *_, **__: routed(Model(_slow))
    main()
