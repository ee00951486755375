"""What each part of HierRouter is worth: trainings that differ in one of them, on one recording, over seeds.

    python benchmarks/ablation.py --seeds 5
    python benchmarks/ablation.py --variants default "+ sentence" --weights DIR
    python benchmarks/ablation.py --recording FOLDER --cost-weight 5 --cost-weights 0 1 2 5 10 20
    python benchmarks/ablation.py --variants default "no STOP" --equal-rates

Of the greedy policy, at `--cost-weight`, mean and standard deviation over seeds: value on validation and test items,
quality and cost on test items, the share of test items on which the most expensive model is called more than once, and
processor seconds of a training. Defaults are chosen by the column `validation`; the others are for the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from harness.evaluation.evaluate import Outcome, evaluate
from harness.evaluation.metrics import value
from pools.cost import COST_WEIGHT, CostModel, paper_cost, register_cost_model
from pools.data.recording import load_recording
from pools.mdp.tree import Tree
from pools.pool import Pool
from routers import Router, RouterRequest, load
from routers.ppo_hierrouter import Args, plain, request_for
from routers.states import PARTS, TEXTS

DEFAULT = Args()
LEFT_OUT = {f"without {part}": replace(DEFAULT, sees=tuple(seen for seen in PARTS if seen != part)) for part in PARTS}
VARIANTS: dict[str, Args] = {
    "default": DEFAULT,
    "sees everything": replace(DEFAULT, sees=PARTS),
    **LEFT_OUT,
    "without texts": replace(DEFAULT, sees=tuple(part for part in PARTS if part not in TEXTS)),
    "sampled advantages": replace(DEFAULT, advantages="sampled"),
    "not normalised by cost weight": replace(DEFAULT, norm_adv=False),
    "no exploring": replace(DEFAULT, explore=0.0),
    "entropy constant": replace(DEFAULT, entropy_start=0.01, entropy_end=0.01),
    "STOP starts level": replace(DEFAULT, stop_bias=0.0),
    "exact advantages and nothing else": replace(
        DEFAULT, explore=0.0, entropy_start=0.01, entropy_end=0.01, stop_bias=0.0
    ),
    "the last policy, not the best": replace(DEFAULT, select=False),
    "one cost weight": DEFAULT,  # the rest are of several, as the policies that ship
    "no STOP": replace(DEFAULT, allow_stop=False),
    "preset paper": replace(DEFAULT, preset="paper", allow_stop=False),
    "+ sentence": replace(DEFAULT, encoder="sentence"),
}
ALONE = ("one cost weight", "preset paper")


@dataclass(frozen=True)
class Options:
    """What is compared."""

    recording: Path = Args.recording
    """FOLDER of a recording; one that was imported must be complete"""
    variants: tuple[str, ...] = tuple(name for name in VARIANTS if name != "+ sentence")
    seeds: int = 5
    cost_weight: float = COST_WEIGHT
    """the lambda that policies are used at"""
    cost_weights: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 30.0)
    """the lambdas that they are trained at: those of the policies that ship"""
    weights: Path | None = None
    """folder that holds the sentence encoder's weights"""
    share: float = 1.0
    """of the default training that each gets"""
    equal_rates: bool = False
    """every model at the rate of the most expensive one, so that no hop is next to free"""


@register_cost_model("equal rates")
def equal_rates(pool: Pool) -> CostModel:
    """The paper's cost model, every model at the rate of the most expensive one."""
    rate = max(model.base_rate for model in pool.models)
    return paper_cost((rate,) * len(pool.models), pool.cost_unit, pool.rates)


def again(outcome: Outcome, tree: Tree) -> float:
    """Share of items on which the most expensive model is called more than once."""
    expensive = int(tree.cost[:, tree.level(1)].mean(axis=0).argmax())
    called = np.array([tree.pipeline(node).count(expensive) for node in range(tree.nodes)])
    return float(outcome.end[:, called > 1].sum(axis=1).mean())


def figures(router_for: Callable[[Tree], Router], parts: dict[str, Tree], cost_weight: float) -> list[float]:
    """Value on validation and test items, then quality, cost and repeated calls on test items."""
    validated, tested = (evaluate(router_for(parts[name]), parts[name]) for name in ("validation", "test"))
    values = [float(value(outcome, cost_weight).mean()) for outcome in (validated, tested)]
    return [*values, float(tested.quality.mean()), float(tested.cost.mean()), again(tested, parts["test"])]


def of_training(args: Args, parts: dict[str, Tree]) -> list[float]:
    """The figures of a HierRouter that is trained now."""
    request = request_for(args, parts["train"], parts["validation"])
    router = load("hierrouter", request, options=plain(args))
    return figures(lambda tree: router, parts, args.cost_weight)


def of_yardstick(name: str, parts: dict[str, Tree], cost_weight: float) -> list[float]:
    """The figures of a router that reads outcomes: of train items, or of those that it is asked for."""

    def router_for(tree: Tree) -> Router:
        request = RouterRequest(
            models=tree.models, max_hops=tree.max_hops, cost_model=tree.cost_model, cost_weight=cost_weight,
            train=parts["train"], validation=parts["validation"], evaluation=tree,
        )  # fmt: skip
        return load(name, request)

    return figures(router_for, parts, cost_weight)


def main() -> None:
    """Train every variant with every seed and print the table."""
    options = tyro.cli(Options, description=__doc__)
    recording = load_recording(options.recording, "equal rates" if options.equal_rates else "paper")
    parts = {name: recording.tree.select(name) for name in ("train", "validation", "test")}
    columns = ("validation", "test", "test quality", "test cost", "called twice", "seconds")
    print(f"| variant | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name in options.variants:
        given = replace(VARIANTS[name], cost_weight=options.cost_weight, weights=options.weights)
        given = replace(given, total_trees=max(1, int(options.share * given.total_trees)))
        given = replace(given, total_timesteps=max(1, int(options.share * given.total_timesteps)))
        given = given if name in ALONE else replace(given, cost_weights=options.cost_weights)
        start = time.process_time()
        found = np.array([of_training(replace(given, seed=n + 1), parts) for n in range(options.seeds)])
        seconds = (time.process_time() - start) / options.seeds
        means, spreads = found.mean(axis=0), found.std(axis=0, ddof=int(options.seeds > 1))
        cells = [f"{mean:.4f} ± {spread:.4f}" for mean, spread in zip(means[:-1], spreads[:-1], strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {means[-1]:.1%} ± {spreads[-1]:.1%} | {seconds:.1f} |", flush=True)
    for name in ("best-pipeline-per-task", "oracle"):
        *numbers, share = of_yardstick(name, parts, options.cost_weight)
        print(f"| {name} | {' | '.join(f'{number:.4f}' for number in numbers)} | {share:.1%} | |", flush=True)


if __name__ == "__main__":
    main()
