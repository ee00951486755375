"""Environment steps per second, learning included: our trainer, CleanRL's `ppo.py`, Stable-Baselines3's PPO.

    pip install stable-baselines3 tensorboard
    git clone https://github.com/vwxyzjn/cleanrl DIR
    python benchmarks/bench_ppo.py --cleanrl DIR/cleanrl/ppo.py

All learn on the train items of the same recording, on one thread. The two others run with their own default settings on
`pools.mdp.env.RoutingEnv`, flattened, in which every distinct text is embedded once, before the clock starts; ours runs
with its defaults, its exact evaluations included. Printed moreover: how long ours takes to 95% of its final return.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import tyro

from pools.data.recording import load_recording
from pools.mdp.env import RoutingEnv
from pools.mdp.tree import Tree
from routers.encoders.base import ContextEncoder, build_encoder
from routers.ppo_hierrouter import Args, request_for, train

ENVIRONMENT = "HierRouter-v0"


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
    """Steps per second, as CleanRL prints them itself at the end."""
    argv, folder, printed = sys.argv, Path.cwd(), io.StringIO()
    sys.argv = [str(path), "--env-id", ENVIRONMENT, "--total-timesteps", str(steps), "--no-cuda"]
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(printed):
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

    model = PPO("MlpPolicy", make_vec_env(ENVIRONMENT, n_envs=4), device="cpu", seed=1)
    start = time.perf_counter()
    model.learn(steps)
    return model.num_timesteps / (time.perf_counter() - start)


def ours(tree: Tree, validation: Tree) -> tuple[float, float]:
    """Steps per second of a whole training, and the seconds after which its return was at 95% of its last one."""
    seconds: list[float] = []
    returns: list[float] = []

    def report(done: int, total: int, said: str) -> None:
        seconds.append(time.perf_counter() - start)
        returns.append(float(said.split()[1].rstrip(",")))

    start = time.perf_counter()
    train(Args(), tree, validation, request_for(Args(), tree, validation, report))
    whole = time.perf_counter() - start
    # A moving mean over five iterations: a single one's sampled return is noisy.
    smooth = np.convolve(returns, np.ones(5) / 5, "valid")
    reached = seconds[4 + int(np.argmax(smooth >= 0.95 * smooth[-1]))]
    batch = Args.num_envs * Args.num_steps
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
    speeds: dict[str, list[float]] = {"ours": [], "CleanRL": [], "Stable-Baselines3": []}
    reached: list[float] = []
    for _ in range(options.rounds):
        speed, after = ours(tree, validation)
        speeds["ours"].append(speed)
        reached.append(after)
        if options.cleanrl is not None:
            speeds["CleanRL"].append(cleanrl(options.cleanrl.resolve(), options.steps))
        if options.sb3:
            speeds["Stable-Baselines3"].append(stable_baselines(options.steps))
    best = {name: max(measured) for name, measured in speeds.items() if measured}
    for name, speed in best.items():
        print(
            f"{name}: {speed:,.0f} environment steps/s with learning; ours is {best['ours'] / speed:.1f} times as fast"
        )
    print(f"ours reaches 95% of its final return after {np.median(reached):.1f} s (median)")


if __name__ == "__main__":
    main()
