"""A checkpoint or a training state of which a bit is another, or the end is missing: refused in one line, or whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from routers import checkpoint, load
from routers.checkpoint import read_checkpoint
from routers.hierrouter import HierRouter
from routers.ppo_hierrouter import Args

Train = Callable[[Args], HierRouter]
QUICK = Args(total_timesteps=2048, num_envs=128, cost_weight=0.002, save_every=1, eval_every=2)


def loaded(path: Path) -> Any:
    """What a router was loaded with."""
    router = load("hierrouter", checkpoint=path)
    assert isinstance(router, HierRouter)
    arrays = {name: value if isinstance(value, str) else value.tobytes() for name, value in router.save().items()}
    return router.fitted_for, router.inputs.features.sees, arrays


@pytest.fixture
def trained(train: Train, tmp_path: Path) -> Path:
    """A checkpoint, and its training's last state beside it."""
    out = tmp_path / "policy.safetensors"
    train(replace(QUICK, out=out))
    return out


@pytest.mark.parametrize("fault", ["bit flip", "truncation"])
def test_a_damaged_checkpoint(outcome: Any, trained: Path, fault: str, damages: Any, counted: Any, faults: int) -> None:
    whole, header = loaded(trained), read_checkpoint(trained).header
    found = []
    for damaged in damages(fault, trained.read_bytes(), 40 * faults):
        trained.write_bytes(damaged)
        found.append(outcome(lambda: loaded(trained), whole))
        decided = outcome(lambda: read_checkpoint(trained).header, header)
        assert decided == found[-1], "what decides on its use is checked, too"
    counted(fault, "checkpoint", len(found), found.count("refused"), wrong=found.count("wrong"))
    assert found.count("refused") > len(found) // 2


@pytest.mark.parametrize("fault", ["bit flip", "truncation"])
def test_a_damaged_training_state(
    outcome: Any, trained: Path, train: Train, fault: str, damages: Any, counted: Any, faults: int
) -> None:
    state, whole = trained.with_name(trained.name + ".state"), trained.read_bytes()

    def resumed() -> bytes:
        trained.unlink(missing_ok=True)
        train(replace(QUICK, out=trained, resume=True))
        return trained.read_bytes()

    found = []
    for damaged in damages(fault, state.read_bytes(), 8 * faults):
        state.write_bytes(damaged)
        found.append(outcome(resumed, whole))
    counted(fault, "training state", len(found), found.count("refused"), wrong=found.count("wrong"))
    assert found.count("refused") > len(found) // 2


def test_without_the_checksum_another_policy_would_be_taken(
    outcome: Any, trained: Path, damages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, file = loaded(trained), trained.read_bytes()
    header = int.from_bytes(file[:8], "little")
    expected = json.loads(json.loads(file[8 : 8 + header])["__metadata__"]["router"])["sha256"]
    monkeypatch.setattr(checkpoint, "_checksum", lambda *_: expected)
    found = []
    for damaged in damages("bit flip", file, 20):
        trained.write_bytes(damaged)
        found.append(outcome(lambda: loaded(trained), whole))
    assert "wrong" in found
