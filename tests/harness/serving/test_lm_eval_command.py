"""`python -m harness lm-eval`: lm-eval as it is, and the model `routed`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def lm_eval(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it sets up logging for good."""
    command = [sys.executable, "-m", "harness", "lm-eval", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_it_knows_the_model_and_reports_what_it_cost(tiny_tasks: Path, tiny_pool_file: Path, tmp_path: Path) -> None:
    arguments = f"pool={tiny_pool_file},router=pipeline:tiny-a>tiny-b,store={tmp_path / 's.sqlite'}"
    task = ("--tasks", str(tiny_tasks / "tiny_text.yaml"), "--limit", "4", "--output_path", "out")
    done = lm_eval(tmp_path, "--model", "routed", "--model_args", arguments, *task)
    assert done.returncode == 0, done.stderr
    assert "|tiny_text|" in done.stdout
    assert "pipeline:tiny-a>tiny-b: 4 requests, mean cost" in done.stderr
    (results,) = (tmp_path / "out").rglob("results_*.json")
    ledger = json.loads(results.read_text(encoding="utf-8"))["config"]["routed"]
    assert ledger["pipelines"] == {"tiny-a > tiny-b": 1} and ledger["tasks"]["tiny_text"]["requests"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "routed"), "harness: lm-eval: No tasks specified"),
        (("--model", "routed", "--nothing"), "unrecognized arguments: --nothing"),
    ],
)
def test_what_lm_eval_says_of_its_options_is_a_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = lm_eval(tmp_path, *arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
