"""Whole commands under faults: killed, on a full disk, two at once, with a clock that jumps, on damaged files.

The commands are real, in processes of their own; HARNESS_FAULTS=N injects N times as many faults as CI does.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness as package
from harness.source import recording_folder
from pools.recording import Recording, load_recording
from pools.store import TransitionStore

ROOT = Path(package.__file__).parent.parent
SMALL = recording_folder("lightweight", "offline").with_name("lightweight-offline-three-hops")
NAMESPACES = (["unshare", "-m"], ["unshare", "-rm"])


class Commands:
    """`forked_commands.py`, which runs commands of this project in processes of their own."""

    def __init__(self, folder: Path, inside: list[str]) -> None:
        self.folder = folder
        program = [*inside, sys.executable, str(Path(__file__).with_name("forked_commands.py"))]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(program, env=environment, cwd=folder, **pipes)
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def _order(self, **order: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *arguments: object, log: str = "log", before: str = "") -> int:
        """The id of a new process."""
        pid: int = self._order(run=[str(a) for a in arguments], log=str(self.folder / log), before=before)
        return pid

    def wait(self, pid: int) -> int:
        """Its exit code; minus the number of the signal that ended it."""
        code: int = self._order(wait=pid)
        return code

    def run(self, *arguments: object, before: str = "") -> tuple[int, str]:
        """Exit code, and what it wrote to standard error."""
        code = self.wait(self.start(*arguments, before=before))
        return code, (self.folder / "log").read_text()

    def killed(self, seconds: float, *arguments: object) -> bool:
        """Whether it was still running when it was killed after so many seconds; else it must have ended well."""
        pid = self.start(*arguments)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)  # it is there until it is waited for
        code = self.wait(pid)
        assert code in (0, -signal.SIGKILL), (self.folder / "log").read_text()
        return code != 0

    def shell(self, command: str) -> None:
        code, output = self._order(shell=command)
        assert code == 0, output

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    inside: list[str] = []
    for namespace in NAMESPACES:
        probe = [*namespace, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path_factory.mktemp("probe"))]
        if not inside and shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0:
            inside = namespace
    started = Commands(tmp_path_factory.mktemp("commands"), inside)
    started.can_mount = bool(inside)  # type: ignore[attr-defined]
    yield started
    started.close()


@pytest.fixture(scope="module")
def record(tiny_pool_file: Path, tiny_tasks: Path) -> Callable[..., list[object]]:
    """`record(folder)`: the command that records into it."""

    def command(folder: Path, out: str = "recording") -> list[object]:
        selection = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 3)
        return ["record", *selection, "--sandbox", "rlimits", "--store", folder / "s", "--out", folder / out]

    return command


def train(out: Path, timesteps: int = 250_000) -> list[object]:
    """The command that trains on a small recording, from its state where there is one."""
    state = out.with_name(out.name + ".state")
    resume = ["--resume"] if state.exists() and not out.exists() else []
    return ["train", "--recording", SMALL, "--total-timesteps", timesteps, "--out", out, *resume]


@pytest.fixture(scope="module")
def whole(
    commands: Commands, record: Callable[..., list[object]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, float]]:
    """A folder of what the commands make when they are left alone, and how many seconds each takes."""
    folder, seconds = tmp_path_factory.mktemp("whole"), {}
    for name, command in (("record", record(folder)), ("train", train(folder / "p.safetensors"))):
        start = time.monotonic()
        assert commands.run(*command) == (0, "")
        seconds[name] = time.monotonic() - start
    return folder, seconds


def rows(store: Path) -> dict[str, tuple[str, int, int, str]]:
    """By key what a store says of a response, but for the seconds that it took."""
    if not store.exists():
        return {}
    TransitionStore(store).close()  # takes in the log of a process that was killed
    with sqlite3.connect(store) as connection:
        found = connection.execute("SELECT key, response, tokens_in, tokens_out, finish_reason FROM transition")
        every = found.fetchall()
    assert len({row[0] for row in every}) == len(every), "recorded twice"
    return {row[0]: row[1:] for row in every}


def told(recording: Recording) -> list[dict[str, Any]]:
    """What a recording says of each transition, but for the seconds."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in recording.tree.rows()]


def amiss(folder: Path, whole: Path, out: str = "recording") -> dict[str, int]:
    """How many responses a folder lacks that the whole one has, and how many it has that are others."""
    expected, found = rows(whole / "s"), rows(folder / "s")
    lost = sum(key not in found for key in expected)
    wrong = sum(expected.get(key) != row for key, row in found.items())
    made, there = load_recording(whole / "recording"), load_recording(folder / out)
    wrong += told(made) != told(there) or made.manifest["counts"] != there.manifest["counts"]
    return {"lost": lost, "wrong": wrong}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_check_of_a_recording_can_fail(whole: tuple[Path, Any], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole[0], tmp_path / "copy"))
    assert amiss(folder, whole[0]) == {"lost": 0, "wrong": 0}
    with sqlite3.connect(folder / "s") as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM transition LIMIT 2")]
        connection.execute("DELETE FROM transition WHERE key = ?", keys[:1])
        connection.execute("UPDATE transition SET response = 'other' WHERE key = ?", keys[1:])
    assert amiss(folder, whole[0]) == {"lost": 1, "wrong": 1}


def test_a_recorder_that_is_killed(
    commands: Commands, record: Any, whole: tuple[Path, Any], tmp_path: Path, counted: Any, faults: int
) -> None:
    made, seconds = whole
    rng, killed, series, seen = random.Random(1), 0, 0, 0
    lost = wrong = 0
    while killed < 6 * faults:
        folder = tmp_path / str(series)
        if commands.killed(rng.uniform(0, seconds["record"]), *record(folder)):
            killed += 1
            now = len(rows(folder / "s"))
            lost, seen = lost + max(0, seen - now), now
            continue
        found = amiss(folder, made)
        lost, wrong, seen, series = lost + found["lost"], wrong + found["wrong"], 0, series + 1
    assert commands.run(*record(tmp_path / str(series))) == (0, "")
    found = amiss(tmp_path / str(series), made)
    counted("SIGKILL", "recorder", killed, lost=lost + found["lost"], wrong=wrong + found["wrong"])


def test_a_trainer_that_is_killed(
    commands: Commands, whole: tuple[Path, Any], tmp_path: Path, counted: Any, faults: int
) -> None:
    made, seconds = whole
    rng, killed, series, wrong, resumed = random.Random(2), 0, 0, 0, 0
    while killed < 3 * faults or not (tmp_path / f"{series}" / "p.safetensors").exists():
        out = tmp_path / str(series) / "p.safetensors"
        if out.exists():
            series += 1
            continue
        command = train(out)
        resumed += "--resume" in command
        # As many kills as are asked for, then it may come to its end.
        if commands.killed(rng.uniform(0, seconds["train"]) if killed < 3 * faults else 300, *command):
            killed += 1
            continue
        wrong += digest(out) != digest(made / "p.safetensors")
    counted("SIGKILL", "trainer", killed, wrong=wrong)
    assert resumed or killed < 5
