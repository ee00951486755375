"""`code_eval` in the sandbox: which programs pass, and pass@k by enumeration."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import evaluate
import pytest

from tasks.code import code_eval
from tasks.code.code_eval import CodeEval, passes, sandboxed_code_eval, uses_code_eval

TEST = "assert twice(3) == 6"


@pytest.mark.parametrize(
    ("program", "passed"),
    [
        ("def twice(x):\n    return 2 * x", True),
        ("class Two:\n    pass\n\ntwice = lambda x: x + x", True),
        ("def twice(x):\n    return 3 * x", False),
        ("def twice(x) return 2 * x", False),
        ("def twice(x):\n    return 2 * x\nraise SystemExit(0)", False),
        ("import os\nos._exit(0)", False),
        ("import numpy\ndef twice(x):\n    return 2 * x", False),
        ("", False),
    ],
)
def test_a_program_passes_if_it_and_the_test_run_to_their_end(program: str, passed: bool) -> None:
    assert passes(program, TEST) is passed


def test_pass_at_k_is_the_share_of_draws_with_one_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_eval, "passes", lambda program, test: program == "right")
    of_tests = [["right", "wrong", "right", "wrong", "wrong"], ["wrong"] * 5, ["right"] * 4]
    found, passed = CodeEval().compute(["", "", ""], of_tests, k=[1, 2, 4, 5])
    for k in (1, 2, 4):
        shares = [
            sum("right" in draw for draw in draws) / len(draws)
            for draws in (list(combinations(programs, k)) for programs in of_tests)
        ]
        assert found[f"pass@{k}"] == pytest.approx(sum(shares) / 3)
    assert set(found) == {"pass@1", "pass@2", "pass@4"}, "of the third there are no five"
    assert passed[0] == [True, False, True, False, False]


def test_only_code_eval_is_replaced_and_only_meanwhile(tmp_path: Path) -> None:
    before = evaluate.load
    with sandboxed_code_eval():
        assert isinstance(evaluate.load("code_eval"), CodeEval)
        with pytest.raises(FileNotFoundError):
            evaluate.load(str(tmp_path / "another"))
    assert evaluate.load is before


def test_which_tasks_run_programs_through_it(tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    assert not uses_code_eval(task)
    (tmp_path / "utils.py").write_text('metric = evaluate.load("exact_match")')
    assert not uses_code_eval(task)
    (tmp_path / "utils.py").write_text('metric = evaluate.load("code_eval")')
    assert uses_code_eval(task)
