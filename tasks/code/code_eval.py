"""The metric `code_eval` of Hugging Face's `evaluate`, computed in the sandbox.

lm-eval's HumanEval and MBPP load it from the hub, and it executes what models write in processes of the caller's own.
While such a task is loaded, `sandboxed_code_eval` hands it this one instead: nothing is downloaded, and programs have
only what the sandbox gives them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.code.sandbox.session import Session

NAME = "code_eval"


class CodeEval:
    """pass@k of programs (Chen et al. 2021, arXiv 2107.03374)."""

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1, 10, 100)
    ) -> tuple[dict[str, float], dict[int, list[bool]]]:
        """pass@k over the references for each k that has enough programs, and which programs passed, by reference.

        references: tests, one text each. predictions: programs for each.
        """
        passed = {
            number: [passes(program, test) for program in programs]
            for number, (test, programs) in enumerate(zip(references, predictions, strict=True))
        }
        enough = [size for size in k if all(len(of_test) >= size for of_test in passed.values())]
        return {
            f"pass@{size}": sum(_pass_at(size, of_test) for of_test in passed.values()) / len(passed) for size in enough
        }, passed


def passes(program: str, test: str) -> bool:
    """Whether a program, and then its test, run to their end without an error; as in `evaluate`, in one interpreter.

    So a program that means to can pass without solving anything; `tasks.code.grade` keeps tests out of its reach.
    """
    with Session("answer") as session:
        return session.define(f"{program}\n{test}") is None


def _pass_at(k: int, passed: Sequence[bool]) -> float:
    """How likely one of k programs passes that are drawn without replacement: 1 - C(n - c, k) / C(n, k)."""
    failed = len(passed) - sum(passed)
    return 1.0 - math.comb(failed, k) / math.comb(len(passed), k)


def uses_code_eval(task_file: Path) -> bool:
    """Whether the functions beside a task's file run programs through `code_eval`."""
    functions = task_file.with_name("utils.py")
    return functions.is_file() and f'load("{NAME}")'.encode() in functions.read_bytes()


@contextlib.contextmanager
def sandboxed_code_eval() -> Iterator[None]:
    """`evaluate.load("code_eval")` gives a `CodeEval` meanwhile."""
    import evaluate

    load = evaluate.load

    def found(path: str, *positional: Any, **named: Any) -> Any:
        return CodeEval() if path == NAME else load(path, *positional, **named)

    evaluate.load = found
    try:
        yield
    finally:
        evaluate.load = load
