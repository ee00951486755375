from __future__ import annotations

import copy
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
from harness.evaluation.capped import CappedRouter
from harness.evaluation.evaluate import Outcome, evaluate
from pools.errors import UserError
from pools.mdp.optimum import solve
from pools.mdp.tree import Tree
from routers import Router, RouterRequest, RoutingStates, ppo_hierrouter
from routers.call_bounds import CallBounds
from routers.fixed import FixedRouter
from routers.hierrouter import HierRouter
from routers.ppo_hierrouter import Args, Exact, Sampled, plain, request_for
from routers.registry import teach
from routers.states import PARTS, Part
from wandb_file import read_offline

Train = Callable[..., HierRouter]
Evaluate = Callable[[Router], Outcome]
QUICK = Args(total_timesteps=60_000, num_envs=256, cost_weight=0.002, eval_every=5)
SHORT = replace(QUICK, total_timesteps=10_240)
both_learners = pytest.mark.parametrize("advantages", ["exact", "sampled"])


@pytest.fixture
def held_out(request_: RouterRequest) -> Tree:
    return request_.validation


@pytest.fixture
def outcome_of(planted: Tree, held_out: Tree) -> Evaluate:
    return lambda router: evaluate(router, held_out)


def value(outcome: Outcome, cost_weight: float) -> float:
    return float((outcome.quality - cost_weight * outcome.cost).mean())


@both_learners
@pytest.mark.parametrize("allow_stop", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_finds_the_planted_optimum(planted: Tree, train: Train, seed: int, allow_stop: bool, advantages: Any) -> None:
    tree = planted
    router = train(replace(QUICK, seed=seed, allow_stop=allow_stop, advantages=advantages))
    for part in (tree.select("train"), tree.select("validation")):
        optimum = solve(part, QUICK.cost_weight, allow_stop).value.mean()
        assert optimum > 0.8
        assert value(evaluate(router, part), QUICK.cost_weight) >= 0.99 * optimum


@pytest.mark.parametrize(
    ("change", "finds"),
    [
        ({}, True),
        ({"seed": 2}, True),
        ({"explore": 0.0, "entropy_start": 0.001, "learning_rate": 1e-3}, False),
        ({"advantages": "sampled"}, False),
    ],
    ids=str,
)
def test_the_best_single_model_is_a_trap_that_exact_advantages_of_all_nodes_avoid(
    trap: Tree, train: Train, change: dict[str, Any], finds: bool
) -> None:
    held_out = trap.select("validation")
    best = held_out.score[:, held_out.level(1)].mean(axis=0).max()
    outcome = evaluate(train(replace(QUICK, total_timesteps=240_000, cost_weight=1e-5, **change), trap), held_out)
    if finds:
        assert outcome.quality.all() and (outcome.hops == 2).all() and (outcome.calls[:, 0] == 1).all()
    else:
        assert outcome.quality.mean() == pytest.approx(best) and not outcome.calls[:, 0].any()


def test_a_policy_that_sees_what_is_left_does_not_begin_what_it_cannot_end(
    trap: Tree, train: Train, tmp_path: Path
) -> None:
    """A call costs 20. `signpost` and then `left` are always right; under a cap of 20 `left` alone is best, at 0.8."""
    tree = trap.subset(range(len(trap.items)))
    tree.score[:, tree.node((0, 1))] = 1
    held_out, bounds = tree.select("validation"), CallBounds.learn(tree.select("train"))
    best = held_out.score[:, held_out.level(1)].mean(axis=0).max()
    args = replace(QUICK, cost_weight=1e-5, sees=("models",), total_trees=12_000)
    untold, told = train(args, tree), train(replace(args, caps=True, out=tmp_path / "told.safetensors"), tree)
    for cap in (40, np.inf):
        for router in (untold, told):
            outcome = evaluate(CappedRouter(router.within(cap), bounds, cap), held_out)
            assert outcome.quality.all() and (outcome.cost == 40).all()
    assert not evaluate(CappedRouter(untold.within(20), bounds, 20), held_out).quality.any()
    capped = evaluate(CappedRouter(told.within(20), bounds, 20), held_out)
    assert capped.quality.mean() == pytest.approx(best) and best > 0.7 and (capped.cost == 20).all()
    again = routers.load("hierrouter", checkpoint=tmp_path / "told.safetensors")
    assert isinstance(again, HierRouter)
    for cap in (20, 40):
        assert (
            evaluate(again.within(cap), held_out).calls.tolist() == evaluate(told.within(cap), held_out).calls.tolist()
        )


def test_caps_need_exact_advantages_and_stop(trap: Tree, train: Train) -> None:
    for change in ({"advantages": "sampled"}, {"allow_stop": False}):
        with pytest.raises(UserError, match="caps=true needs a recording, advantages=exact and STOP"):
            train(replace(SHORT, caps=True, **change), trap)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stops_where_a_second_call_gains_nothing(
    planted: Tree, train: Train, held_out: Tree, outcome_of: Evaluate, seed: int
) -> None:
    outcome = outcome_of(train(replace(QUICK, cost_weight=1e-5, seed=seed)))
    needed = [2 if item.task == "sums" else 1 for item in held_out.items]
    assert outcome.hops.tolist() == needed and outcome.quality.all()


def test_over_live_models_it_samples_and_asks_for_what_it_needs_alone(planted_live: Callable[[], Tree]) -> None:
    tree = planted_live()
    parts, args = [tree.select("train"), tree.select("validation")], replace(SHORT, advantages="exact")
    router = teach("hierrouter", request_for(args, *parts), plain(args)).router
    assert isinstance(router, HierRouter) and not parts[1].known[:, 1:].any()
    assert 0 < parts[0].known[:, 1:].sum() <= 10_240
    assert evaluate(router, parts[1]).quality.mean() > 0.2


@pytest.mark.parametrize(
    ("args", "live", "learner"),
    [
        (SHORT, False, Exact),
        (SHORT, True, Sampled),
        (replace(SHORT, advantages="sampled"), False, Sampled),
        (replace(SHORT, preset="paper"), False, Sampled),
    ],
)
def test_which_learner_is_used(
    args: Args, live: bool, learner: type, planted: Tree, planted_live: Callable[[], Tree],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    used: list[type] = []
    for each in (Exact, Sampled):
        begin = each.__init__
        monkeypatch.setattr(
            each, "__init__", lambda self, *given, begin=begin: (used.append(type(self)), begin(self, *given))[1]
        )
    part = (planted_live() if live else planted).select("train")
    request = request_for(replace(args, total_timesteps=1), part, planted.select("validation"))
    ppo_hierrouter.train(replace(args, total_timesteps=1), part, request.validation, request)
    assert used == [learner]


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
    at_the_end, beyond = outcome_of(trained.at(0.05)), outcome_of(trained.at(1e9))
    assert at_the_end.end.tolist() == beyond.end.tolist()
    assert trained.notes([0.002]) == [] and trained.notes([1.0]) == ["trained at cost weights 0 to 0.05"]


@pytest.mark.parametrize("sees", [("query",), ("surface",), ("models", "query"), ("response", "query", "cost"), PARTS])
def test_what_the_policy_sees_is_an_option_that_the_checkpoint_keeps(
    train: Train, outcome_of: Evaluate, sees: tuple[Part, ...], tmp_path: Path
) -> None:
    out = tmp_path / "policy.safetensors"
    trained, loaded = train(replace(QUICK, sees=sees, out=out)), routers.load("hierrouter", checkpoint=out)
    assert isinstance(loaded, HierRouter) and loaded.inputs.features.sees == sees
    outcomes = [outcome_of(router) for router in (trained, loaded)]
    assert outcomes[0].quality.tolist() == outcomes[1].quality.tolist()
    assert outcomes[0].quality.mean() > 0.9


def test_the_papers_preset(planted: Tree, train: Train, held_out: Tree, outcome_of: Evaluate, tmp_path: Path) -> None:
    out = tmp_path / "policy.safetensors"
    trained = train(replace(QUICK, preset="paper", cost_weights=(0.0, 1.0), sees=("query",), out=out))
    assert trained.inputs.features.sees == ("query", "response", "cost")
    assert trained.fitted_for.cost_weights == ()
    assert trained.notes([0.002]) == [] and trained.notes([1.0]) == ["trained at cost weight 0.002 alone"]
    for router in (trained, routers.load("hierrouter", checkpoint=out)):
        outcome = outcome_of(router)
        assert (outcome.hops == 2).all()
        optimum = solve(held_out, QUICK.cost_weight, allow_stop=False).value.mean()
        assert value(outcome, QUICK.cost_weight) >= 0.99 * optimum


@both_learners
def test_the_seed_alone_decides_not_the_number_of_threads(train: Train, tmp_path: Path, advantages: Any) -> None:
    files = []
    for threads, seed in ((1, 1), (2, 1), (1, 2)):
        torch.set_num_threads(threads)
        out = tmp_path / f"{threads}-{seed}.safetensors"
        train(replace(SHORT, seed=seed, out=out, advantages=advantages))
        assert torch.get_num_threads() == threads
        files.append(out.read_bytes())
    assert files[0] == files[1] != files[2]


@both_learners
def test_every_option_of_ppo_learns(train: Train, outcome_of: Evaluate, advantages: Any) -> None:
    args = replace(QUICK, clip_vloss=True, anneal_lr=False, norm_adv=False, target_kl=0.05, select=False)
    router = train(replace(args, advantages=advantages))
    assert outcome_of(router).quality.mean() > 0.9


@pytest.mark.parametrize(
    ("how", "own", "others"),
    [
        ({"preset": "paper", "allow_stop": False}, (1e-3, 4, 0.0), (3e-3, 2, 0.8)),
        ({"advantages": "sampled"}, (1e-3, 4, 0.0), (3e-3, 2, 0.8)),
        ({"advantages": "exact"}, (3e-3, 2, 0.8), (1e-3, 4, 0.0)),
    ],
    ids=str,
)
def test_either_way_of_learning_has_a_pace_of_its_own(
    train: Train, how: dict[str, Any], own: tuple[float, int, float], others: tuple[float, int, float]
) -> None:
    def weights(**pace: Any) -> list[Any]:
        args = replace(SHORT, total_trees=640, **how, **pace)
        return [parameter.tolist() for parameter in train(args).agent.nets.actor.parameters()]

    names = ("learning_rate", "num_minibatches", "average")
    by_default = weights()
    assert by_default == weights(**dict(zip(names, own, strict=True)))
    for name, value in zip(names, others, strict=True):
        assert by_default != weights(**{name: value}), name


@both_learners
def test_resumed_equals_uninterrupted(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advantages: Any
) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    args = replace(QUICK, save_every=1, advantages=advantages, cost_weights=(0.0, 0.002, 0.05))
    train(replace(args, out=whole))
    stopped = replace(args, out=out)
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


def test_a_training_is_known_by_what_responses_say_and_how_answers_are_read(planted: Tree) -> None:
    part = planted.select("train")
    request = request_for(QUICK, part, None)
    known = ppo_hierrouter._identity(QUICK, part, None, request)
    others = copy.copy(part), copy.copy(part)
    others[0].contexts = [replace(context, responses=(*context.responses, "more")) for context in part.contexts]
    others[1].answers = "letter"
    assert known == ppo_hierrouter._identity(QUICK, copy.copy(part), None, request)
    assert all(known != ppo_hierrouter._identity(QUICK, other, None, request) for other in others)


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


@both_learners
def test_logs_under_the_usual_names_and_what_was_kept(planted: Tree, advantages: Any) -> None:
    rows: list[tuple[str, int, dict[str, float]]] = []
    args = replace(SHORT, advantages=advantages)
    tree = planted
    parts = tree.select("train"), tree.select("validation")
    said: list[tuple[int, int, str]] = []
    request = request_for(
        args,
        *parts,
        report=lambda *words: said.append(words),
        log=lambda name, step, figures: rows.append((name, step, dict(figures))),
    )
    router = teach("hierrouter", request, plain(args)).router
    logged = {key: figure for _, _, figures in rows for key, figure in figures.items()}
    assert {name for name, _, _ in rows} == {"hierrouter-1"}
    assert [step for _, step, _ in rows] == sorted(step for _, step, _ in rows)
    assert {done: total for done, total, _ in said} == {step: rows[-1][1] for _, step, _ in rows}
    losses: tuple[str, ...] = ("policy_loss", "entropy", "approx_kl", "clipfrac")
    of_one = {"exact": ("entropy_coef",), "sampled": ("value_loss", "old_approx_kl", "explained_variance")}
    losses += of_one[advantages]
    charts = ("learning_rate", "SPS", "episodic_return", "episodic_length")
    exact = [f"{s}_{key}" for s in ("train", "validation") for key in ("quality", "cost", "regret", "gap_closed")]
    wanted = [f"losses/{n}" for n in losses] + [f"charts/{n}" for n in charts] + [f"exact/{n}" for n in exact]
    assert set(wanted) <= set(logged)
    assert all(np.isfinite(figure) for figure in logged.values())
    part, weight = parts[1], QUICK.cost_weight
    found = [f"exact/validation_{key}" for key in ("quality", "cost", "greedy_value")]
    values = {step: [figures[key] for key in found] for _, step, figures in rows if found[0] in figures}
    kept = [logged[f"kept/{key}"] for key in ("quality", "cost", "greedy_value")]
    assert kept == values[int(logged["kept/step"])] and kept[-1] == max(v for *_, v in values.values())
    stakes = 1 + weight * parts[0].cost[:, parts[0].level(1)].mean(axis=0).max()
    assert logged["kept/greedy_value"] == pytest.approx(value(evaluate(router, part), weight) / stakes)
    floor = max(value(evaluate(FixedRouter((m,), 3), part), weight) for m in range(3))
    optimum = solve(part, weight, True).value.mean()
    attained = logged["exact/validation_quality"] - weight * logged["exact/validation_cost"]
    assert logged["exact/validation_gap_closed"] == pytest.approx((attained - floor) / (optimum - floor))


def test_runs_alone_on_a_recording_and_leaves_a_wandb_folder(small_recording: Path, tmp_path: Path) -> None:
    root = Path(routers.__file__).parent.parent
    command = [sys.executable, "-m", "routers.ppo_hierrouter", "--recording", str(small_recording), "--track"]
    command += ["--wandb-tags", "a", "b", "--total-trees", "8192", "--out", str(tmp_path / "policy.safetensors")]
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "policy.safetensors").is_file()
    logged = read_offline(tmp_path)
    assert logged.settings["tags"] == ["a", "b"] and logged.settings["job_type"] == "train"
    (artifact,) = (found for found in logged.artifacts.values() if found["type"] == "model")
    assert list(artifact["files"]) == ["policy.safetensors"] and artifact["metadata"]["router"] == "hierrouter"
    assert logged.summary["kept/step"] > 0
    other = subprocess.run([*command, "--seed", "2"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert other.returncode == 2 and "holds another training (hierrouter, seed 1; it differs in seed)" in other.stderr
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--hidden 0", "hidden=0: Input should be greater than 0"),
        ("--learning-rate nan", "finite number"),
        ("--seed -1", "a whole number from 0"),
        ("--cost-weights 0.1 -1", "at least 0"),
        ("--explore 1.5", "explore=1.5: Input should be less than or equal to 1"),
        ("--entropy-end 0", "entropy_end=0.0: Input should be greater than 0"),
        ("--max-hops 7", "the recording has 3 hops"),
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
