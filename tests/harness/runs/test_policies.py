"""A policy that ships is used where it was trained on just what a run would train on, and nowhere else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from own_encoder import LETTERS
from shipped import POLICY, RECORDING

from harness.runs import checkpoints
from pools.data.recording import seal_recording
from routers.encoders.base import ENCODERS

Harness = Callable[..., int]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, small_recording: Path, harness: Harness) -> Path:
    """A folder of policies as ours, with one for seed 1."""
    folder = tmp_path_factory.mktemp("policies")
    out = folder / RECORDING.name / POLICY.name
    options = ("--recording", small_recording, "--total-timesteps", 10_000, "--cost-weights", 0, 0.1, 3)
    assert harness("train", *options, "--out", out) == 0
    return folder


@pytest.mark.usefixtures("small_by_default")
@pytest.mark.parametrize(
    ("arguments", "used"),
    [
        ((), True),
        (("--cost-weight", "0.3"), True),
        (("--cost-weight", "0", "1"), True),
        (("--split", "all"), True),
        (("--cost-weight", "4"), False),
        (("--seed", 2), False),
        (("--no-allow-stop",), False),
        (("--max-hops", 1), False),
        (("--task", "records", "human_eval"), False),
        (("--limit", 30), False),
        (("--retrain",), False),
    ],
)
def test_when_it_is_used(
    shipped: Path,
    arguments: tuple[object, ...],
    used: bool,
    tmp_path: Path,
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train(*_: object) -> None:
        raise KeyboardInterrupt  # that it would train is all that is asked here

    monkeypatch.setattr(checkpoints, "FOLDER", shipped)
    monkeypatch.setattr("routers.ppo_hierrouter.train", train)
    ended = harness("run", "--baselines", "no", *arguments, "--out", tmp_path / "out")
    assert ended == (0 if used else 130)
    if used:
        notes = json.loads((tmp_path / "out" / "summary.json").read_text())["routers"]["hierrouter"]["overall"]["notes"]
        assert notes[0] == "shipped policy, seed 1"
        assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_changed_recording_has_no_shipped_policy(
    shipped: Path,
    small_recording: Path,
    tmp_path: Path,
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / RECORDING.name
    shutil.copytree(small_recording, other)
    monkeypatch.setattr(checkpoints, "FOLDER", shipped)
    command = ("run", "--baselines", "no", "--recording", other, "--out")
    assert harness(*command, tmp_path / "same") == 0
    assert "the shipped policy" in capsys.readouterr().out
    table = pq.read_table(other / "transitions.parquet")
    pq.write_table(table, other / "transitions.parquet", compression="snappy")  # equal rows, other bytes
    seal_recording(other)
    assert harness(*command, tmp_path / "other") == 0
    assert "training hierrouter" in capsys.readouterr().out


def test_live_models_of_the_recording_use_the_shipped_policy(
    tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    # The specialists ship, and on this task no other model is worth its cost.
    asked = ("--task", "records", "--limit", 4, "--split", "all", "--baselines", "no")
    live = ("--live", "--store", tmp_path / "s.sqlite")
    assert harness("run", *live, *asked, "--out", tmp_path / "live") == 0
    assert f"the shipped policy {POLICY.name}" in capsys.readouterr().out
    assert harness("run", "--checkpoint", POLICY, *asked, "--out", tmp_path / "recorded") == 0
    found = [pq.read_table(tmp_path / name / "items.parquet").to_pylist() for name in ("live", "recorded")]
    assert found[0] == found[1] and len(found[0]) == 4


def test_a_router_with_an_encoder_of_a_file_is_loaded_with_that_file(
    small_recording: Path,
    tmp_path: Path,
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "letters.py"
    file.write_text(LETTERS)
    monkeypatch.setattr(ENCODERS, "_entries", dict(ENCODERS._entries))
    monkeypatch.setattr(ENCODERS, "_of_files", {})
    run = ("run", "--recording", small_recording, "--router", "ridge", "--baselines", "no")
    assert harness(*run, "--encoder", file, "--out", tmp_path / "trained") == 0
    loaded = (*run, "--checkpoint", tmp_path / "trained" / "ridge.safetensors", "--out", tmp_path / "loaded")
    ENCODERS._entries.pop("letters")  # as in a new process
    ENCODERS._of_files.clear()
    assert harness(*loaded) == 2
    assert "encoder letters is unknown here: run and train take its file (--encoder FILE.py)" in capsys.readouterr().err
    assert harness(*loaded, "--encoder", file) == 0
    rows = [pq.read_table(tmp_path / name / "items.parquet").to_pylist() for name in ("trained", "loaded")]
    assert rows[0] == rows[1]
