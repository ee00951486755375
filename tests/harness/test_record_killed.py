"""The recorder under `kill -9`: nothing is lost, nothing is recorded twice, and the responses are the same."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import harness
from pools.recording import load_recording
from pools.store import TransitionStore

KILLS = int(os.environ.get("HARNESS_KILLS", "2"))
"""More of them take longer: each start imports torch."""
ROOT = Path(harness.__file__).parent.parent


def command(pool: Path, suite: Path, folder: Path, name: str) -> list[str]:
    selection = ("--pool", pool, "--suite", suite, "--max-hops", 5)
    places = ("--store", folder / f"{name}.sqlite", "--out", folder / name)
    return [sys.executable, "-m", "harness", "record", *map(str, (*selection, *places))]


def responses(store: Path) -> dict[str, tuple[str, int, int]]:
    with sqlite3.connect(store) as connection:
        rows = connection.execute("SELECT key, response, tokens_in, tokens_out FROM transition").fetchall()
    assert len(rows) == len({row[0] for row in rows})
    return {row[0]: tuple(row[1:]) for row in rows}


def stored(store: Path) -> int:
    return len(TransitionStore(store)) if store.exists() else 0


def test_killed_at_random_moments_and_resumed(tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path) -> None:
    suite = tiny_tasks / "suite.yaml"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = {"env": environment, "cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command(tiny_pool_file, suite, tmp_path, "whole"), check=True, **quiet)
    total = stored(tmp_path / "whole.sqlite")
    rng, killed = random.Random(0), 0
    for number in range(1, KILLS + 1):
        process = subprocess.Popen(command(tiny_pool_file, suite, tmp_path, "killed"), **quiet)
        wanted = total * number / (2 * KILLS)
        while process.poll() is None and stored(tmp_path / "killed.sqlite") < wanted:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed").exists(), "a recording is written whole or not at all"
    assert killed == KILLS
    before = stored(tmp_path / "killed.sqlite")
    assert 0 < before < total
    subprocess.run(command(tiny_pool_file, suite, tmp_path, "killed"), check=True, **quiet)
    assert responses(tmp_path / "killed.sqlite") == responses(tmp_path / "whole.sqlite")
    whole, resumed = load_recording(tmp_path / "whole"), load_recording(tmp_path / "killed")
    assert resumed.tree.complete and resumed.tree.contexts == whole.tree.contexts
    assert resumed.manifest["counts"] == whole.manifest["counts"]
    assert resumed.manifest["reused_responses"] == before
