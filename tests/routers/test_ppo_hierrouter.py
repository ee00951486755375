from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import routers
from harness.evaluation.evaluate import evaluate
from pools.cost import CostModel
from pools.errors import UserError
from pools.mdp.optimum import solve
from pools.mdp.tree import Tree
from routers import RouterRequest, RoutingStates, ppo_hierrouter
from routers.encoders.base import Part
from routers.fixed import FixedRouter
from routers.hierrouter import HierRouter
from routers.ppo_hierrouter import Args, plain, request_for
from routers.registry import teach

Planted = Callable[[], tuple[Tree, CostModel]]
QUICK = Args(total_timesteps=60_000, num_envs=256, cost_weight=0.002, eval_every=5)


def train(args: Args, tree: Tree, validation: Tree | None, cost_model: CostModel) -> HierRouter:
    """As the command line does it, on trees."""
    taught = teach("hierrouter", request_for(args, tree, validation, cost_model), plain(args))
    if args.out is not None:
        taught.save(args.out)
    assert isinstance(taught.router, HierRouter)
    return taught.router


def load(path: Path, cost_weight: float | None = None) -> HierRouter:
    router = routers.load("hierrouter", checkpoint=path)
    assert isinstance(router, HierRouter)
    return router if cost_weight is None else router.at(cost_weight)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("allow_stop", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_finds_the_planted_optimum(planted: Planted, seed: int, allow_stop: bool) -> None:
    tree, cost_model = planted()
    args = replace(QUICK, seed=seed, allow_stop=allow_stop)
    router = train(args, tree.select("train"), tree.select("validation"), cost_model)
    for split in ("train", "validation"):
        part = tree.select(split)  # type: ignore[arg-type]
        outcome = evaluate(router, part, cost_model)
        optimum = solve(part, cost_model, args.cost_weight, allow_stop).value.mean()
        assert optimum > 0.8
        assert (outcome.quality - args.cost_weight * outcome.cost).mean() >= 0.99 * optimum


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_policy_is_optimal_at_every_cost_weight_that_it_was_shown(
    planted: Planted, seed: int, tmp_path: Path
) -> None:
    tree, cost_model = planted()
    out, weights = tmp_path / "policy.safetensors", (0.0, 0.002, 0.05)
    args = replace(QUICK, seed=seed, cost_weights=weights, total_timesteps=120_000, out=out)
    train(args, tree.select("train"), tree.select("validation"), cost_model)
    validation, hops = tree.select("validation"), set()
    for weight in weights:
        router = load(out, weight)
        outcome = evaluate(router, validation, cost_model)
        optimum = solve(validation, cost_model, weight, True).value.mean()
        assert (outcome.quality - weight * outcome.cost).mean() >= optimum - 0.02
        hops.add(round(float(outcome.hops.mean()), 2))
    assert len(hops) > 1, "where a hop costs more than an answer is worth, fewer are made"
    request = RouterRequest(models=tree.models, max_hops=2, cost_model=cost_model, cost_weight=0.05)
    assert routers.load("hierrouter", request, checkpoint=out).cost_weight == 0.05  # type: ignore[attr-defined]
    assert routers.load("hierrouter", checkpoint=out).cost_weight == args.cost_weight  # type: ignore[attr-defined]


@pytest.mark.parametrize("sees", [("query",), ("query", "models"), ("response", "query", "agreement", "length")])
def test_what_the_policy_sees_is_an_option_that_the_checkpoint_keeps(
    planted: Planted, sees: tuple[Part, ...], tmp_path: Path
) -> None:
    tree, cost_model = planted()
    out = tmp_path / "policy.safetensors"
    trained = train(replace(QUICK, sees=sees, out=out), tree.select("train"), tree.select("validation"), cost_model)
    loaded = load(out)
    assert loaded.embed.sees == sees
    validation = tree.select("validation")
    outcomes = [evaluate(router, validation, cost_model) for router in (trained, loaded)]
    assert outcomes[0].quality.tolist() == outcomes[1].quality.tolist()
    assert outcomes[0].quality.mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"cost_weights": (0.1, -1.0)}, "at least 0"), ({"sees": ("models",)}, "query, response or both")],
)
def test_what_makes_no_policy_is_refused(planted: Planted, changes: dict[str, Any], message: str) -> None:
    tree, cost_model = planted()
    with pytest.raises(UserError, match=message):
        train(replace(QUICK, **changes), tree, None, cost_model)


def test_the_papers_preset(planted: Planted, tmp_path: Path) -> None:
    tree, cost_model = planted()
    args = replace(QUICK, preset="paper", cost_weights=(0.0, 1.0), sees=("query",), out=tmp_path / "p.safetensors")
    router = train(args, tree.select("train"), tree.select("validation"), cost_model)
    assert not router.fitted_for.allow_stop
    assert (router.embed.sees, router.fitted_for.cost_weights) == (("query", "response"), ())
    outcome = evaluate(router, tree.select("validation"), cost_model)
    assert (outcome.hops == tree.max_hops).all()
    optimum = solve(tree.select("validation"), cost_model, args.cost_weight, allow_stop=False).value.mean()
    assert (outcome.quality - args.cost_weight * outcome.cost).mean() >= 0.99 * optimum


def test_same_seed_same_checkpoint_and_another_seed_another(planted: Planted, tmp_path: Path) -> None:
    tree, cost_model = planted()
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.safetensors"
        train(replace(QUICK, seed=seed, out=out, total_timesteps=20_000), tree, None, cost_model)
        digests.append(digest(out))
    assert digests[0] == digests[1] != digests[2]


def test_the_checkpoint_does_not_depend_on_the_number_of_threads(planted: Planted, tmp_path: Path) -> None:
    tree, cost_model = planted()
    digests = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        out = tmp_path / f"{threads}.safetensors"
        train(replace(QUICK, out=out, total_timesteps=10_000), tree, None, cost_model)
        assert torch.get_num_threads() == threads
        digests.append(digest(out))
    assert digests[0] == digests[1]


def test_resumed_equals_uninterrupted(planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, cost_model = planted()
    parts = tree.select("train"), tree.select("validation"), cost_model
    whole = replace(QUICK, out=tmp_path / "whole.safetensors", save_every=1)
    train(whole, *parts)
    stopped = replace(whole, out=tmp_path / "stopped.safetensors")
    save = ppo_hierrouter._save

    def save_then_stop(path: Path, identity: str, iteration: int, *rest: object) -> None:
        save(path, identity, iteration, *rest)
        if iteration == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(ppo_hierrouter, "_save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, *parts)
    monkeypatch.setattr(ppo_hierrouter, "_save", save)
    assert stopped.out is not None and whole.out is not None
    assert not stopped.out.exists()
    with pytest.raises(UserError, match="was stopped"):
        train(stopped, *parts)
    with pytest.raises(UserError, match="nothing to resume"):
        train(replace(stopped, resume=True, out=tmp_path / "other.safetensors"), *parts)
    train(replace(stopped, resume=True), *parts)
    assert digest(stopped.out) == digest(whole.out)
    with pytest.raises(UserError, match="other arguments"):
        train(replace(stopped, resume=True, gae_lambda=0.5), *parts)


def test_a_checkpoint_is_all_a_router_needs(planted: Planted, tmp_path: Path) -> None:
    tree, cost_model = planted()
    out = tmp_path / "policy.safetensors"
    trained = train(replace(QUICK, out=out), tree, None, cost_model)
    loaded = routers.load("hierrouter", checkpoint=out)
    contexts = [tree.context(n, node) for n in range(20) for node in range(tree.decision_nodes)]
    hop = np.tile(tree.depth[: tree.decision_nodes], 20)
    states = RoutingStates(contexts, hop, np.linspace(0, 50, len(hop)), np.full((len(hop), 2), -1))
    np.testing.assert_array_equal(loaded.act(states), trained.act(states))
    stochastic = routers.load("hierrouter:stochastic", checkpoint=out)
    assert isinstance(stochastic, HierRouter)
    chance = stochastic.probabilities(states)
    np.testing.assert_allclose(chance.sum(axis=1), 1)
    assert ((chance > 0) & (chance < 1)).any()
    assert not chance[hop == 0, 3].any()  # STOP is not open before a model has answered


def test_a_checkpoint_for_something_else_is_refused(planted: Planted, tmp_path: Path) -> None:
    tree, cost_model = planted()
    out = tmp_path / "policy.safetensors"
    train(replace(QUICK, out=out, total_timesteps=4096), tree, None, cost_model)
    with pytest.raises(UserError, match="the pool has x, y"):
        routers.load("hierrouter", RouterRequest(models=("x", "y"), max_hops=2), checkpoint=out)
    with pytest.raises(UserError, match="for 2 hops"):
        routers.load("hierrouter", RouterRequest(models=tree.models, max_hops=3), checkpoint=out)
    here = RouterRequest(models=tree.models, max_hops=2, cost_model=cost_model)
    assert routers.load("hierrouter", here, checkpoint=out)
    with pytest.raises(UserError, match="may stop early"):
        routers.load("hierrouter", replace(here, allow_stop=False), checkpoint=out)
    with pytest.raises(UserError, match="--cost paper"):
        routers.load("hierrouter", replace(here, cost_model=replace(cost_model, name="dollars")), checkpoint=out)
    with pytest.raises(UserError, match="no such checkpoint"):
        routers.load("hierrouter", checkpoint=tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="not the checkpoint of a router"):
        routers.load("hierrouter", checkpoint=tmp_path / "junk.safetensors")


def test_tracks_with_the_usual_names(planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    logged: dict[str, float] = {}

    class Run:
        def log(self, figures: dict[str, float], step: int) -> None:
            logged.update(figures)

        def finish(self) -> None:
            pass

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    tree, cost_model = planted()
    args, parts = replace(QUICK, total_timesteps=10_240, track=True), (tree.select("train"), tree.select("validation"))
    train(args, *parts, cost_model)
    losses = ("value_loss", "policy_loss", "entropy", "old_approx_kl", "approx_kl", "clipfrac", "explained_variance")
    charts = ("learning_rate", "SPS", "episodic_return", "episodic_length")
    exact = [
        f"{split}_{key}" for split in ("train", "validation") for key in ("quality", "cost", "regret", "gap_closed")
    ]
    wanted = [f"losses/{n}" for n in losses] + [f"charts/{n}" for n in charts] + [f"exact/{n}" for n in exact]
    assert set(wanted) <= set(logged)
    assert all(np.isfinite(value) for value in logged.values())
    for split in ("train", "validation"):
        part = tree.select(split)  # type: ignore[arg-type]
        singles = [evaluate(FixedRouter((m,), len(tree.models)), part, cost_model) for m in range(len(tree.models))]
        floor = max((single.quality - QUICK.cost_weight * single.cost).mean() for single in singles)
        optimum = solve(part, cost_model, QUICK.cost_weight, True).value.mean()
        value = logged[f"exact/{split}_quality"] - QUICK.cost_weight * logged[f"exact/{split}_cost"]
        assert logged[f"exact/{split}_gap_closed"] == pytest.approx((value - floor) / (optimum - floor))


def test_runs_alone_on_the_shipped_recording_and_leaves_a_wandb_folder(tmp_path: Path) -> None:
    root = Path(routers.__file__).parent.parent
    recording = root / "results" / "recordings" / "lightweight-offline"
    command = [sys.executable, "-m", "routers.ppo_hierrouter", "--recording", str(recording), "--track"]
    command += ["--total-timesteps", "20000", "--out", str(tmp_path / "policy.safetensors")]
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "policy.safetensors").is_file()
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_help_is_quick_and_names_every_hyper_parameter() -> None:
    code = "import sys; sys.argv = ['x', '--help']\nfrom routers import ppo_hierrouter\n"
    code += "try:\n ppo_hierrouter.main()\nexcept SystemExit:\n print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert shown.rstrip().endswith("False")
    for name in Args.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in shown
