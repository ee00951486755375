"""Whole commands under faults: killed, on a full disk, two at once.

The commands are real, in processes of their own; HARNESS_FAULTS=N injects N times as many faults as CI does.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import Commands, fill

from pools.data.recording import Recording, load_recording
from pools.data.store import TransitionStore


@pytest.fixture(scope="module")
def record(tiny_pool_file: Path, tiny_tasks: Path) -> Callable[..., list[object]]:
    """`record(folder)`: the command that records into it."""

    def command(folder: Path, out: str = "recording") -> list[object]:
        selection = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 2, "--limit", 12)
        return ["record", *selection, "--sandbox", "rlimits", "--store", folder / "s", "--out", folder / out]

    return command


# A state after each of many short iterations.
OFTEN = """
import dataclasses, routers.ppo_hierrouter as p
train = p.train
p.train = lambda options, *rest: train(dataclasses.replace(options, save_every=1, num_envs=128), *rest)
"""


@pytest.fixture(scope="module")
def train(small_recording: Path) -> Callable[[Path], list[object]]:
    """`train(out)`: the command that trains on a small recording, from its state where there is one."""

    def command(out: Path) -> list[object]:
        state = out.with_name(out.name + ".state")
        resume = ["--resume"] if state.exists() and not out.exists() else []
        return ["train", "--recording", small_recording, "--total-timesteps", 16_000, "--out", out, *resume]

    return command


@pytest.fixture(scope="module")
def whole(
    commands: Commands,
    record: Callable[..., list[object]],
    train: Callable[[Path], list[object]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, float]]:
    """A folder of what the commands make when they are left alone, and how many seconds each takes."""
    folder, seconds = tmp_path_factory.mktemp("whole"), {}
    for name, command in (("record", record(folder)), ("train", train(folder / "p.safetensors"))):
        start = time.monotonic()
        assert commands.run(*command, before=OFTEN) == (0, "")
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


def test_a_recorder_that_is_killed(
    commands: Commands, record: Any, whole: tuple[Path, Any], tmp_path: Path, counted: Any, faults: int
) -> None:
    made, seconds = whole
    rng, killed, series, seen = random.Random(1), 0, 0, 0
    lost = wrong = 0

    def ended() -> None:
        """What the series of killed runs came to is what the whole run made, with all that was stored reused."""
        nonlocal lost, wrong
        folder = tmp_path / str(series)
        found = amiss(folder, made)
        lost, wrong = lost + found["lost"], wrong + found["wrong"]
        lost += load_recording(folder / "recording").manifest["reused_responses"] != seen

    while killed < 6 * faults:
        folder = tmp_path / str(series)
        if not commands.killed(rng.uniform(0, seconds["record"]), *record(folder)):
            ended()
            series, seen = series + 1, 0
            continue
        killed += 1
        now = len(rows(folder / "s"))
        lost, seen = lost + max(0, seen - now), now
        if (folder / "recording").exists():
            assert load_recording(folder / "recording").tree.complete, "a recording is written whole or not at all"
    assert commands.run(*record(tmp_path / str(series))) == (0, "")
    ended()
    counted("SIGKILL", "recorder", killed, lost=lost, wrong=wrong)


def test_a_trainer_that_is_killed(
    commands: Commands, train: Any, whole: tuple[Path, Any], tmp_path: Path, counted: Any, faults: int
) -> None:
    made, seconds = whole
    rng, killed, series, wrong, resumed = random.Random(2), 0, 0, 0, 0
    while killed < 4 * faults or not (tmp_path / f"{series}" / "p.safetensors").exists():
        out = tmp_path / str(series) / "p.safetensors"
        if out.exists():
            series += 1
            continue
        command = train(out)
        resumed += "--resume" in command
        # As many kills as are asked for, then it may come to its end.
        until = rng.uniform(0, seconds["train"]) if killed < 4 * faults else 300
        if commands.killed(until, *command, before=OFTEN):
            killed += 1
            continue
        wrong += digest(out) != digest(made / "p.safetensors")
    counted("SIGKILL", "trainer", killed, wrong=wrong)
    assert resumed


def test_a_recorder_on_a_full_disk(
    commands: Commands, record: Any, whole: tuple[Path, Any], disks: Path, counted: Any, faults: int
) -> None:
    """On a disk that is full at some time, from the store's first page to the recording's last."""
    rng, full, lost, wrong = random.Random(3), 0, 0, 0
    while full < 3 * faults:
        folder = disks / str(rng.random())
        disk = fill(commands, folder, rng.randrange(8, 260), record(folder), before=OFTEN)
        if disk is None:
            continue
        full += 1
        before = rows(disk.look() / "s")
        disk.make_room()
        assert commands.run(*record(folder)) == (0, "")
        seen = disk.look()
        found = amiss(seen, whole[0])
        after = rows(seen / "s")
        lost += found["lost"] + sum(after.get(key) != row for key, row in before.items())
        lost += load_recording(seen / "recording").manifest["reused_responses"] != len(before)
        wrong += found["wrong"]
        disk.close()
    counted("full disk", "recorder: store and recording", full, full, lost, wrong)


def test_a_trainer_on_a_full_disk(
    commands: Commands, train: Any, whole: tuple[Path, Any], disks: Path, counted: Any, faults: int
) -> None:
    rng, full, wrong = random.Random(4), 0, 0
    while full < 2 * faults:
        folder = disks / str(rng.random())
        disk = fill(commands, folder, rng.randrange(8, 2600), train(folder / "p.safetensors"), before=OFTEN)
        if disk is None:
            continue
        full += 1
        seen = disk.look()
        assert not [path for path in seen.iterdir() if path.name.endswith(".partial")], "it takes up no room"
        disk.make_room()
        resume = ["--resume"] if (seen / "p.safetensors.state").exists() else []
        assert commands.run(*train(folder / "p.safetensors"), *resume, before=OFTEN) == (0, "")
        wrong += digest(disk.look() / "p.safetensors") != digest(whole[0] / "p.safetensors")
        disk.close()
    counted("full disk", "trainer: state and checkpoint", full, full, wrong=wrong)


def test_two_recorders_on_one_store(
    commands: Commands, record: Any, whole: tuple[Path, Any], tmp_path: Path, counted: Any, faults: int
) -> None:
    lost, wrong, outs = 0, 0, ("recording", "other")
    for number in range(faults):
        folder = tmp_path / str(number)
        started = [commands.start(*record(folder, out), log=f"log{n}") for n, out in enumerate(outs)]
        ended = [commands.wait(pid) for pid in started]
        assert ended == [0, 0], [(commands.folder / f"log{n}").read_text() for n in range(2)]
        for out in outs:
            found = amiss(folder, whole[0], out)
            lost, wrong = lost + found["lost"], wrong + found["wrong"]
    counted("two at once", "recorders on one store, 2 recording(s)", faults, lost=lost, wrong=wrong)
