"""A checkpoint or a training state of which a bit is another, or the end is missing: refused in one line, or whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pools.cost import CostModel
from pools.mdp.tree import Tree
from routers import checkpoint, load
from routers.checkpoint import read_checkpoint
from routers.hierrouter import HierRouter
from routers.ppo_hierrouter import Args, plain, request_for
from routers.registry import teach

Planted = Callable[[], tuple[Tree, CostModel]]
QUICK = Args(total_timesteps=2048, num_envs=128, cost_weight=0.002, save_every=1, eval_every=2)


def train(args: Args, tree: Tree, validation: Tree, cost_model: CostModel) -> None:
    assert args.out is not None
    teach("hierrouter", request_for(args, tree, validation, cost_model), plain(args)).save(args.out)


def loaded(path: Path) -> Any:
    """What a router was loaded with."""
    router = load("hierrouter", checkpoint=path)
    assert isinstance(router, HierRouter)
    arrays = {name: value if isinstance(value, str) else value.tobytes() for name, value in router.save().items()}
    return router.fitted_for, router.features, arrays


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def trained(planted: Planted, tmp_path: Path) -> Path:
    """A checkpoint, and its training's last state beside it."""
    torch.set_num_threads(1)
    tree, cost_model = planted()
    args = replace(QUICK, out=tmp_path / "policy.safetensors")
    train(args, tree.select("train"), tree.select("validation"), cost_model)
    assert args.out is not None
    return args.out


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
    outcome: Any, trained: Path, planted: Planted, fault: str, damages: Any, counted: Any, faults: int
) -> None:
    tree, cost_model = planted()
    parts = tree.select("train"), tree.select("validation"), cost_model
    state, whole = trained.with_name(trained.name + ".state"), digest(trained)

    def resumed() -> str:
        trained.unlink(missing_ok=True)
        train(replace(QUICK, out=trained, resume=True), *parts)
        return digest(trained)

    assert resumed() == whole
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
