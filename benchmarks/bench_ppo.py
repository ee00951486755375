"""Decisions per second, learning included: our two learners, CleanRL's `ppo.py`, Stable-Baselines3's PPO.

    pip install stable-baselines3 tensorboard
    git clone https://github.com/vwxyzjn/cleanrl DIR
    python benchmarks/bench_ppo.py --cleanrl DIR/cleanrl/ppo.py

All learn on the train items of the same recording, on one thread. Seconds are of the processor, so that others on the
machine do not count; on an idle one they are those of the clock. Peers run with their own default settings on
`pools.mdp.env.RoutingEnv`, flattened, in which every distinct text is embedded once, before the clock starts; and
Stable-Baselines3 also on `pools.mdp.vector_env.RoutingVectorEnv` with as many environments and steps as ours, once with
its own minibatches and epochs (64 steps, 10), once with ours. Ours runs with its defaults; encoder, features and exact
evaluations are included.

A step of a peer and of our sampled learner is a decision of a drawn episode, so these are compared. With exact
advantages nothing is drawn: a step is a decision node that is weighed, all of its actions at once, and what compares
our two learners is how long each takes to 95% of its own last value.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from pools.data.recording import load_recording
from pools.mdp.env import RoutingEnv
from pools.mdp.tree import Tree
from pools.mdp.vector_env import RoutingVectorEnv
from routers.encoders.base import ContextEncoder, build_encoder
from routers.ppo_hierrouter import Args, request_for, train

ENVIRONMENT = "HierRouter-v0"
EXACT, SAMPLED = "ours, exact advantages", "ours, sampled advantages"


@dataclass(frozen=True)
class Options:
    """What is measured."""

    cleanrl: Path | None = None
    """CleanRL's ppo.py; left out without"""
    sb3: bool = True
    """also Stable-Baselines3"""
    recording: Path = Args.recording
    steps: int = 20_480
    """environment steps of the two others; ours takes all that it trains for"""
    rounds: int = 3
    """each is measured so often, in turn; the best round counts"""


def environment(tree: Tree, embed: ContextEncoder) -> gymnasium.Env[Any, Any]:
    """The recorded MDP as the two others take it: a flat observation."""
    return gymnasium.wrappers.FlattenObservation(RoutingEnv(tree, embed, Args.cost_weight, True))


def cleanrl(path: Path, steps: int) -> float:
    """Steps per second, as CleanRL prints them itself at the end; its clock shows processor time."""
    argv, folder, printed = sys.argv, Path.cwd(), io.StringIO()
    sys.argv = [str(path), "--env-id", ENVIRONMENT, "--total-timesteps", str(steps), "--no-cuda"]
    clock = mock.patch("time.time", time.process_time)
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(printed), clock:
        os.chdir(scratch)  # it writes its logs where it runs
        try:
            runpy.run_path(str(path), run_name="__main__")
        finally:
            os.chdir(folder)
            sys.argv = argv
    return float(re.findall(r"SPS: (\d+)", printed.getvalue())[-1])


def stable_baselines(steps: int) -> float:
    """Steps per second of Stable-Baselines3's defaults, on four environments as CleanRL."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    return speed_of(PPO("MlpPolicy", make_vec_env(ENVIRONMENT, n_envs=4), device="cpu", seed=1), steps)


def stable_baselines_on_ours(tree: Tree, embed: ContextEncoder, iterations: int, **settings: int) -> float:
    """Steps per second of Stable-Baselines3 on our vector environment, with as many environments and steps."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv

    class Ours(VecEnv):  # type: ignore[misc, unused-ignore] # the package need not be installed
        """The vector environment as Stable-Baselines3 takes it: observations flattened, as `FlattenObservation`."""

        def __init__(self, envs: RoutingVectorEnv) -> None:
            self.envs = envs
            space = gymnasium.spaces.flatten_space(envs.single_observation_space)
            self.hops = np.eye(tree.max_hops + 1, dtype=np.float32)
            super().__init__(envs.num_envs, space, envs.single_action_space)

        def flat(self, seen: dict[str, Any]) -> NDArray[np.float32]:
            """`[B, d]`, in the order of a space, which is the alphabet's."""
            columns = {**seen, "hop": self.hops[seen["hop"]]}
            return np.concatenate([columns[name] for name in sorted(columns)], axis=1)

        def reset(self) -> NDArray[np.float32]:
            """Start all episodes."""
            return self.flat(self.envs.reset(seed=1)[0])

        def step_async(self, actions: NDArray[Any]) -> None:
            """Keep the actions."""
            self.actions = actions

        def step_wait(self) -> Any:
            """Step; ended episodes begin anew at once."""
            rewards, ended = self.envs.advance(self.actions)
            if ended.any():
                self.envs.restart(ended)
            return self.flat(self.envs.observe()), rewards.astype(np.float32), ended, [{}] * self.num_envs

        def close(self) -> None:
            """There is nothing to close."""

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            """None is."""
            return [False] * self.num_envs

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            """The same of each."""
            return [getattr(self.envs, attr_name)] * self.num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            """Not asked for."""
            raise NotImplementedError

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            """Not asked for."""
            raise NotImplementedError

    envs = Ours(RoutingVectorEnv(tree, embed, Args.num_envs, Args.cost_weight, True))
    model = PPO("MlpPolicy", envs, device="cpu", seed=1, n_steps=Args.num_steps, **settings)
    return speed_of(model, iterations * Args.num_envs * Args.num_steps)


def speed_of(model: Any, steps: int) -> float:
    """Steps per processor second of a model of Stable-Baselines3."""
    start = time.process_time()
    model.learn(steps)
    return float(model.num_timesteps / (time.process_time() - start))


def ours(args: Args, tree: Tree, validation: Tree) -> tuple[float, float]:
    """Steps per second of a whole training, and the seconds after which its return was at 95% of its last one."""
    seconds: list[float] = []
    returns: list[float] = []

    def report(done: int, total: int, said: str) -> None:
        seconds.append(time.process_time() - start)
        returns.append(float(said.split()[1].rstrip(",")))

    start = time.process_time()
    train(args, tree, validation, request_for(args, tree, validation, report))
    whole = time.process_time() - start
    # A moving mean over five iterations: the return of the items that a single one draws is noisy.
    smooth = np.convolve(returns, np.ones(5) / 5, "valid")
    reached = seconds[4 + int(np.argmax(smooth >= 0.95 * smooth[-1]))]
    exact = args.num_trees * tree.decision_nodes
    batch = exact if args.advantages == "exact" else args.num_envs * args.num_steps
    return len(returns) * batch / whole, reached


def main() -> None:
    """Measure in turn and print the ratios."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    recording = load_recording(options.recording)
    tree, validation = recording.tree.select("train"), recording.tree.select("validation")
    embed = ContextEncoder(build_encoder("hashing", tree.contexts))
    embed(tree.contexts)
    gymnasium.register(ENVIRONMENT, lambda **_: environment(tree, embed))
    learners = {EXACT: Args(), SAMPLED: replace(Args(), advantages="sampled")}
    peers: dict[str, Callable[[], float]] = {}
    if options.cleanrl is not None:
        peers["CleanRL"] = partial(cleanrl, options.cleanrl.resolve(), options.steps)
    if options.sb3:
        peers["Stable-Baselines3"] = partial(stable_baselines, options.steps)
        on_ours = partial(stable_baselines_on_ours, tree, embed)
        minibatch = Args.num_envs * Args.num_steps // 4  # those of ours, of sampled advantages
        peers["Stable-Baselines3, our vector environment"] = partial(on_ours, iterations=4)
        peers["the same, our minibatches and epochs"] = partial(
            on_ours, iterations=8, batch_size=minibatch, n_epochs=Args.update_epochs
        )
    speeds: dict[str, list[float]] = {name: [] for name in (*learners, *peers)}
    reached: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(options.rounds):
        for name, args in learners.items():
            speed, after = ours(args, tree, validation)
            speeds[name].append(speed)
            reached[name].append(after)
        for name, measure in peers.items():
            speeds[name].append(measure())
    best = {name: max(measured) for name, measured in speeds.items()}
    print("| trainer | steps/s | ours, sampled, is faster by | 95% of its last value after |\n|---|---:|---:|---:|")
    for name, most in best.items():
        ratio = f"{best[SAMPLED] / most:.1f}" if name in peers else ""
        within = f"{np.median(reached[name]):.1f} s" if name in learners else ""
        print(f"| {name} | {most:,.0f} | {ratio} | {within} |")


if __name__ == "__main__":
    main()
