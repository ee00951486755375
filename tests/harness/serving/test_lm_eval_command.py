"""`python -m harness lm-eval` with options that are none; tests/test_documents.py runs its guide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "routed"), "harness: lm-eval: No tasks specified"),
        (("--model", "routed", "--tasks", "sums,smus"), f"sums: add --include_path {ROOT / 'tasks'}\n"),
        (("--model", "routed", "--tasks", "smus"), "lm-eval: Tasks not found: smus\n"),
        (("--model", "routed", "--nothing"), "unrecognized arguments: --nothing"),
    ],
)
def test_what_lm_eval_says_of_its_options_is_a_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "harness", "lm-eval", *arguments]  # it sets up logging for good
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
