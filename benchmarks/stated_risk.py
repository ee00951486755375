"""How often `--no-worse-than` passes a router that is below the model by more than the margin: simulated, truth known.

python benchmarks/stated_risk.py prints the tables of docs/results/budgets.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tyro

from harness.evaluation.risk import p_value
from harness.runs.goals import Goals, set_and_judge
from harness.runs.routers import RunRouter
from pools.cost import recorded_cost
from pools.mdp.tree import Tree
from pools.types import Generation, GenerationSettings, Item, Split
from routers import RouterRequest
from routers.registry import teach

STRONG, WEAK, COST = 0.7, 0.59, (10.0, 1.0)
"""Quality of the model, and of each of the others, which cost a tenth and are below by a bit more than the margin."""

SCORES = np.array([1.0, 0.0, -1.0])
"""What a router may be ahead on an item."""


@dataclass(frozen=True)
class Options:
    """What is simulated."""

    draws: int = 100
    """Draws of train and validation items, for routers that learn."""
    routers: tuple[str, ...] = ("cascade",)
    """These routers."""
    train: int = 150
    """Train items of a draw."""
    validation: int = 300
    """Validation items of a draw."""
    weak: int = 6
    """Cheap models beside the one whose quality is to be kept."""
    margin: float = 0.1
    """By how much a router may be below it."""
    tests: int = 1000
    """Draws of items, for tests of routers at the margin."""


def main(options: Options) -> None:
    """Print three tables."""
    tests_at_the_margin(options.tests)
    best_of_several(options.tests)
    routers_that_learn(options)


def tests_at_the_margin(draws: int, margin: float = 0.01) -> None:
    """The p-value, and the percentile bootstrap, of a router whose quality is the model's minus the margin."""
    random = np.random.default_rng(1)
    print(f"| it wins | it loses | items | betting | bootstrap |  ({draws} draws)")
    for wins, loses in ((0.0, 0.01), (0.2, 0.21)):
        for items in (100, 286, 1000):
            passed = np.zeros(2)
            for _ in range(draws):
                ahead = random.choice(SCORES, size=items, p=[wins, 1 - wins - loses, loses])
                shares = [(ahead == score).mean() for score in SCORES]
                means = random.multinomial(items, shares, size=1000) @ SCORES / items
                passed += p_value(ahead, margin) <= 0.05, np.quantile(means, 0.05) > -margin
            print(f"| {wins:.0%} | {loses:.0%} | {items} | {passed[0] / draws:.1%} | {passed[1] / draws:.1%} |")


def best_of_several(draws: int, items: int = 300, margin: float = 0.05) -> None:
    """The test of the router that is best on the items that it is then tested on, all of them at the margin."""
    random = np.random.default_rng(2)
    print("\n| routers | the best passes |")
    for count in (1, 7, 20):
        ahead = random.choice(SCORES, size=(draws, count, items), p=[0.15, 0.65, 0.2])
        best = ahead[np.arange(draws), ahead.mean(axis=2).argmax(axis=1)]
        print(f"| {count} | {np.mean([p_value(each, margin) <= 0.05 for each in best]):.1%} |")


def routers_that_learn(options: Options) -> None:
    """Real routers: taught with the validation items and taken as they are, or taught anew as `run` does."""
    print(f"\n| router | validation items | passes | passes and is below |  ({options.draws} draws)")
    for name in options.routers:
        for how in ("chosen on", "new"):
            found = np.array([_draw(name, how == "new", seed, options) for seed in range(options.draws)])
            passes, wrong = found.mean(axis=0)
            print(f"| {name} | {how} | {passes:.1%} | {wrong:.1%} |", flush=True)


def _draw(name: str, anew: bool, seed: int, options: Options) -> tuple[bool, bool]:
    """Whether the router passes, and is all the same below the model by more than the margin."""
    random = np.random.default_rng(seed)
    models = ("strong", *(f"weak-{n}" for n in range(options.weak)))
    train = _tree(options.train, models, "train", random)
    validation = _tree(options.validation, models, "validation", random)
    test = _tree(200, models, "test", random)
    request = RouterRequest(
        models=models, max_hops=2, cost_model=train.cost_model, frontier=True, train=train, validation=validation,
        evaluation=test, seed=seed,
    )  # fmt: skip
    taught = teach(name, request, {})
    router = RunRouter(name, taught.router, name, taught=taught)
    if not anew:
        router = replace(router, taught=None)
    goals = Goals(model="strong", margin=options.margin)
    at_risk = set_and_judge([router], request, goals, lambda text: None).at_risk
    kept = at_risk.routers[name].kept if at_risk is not None else None
    return kept is not None, kept is not None and not kept.held


def _tree(count: int, models: tuple[str, ...], split: Split, random: np.random.Generator) -> Tree:
    """Items of which no text tells anything. Scores are drawn; of test items they are what is expected of them."""
    settings = GenerationSettings((), 4)
    items = [Item("t", n, f"{split} {random.integers(10**6)}", settings, split) for n in range(count)]
    tree = Tree(items, models, 1, recorded_cost("unit"))
    chance = np.array([STRONG, *[WEAK] * (len(models) - 1)])
    score = np.tile(chance, (count, 1)) if split == "test" else random.random((count, len(models))) < chance
    for item in range(count):
        for model in range(len(models)):
            said = Generation(f"{random.integers(10**6)}", 1, 1, "stop", 0.0, COST[min(model, 1)])
            tree.put(item, 1 + model, said, float(score[item, model]))
    return tree.cascade(2)


if __name__ == "__main__":
    main(tyro.cli(Options))
