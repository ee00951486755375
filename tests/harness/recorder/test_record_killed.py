"""The recorder under `kill -9`: nothing is lost, nothing is recorded twice, and the responses are the same."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import harness
from pools.data.recording import load_recording
from pools.data.store import TransitionStore

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
    return {row[0]: tuple(row[1:]) for row in rows}


def stored(store: Path) -> int:
    return len(TransitionStore(store)) if store.exists() else 0


def test_killed_at_random_moments_and_resumed(
    tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, counted: Any
) -> None:
    suite = tiny_tasks / "suite.yaml"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = {"env": environment, "cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = time.monotonic()
    subprocess.run(command(tiny_pool_file, suite, tmp_path, "whole"), check=True, **quiet)
    seconds = time.monotonic() - start
    rng, killed, series, seen = random.Random(0), 0, 0, 0

    def check() -> None:
        """What the series of killed runs came to is what the whole run made."""
        name = f"killed-{series}"
        assert responses(tmp_path / f"{name}.sqlite") == responses(tmp_path / "whole.sqlite")
        whole, resumed = load_recording(tmp_path / "whole"), load_recording(tmp_path / name)
        assert resumed.tree.complete and resumed.tree.contexts == whole.tree.contexts
        assert resumed.manifest["counts"] == whole.manifest["counts"]
        assert resumed.manifest["reused_responses"] == seen

    while killed < KILLS:
        name = f"killed-{series}"
        process = subprocess.Popen(command(tiny_pool_file, suite, tmp_path, name), **quiet)
        # At any moment of a whole run but the imports that it begins with; writing the recording is its end.
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.4, 1.0) * seconds)
        process.kill()
        if process.wait() == 0:  # it was faster; another series begins
            check()
            series, seen = series + 1, 0
            continue
        killed += 1
        assert process.returncode == -signal.SIGKILL
        before = stored(tmp_path / f"{name}.sqlite")
        assert before >= seen, "what was stored is lost"
        seen = before
        if (tmp_path / name).exists():
            assert load_recording(tmp_path / name).tree.complete, "a recording is written whole or not at all"
    subprocess.run(command(tiny_pool_file, suite, tmp_path, f"killed-{series}"), check=True, **quiet)
    check()
    counted("SIGKILL", "recorder", killed, lost=0)
