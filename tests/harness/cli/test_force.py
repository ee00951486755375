"""`--out` and `--force`: what another command wrote is replaced only if that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

import harness as api
from harness.cli.app import COMMANDS
from routers.checkpoint import read_checkpoint

Harness = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def test_every_command_that_has_out_has_force() -> None:
    options = [{field.name for field in fields(kind)} for kind in COMMANDS]
    assert [has for has in options if ("out" in has) != ("force" in has)] == []
    assert sum("out" in has for has in options) == 10


@pytest.mark.parametrize(
    "command",
    [
        "verify --recording none --out f.json",
        "estimate none.jsonl --out f.json",
        "compare none none --out f.json",
        "report none --out f.json",
        "leaderboard none --out f.json",
    ],
)
def test_a_file_that_is_there_is_seen_before_anything_else(
    command: str, tmp_path: Path, harness: Harness, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.json").write_text("mine")
    assert harness(*command.split()) == 2
    said = capsys.readouterr().err
    assert said == "harness: --out f.json is there; name another file, or replace it with --force\n"
    assert harness(*command.split(), "--force") == 2
    assert "none" in capsys.readouterr().err and Path("f.json").read_text() == "mine"


def test_a_checkpoint_of_another_training_is_kept(
    small_recording: Path, tmp_path: Path, harness: Harness, capsys: Captured
) -> None:
    out = tmp_path / "p.safetensors"

    def train(*more: object, router: str = "knn", seed: int = 1) -> int:
        given = ("--router", router, "--recording", small_recording, "--seed", seed, "--out", out)
        return harness("train", *given, *more)

    assert train() == 0
    made = out.read_bytes()
    assert train() == 0 and out.read_bytes() == made  # the same again
    for differs, code in {
        "seed": lambda: train(seed=2),
        "options": lambda: train("--encoder", "hashing+surface"),
        "problem": lambda: train("--cost-weight", 0.3),
        "selection": lambda: train("--limit", 40),
        "router, options": lambda: train(router="ridge"),
    }.items():
        capsys.readouterr()
        assert code() == 2 and out.read_bytes() == made
        said = capsys.readouterr()
        assert f"holds another training (knn, seed 1; it differs in {differs})" in said.err
        assert "--force" in said.err and "training knn" not in said.out
    # Nor is it replaced by one that resumes beside the state of another.
    state = out.with_name("p.safetensors.state")
    state.touch()
    assert train("--resume", router="ridge") == 2 and out.read_bytes() == made
    assert "holds another training (knn, seed 1" in capsys.readouterr().err
    state.unlink()
    assert train("--force", seed=2) == 0
    assert read_checkpoint(out).header.training["seed"] == 2
    api.train("knn", small_recording, seed=3, out=out, force=True)
    assert read_checkpoint(out).header.training["seed"] == 3
    out.write_text("a letter")
    assert train() == 2 and out.read_text() == "a letter"
    assert "is there and is no checkpoint" in capsys.readouterr().err
