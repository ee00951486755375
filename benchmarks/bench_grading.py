"""How fast HumanEval's 164 problems are graded: their own solutions, in each isolation that works on this machine.

    python benchmarks/bench_grading.py

Grading is limited by the cores where twice the threads take half the time, up to their number. Beside it stands what
starting two interpreters for each problem, the program's and the tests', takes alone: what grading cannot be faster
than if each sandbox starts Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import tyro

from tasks.code.sandbox.session import Isolation, SandboxUnavailable, Session
from tasks.human_eval.utils import load, verdict


@dataclass(frozen=True)
class Args:
    """What is measured."""

    rounds: int = 3
    """the best counts"""


def best(function: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest of some rounds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def grade(problems: list[Any], isolation: Isolation, threads: int) -> None:
    """Grade the solutions that come with the problems; all have to pass."""
    with ThreadPoolExecutor(threads) as pool:
        solutions = [doc["prompt"] + doc["canonical_solution"] for doc in problems]
        verdicts = pool.map(lambda doc, text: verdict(doc, text, isolation=isolation), problems, solutions)
        assert all(each.passed for each in verdicts)


def start_interpreters(number: int, threads: int) -> None:
    """Start Python so many times, as a sandbox of its own process would: without site-packages."""
    python = getattr(sys, "_base_executable", None) or sys.executable
    command = [python, "-s", "-S", "-P", "-B", "-c", "import contextlib, ctypes, json, resource, signal, typing"]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: subprocess.run(command, check=True), range(number)))


def main() -> None:
    """Measure and print."""
    args = tyro.cli(Args, description=__doc__)
    problems, cores = list(load()["test"]), os.cpu_count() or 1
    for isolation in get_args(Isolation):
        try:
            Session(isolation=isolation).close()
        except SandboxUnavailable as reason:
            print(f"{isolation}: left out, {reason}")
            continue
        one, all_ = (best(partial(grade, problems, isolation, n), args.rounds) for n in (1, cores))
        print(f"{isolation}: {one:.2f} s in one thread, {all_:.2f} s in {cores}", flush=True)
    starts = best(lambda: start_interpreters(2 * len(problems), cores), args.rounds)
    print(f"starting {2 * len(problems)} interpreters in {cores} threads: {starts:.2f} s")


if __name__ == "__main__":
    main()
