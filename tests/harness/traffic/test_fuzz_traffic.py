"""Logs of traffic: whatever their lines hold, they are read as what they say, or refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from fuzzing import command, damaged, fuzz, mutated
from pools.data.recording import load_recording
from pools.data.traffic import read_log

CALLS: list[dict[str, Any]] = [
    {
        "request": {"model": model, "messages": [{"role": "user", "content": f"question {n}"}], "temperature": 0.5},
        "response": {
            "choices": [{"message": {"role": "assistant", "content": [{"type": "text", "text": "answer"}]}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        },
        **{"model": model, "cost": 0.5, "cost_unit": "u", "seconds": 1.5, "score": n % 2, "propensity": 0.5},
        **{"task": "t", "split": "test", "kind": "k", "shadow": {"router": "r", "choices": {"a": 1.0}}},
    }
    for n in range(3)
    for model in ("a", "b")
]


def lines(calls: Any) -> bytes:
    return b"".join(json.dumps(call).encode() + b"\n" for call in (calls if isinstance(calls, list) else [calls]))


def check(folder: Path, content: bytes) -> None:
    """Import and estimate what a log holds."""
    log, out = folder / "log.jsonl", folder / "out"
    log.write_bytes(content)
    shutil.rmtree(out, ignore_errors=True)
    if not command("import", log, "--format", "traffic", "--out", out).refused:
        tree = load_recording(out).tree
        queries = {call.query for call in read_log(log)}
        assert tree.complete and len(tree.models) >= 2 and {item.query for item in tree.items} <= queries
    assert command("estimate", log, "--split", "all").refused  # a few calls are too few, whatever they are


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traffic")


@fuzz("logs of traffic: values", 200)
@given(mutated(CALLS))
def test_a_log(folder: Path, calls: Any) -> None:
    check(folder, lines(calls))


@fuzz("logs of traffic: bytes", 100)
@given(damaged(lines(CALLS)))
def test_a_damaged_log(folder: Path, content: bytes) -> None:
    check(folder, content)
