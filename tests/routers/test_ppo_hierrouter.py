from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import routers
from harness.evaluation.evaluate import Outcome, evaluate
from pools.errors import UserError
from pools.mdp.optimum import solve
from pools.mdp.tree import Tree
from routers import Router, RouterRequest, RoutingStates, ppo_hierrouter
from routers.encoders.base import Part
from routers.fixed import FixedRouter
from routers.hierrouter import HierRouter
from routers.ppo_hierrouter import Args

Train = Callable[[Args], HierRouter]
Evaluate = Callable[[Router], Outcome]
QUICK = Args(total_timesteps=60_000, num_envs=256, cost_weight=0.002, eval_every=5)
SHORT = replace(QUICK, total_timesteps=10_240)


@pytest.fixture
def held_out(request_: RouterRequest) -> Tree:
    return request_.validation


@pytest.fixture
def outcome_of(planted: Tree, held_out: Tree) -> Evaluate:
    return lambda router: evaluate(router, held_out)


def value(outcome: Outcome, cost_weight: float) -> float:
    return float((outcome.quality - cost_weight * outcome.cost).mean())


@pytest.mark.parametrize("allow_stop", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_finds_the_planted_optimum(planted: Tree, train: Train, seed: int, allow_stop: bool) -> None:
    tree = planted
    router = train(replace(QUICK, seed=seed, allow_stop=allow_stop))
    for part in (tree.select("train"), tree.select("validation")):
        optimum = solve(part, QUICK.cost_weight, allow_stop).value.mean()
        assert optimum > 0.8
        assert value(evaluate(router, part), QUICK.cost_weight) >= 0.99 * optimum


def test_one_policy_is_optimal_at_every_cost_weight_that_it_was_shown(
    planted: Tree, train: Train, held_out: Tree, outcome_of: Evaluate, tmp_path: Path
) -> None:
    tree = planted
    out, weights = tmp_path / "policy.safetensors", (0.0, 0.002, 0.05)
    args = replace(QUICK, cost_weights=weights, total_timesteps=120_000, out=out)
    trained, hops = train(args), set()
    for weight in weights:
        outcome = outcome_of(trained.at(weight))
        assert value(outcome, weight) >= solve(held_out, weight, True).value.mean() - 0.02
        hops.add(round(float(outcome.hops.mean()), 2))
    assert len(hops) > 1, "where a hop costs more than an answer is worth, fewer are made"
    request = RouterRequest(models=tree.models, max_hops=2, cost_model=tree.cost_model, cost_weight=0.05)
    assert routers.load("hierrouter", request, checkpoint=out).cost_weight == 0.05  # type: ignore[attr-defined]
    assert routers.load("hierrouter", checkpoint=out).cost_weight == args.cost_weight  # type: ignore[attr-defined]
    assert trained.notes([0.002]) == [] and trained.notes([1.0]) == ["trained at cost weights 0 to 0.05"]


@pytest.mark.parametrize("sees", [("query",), ("query", "models"), ("response", "query", "agreement", "length")])
def test_what_the_policy_sees_is_an_option_that_the_checkpoint_keeps(
    train: Train, outcome_of: Evaluate, sees: tuple[Part, ...], tmp_path: Path
) -> None:
    out = tmp_path / "policy.safetensors"
    trained, loaded = train(replace(QUICK, sees=sees, out=out)), routers.load("hierrouter", checkpoint=out)
    assert isinstance(loaded, HierRouter) and loaded.embed.sees == sees
    outcomes = [outcome_of(router) for router in (trained, loaded)]
    assert outcomes[0].quality.tolist() == outcomes[1].quality.tolist()
    assert outcomes[0].quality.mean() > 0.9


def test_the_papers_preset(planted: Tree, train: Train, held_out: Tree, outcome_of: Evaluate, tmp_path: Path) -> None:
    out = tmp_path / "policy.safetensors"
    trained = train(replace(QUICK, preset="paper", cost_weights=(0.0, 1.0), sees=("query",), out=out))
    assert (trained.embed.sees, trained.fitted_for.cost_weights) == (("query", "response"), ())
    assert trained.notes([0.002]) == [] and trained.notes([1.0]) == ["trained at cost weight 0.002 alone"]
    for router in (trained, routers.load("hierrouter", checkpoint=out)):
        outcome = outcome_of(router)
        assert (outcome.hops == 2).all()
        optimum = solve(held_out, QUICK.cost_weight, allow_stop=False).value.mean()
        assert value(outcome, QUICK.cost_weight) >= 0.99 * optimum


def test_the_seed_alone_decides_not_the_number_of_threads(train: Train, tmp_path: Path) -> None:
    files = []
    for threads, seed in ((1, 1), (2, 1), (1, 2)):
        torch.set_num_threads(threads)
        out = tmp_path / f"{threads}-{seed}.safetensors"
        train(replace(SHORT, seed=seed, out=out))
        assert torch.get_num_threads() == threads
        files.append(out.read_bytes())
    assert files[0] == files[1] != files[2]


def test_every_option_of_ppo_learns(train: Train, outcome_of: Evaluate) -> None:
    router = train(replace(QUICK, clip_vloss=True, anneal_lr=False, norm_adv=False, target_kl=0.05, select=False))
    assert outcome_of(router).quality.mean() > 0.9


def test_resumed_equals_uninterrupted(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    train(replace(QUICK, out=whole, save_every=1))
    stopped = replace(QUICK, out=out, save_every=1)
    save = ppo_hierrouter._save

    def save_then_stop(path: Path, identity: str, iteration: int, *rest: object) -> None:
        save(path, identity, iteration, *rest)
        if iteration == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(ppo_hierrouter, "_save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    monkeypatch.setattr(ppo_hierrouter, "_save", save)
    assert not out.exists()
    with pytest.raises(UserError, match="was stopped"):
        train(stopped)
    with pytest.raises(UserError, match="nothing to resume"):
        train(replace(stopped, resume=True, out=tmp_path / "other.safetensors"))
    train(replace(stopped, resume=True))
    assert out.read_bytes() == whole.read_bytes()
    with pytest.raises(UserError, match="other arguments"):
        train(replace(stopped, resume=True, gae_lambda=0.5))


def test_a_checkpoint_is_all_a_router_needs(planted: Tree, train: Train, tmp_path: Path) -> None:
    tree = planted
    out = tmp_path / "policy.safetensors"
    trained, loaded = train(replace(QUICK, out=out)), routers.load("hierrouter", checkpoint=out)
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
    assert (chance[np.arange(len(hop)), stochastic.act(states)] > 0).all()


def test_a_checkpoint_for_something_else_is_refused(planted: Tree, train: Train, tmp_path: Path) -> None:
    tree = planted
    out, junk = tmp_path / "policy.safetensors", tmp_path / "junk.safetensors"
    train(replace(SHORT, out=out))
    junk.write_bytes(b"junk")
    here = RouterRequest(models=tree.models, max_hops=2, cost_model=tree.cost_model)
    assert routers.load("hierrouter", here, checkpoint=out)
    for request, path, message in (
        (replace(here, models=("x", "y")), out, "the pool has x, y"),
        (replace(here, max_hops=3), out, "for 2 hops"),
        (replace(here, allow_stop=False), out, "may stop early"),
        (
            replace(here, cost_model=replace(tree.cost_model, name="dollars")),
            out,
            "the cost model paper",
        ),
        (here, tmp_path / "none.safetensors", "no such checkpoint"),
        (here, junk, "not the checkpoint of a router"),
    ):
        with pytest.raises(UserError, match=message):
            routers.load("hierrouter", request, checkpoint=path)


def test_tracks_with_the_usual_names(planted: Tree, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    logged: dict[str, float] = {}

    class Run:
        def log(self, figures: dict[str, float], step: int) -> None:
            logged.update(figures)

        def finish(self) -> None:
            pass

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    train(replace(SHORT, track=True))
    losses = ("value_loss", "policy_loss", "entropy", "old_approx_kl", "approx_kl", "clipfrac", "explained_variance")
    charts = ("learning_rate", "SPS", "episodic_return", "episodic_length")
    exact = [f"{s}_{key}" for s in ("train", "validation") for key in ("quality", "cost", "regret", "gap_closed")]
    wanted = [f"losses/{n}" for n in losses] + [f"charts/{n}" for n in charts] + [f"exact/{n}" for n in exact]
    assert set(wanted) <= set(logged)
    assert all(np.isfinite(figure) for figure in logged.values())
    tree = planted
    part, weight = tree.select("validation"), QUICK.cost_weight
    floor = max(value(evaluate(FixedRouter((m,), 3), part), weight) for m in range(3))
    optimum = solve(part, weight, True).value.mean()
    attained = logged["exact/validation_quality"] - weight * logged["exact/validation_cost"]
    assert logged["exact/validation_gap_closed"] == pytest.approx((attained - floor) / (optimum - floor))


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--hidden 0", "hidden=0: Input should be greater than 0"),
        ("--learning-rate nan", "finite number"),
        ("--seed -1", "a whole number from 0"),
        ("--cost-weights 0.1 -1", "at least 0"),
        ("--sees models", "query, response or both"),
        ("--max-hops 7", "the recording has 2 hops"),
        ("--resume", "name that checkpoint"),
        ("--out .", "no place for a file"),
    ],
)
def test_bad_input_is_one_line(
    arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ppo_hierrouter", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        ppo_hierrouter.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 1


def test_help_is_quick_and_names_every_hyper_parameter() -> None:
    code = "import sys; sys.argv = ['x', '--help']\nfrom routers import ppo_hierrouter\n"
    code += "try:\n ppo_hierrouter.main()\nexcept SystemExit:\n print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert shown.rstrip().endswith("False")
    for name in Args.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in shown
