"""Tasks by name, ours and lm-eval's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pools.errors import UserError
from tasks import get, lm_eval_names, names

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_names() -> None:
    assert set(names()) >= {"records", "sums", "stories", "mmlu_dev", "human_eval"}
    theirs = set(lm_eval_names())
    assert len(theirs) > 5_000
    assert {"gsm8k", "humaneval_instruct", "arc_challenge", "mmlu_formal_logic"} <= theirs
    assert not theirs & set(names())


def test_importing_tasks_loads_nothing_heavy() -> None:
    code = "import sys, tasks; tasks.load_suite('offline'); tasks.lm_eval_names(); print(*sys.modules)"
    loaded = set(python(code).split())
    assert not loaded & {"lm_eval", "torch", "transformers", "datasets", "human_eval", "wandb"}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("recordz", "unknown task 'recordz'.*did you mean .*records"),
        ("xxxxxxxxxxxxxxxx", "unknown task 'xxxxxxxxxxxxxxxx'.*ours are human_eval"),
        ("mmlu", "unknown task 'mmlu'.*and no group"),
        ("arc_challenge", r"'multiple_choice'.*harness lm-eval --model routed --tasks arc_challenge"),
        ("gsm8k_cot_self_consistency", "asks every item 64 times"),
        ("longproc_pseudo_to_code_2k", "outside of this project's sandbox.*human_eval"),
    ],
)
def test_what_cannot_be_had_is_one_line(name: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    with pytest.raises(UserError, match=complaint) as caught:
        get(name)
    assert "\n" not in str(caught.value)


def test_missing_data_is_one_line(tmp_path: Path) -> None:
    """Of lm-eval's tasks and of ours."""
    code = """
import tasks
from pools.errors import UserError
for name in ("gsm8k", "mbpp_chat"):
    try:
        tasks.get(name)
    except UserError as error:
        print(error)
"""
    theirs, ours = python(code, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=str(tmp_path)).split("\n")
    assert theirs.startswith("task 'gsm8k' could not be loaded") and "openai/gsm8k" in theirs
    assert ours.startswith("task 'mbpp_chat' could not be loaded") and "google-research-datasets/mbpp" in ours


def test_scoring_uses_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert get("human_eval", limit=1)._threads == 3
