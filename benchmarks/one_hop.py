"""Every router on an imported table of one-hop outcomes, over five folds: quality, AIQ, and what each is worth.

    python -m harness import TABLE --format routellm --prices ... --tokenizer DIR --out runs/recordings/table
    python benchmarks/one_hop.py --recording runs/recordings/table

Each fold is the test split once; of the other four, an eighth of the items is for validation. So every item is tested
exactly once, by a router that never saw it, and intervals come from resampling the items. The first table is at cost
weight 0: quality alone. The second holds the areas under the curves that the cost weights of --cost-weights span.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.evaluation.evaluate import Outcome, evaluate
from harness.evaluation.frontier import Points, hulls
from harness.evaluation.frontier import areas as areas_of
from harness.evaluation.metrics import Bootstrap, Estimate
from pools.data.recording import load_recording
from pools.mdp.tree import Tree
from routers import RouterRequest, load
from routers.registry import learns
from routers.router import WeighingRouter

LEARNT = ("hierrouter", "knn", "ridge", "logistic", "extra-trees", "mlp", "matrix-factorisation", "cascade")
PLAIN = ("majority-vote", "best-pipeline", "cheapest", "random")
RESAMPLES = 500
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What is compared."""

    recording: Path
    routers: tuple[str, ...] = LEARNT + PLAIN
    cost_weights: tuple[float, ...] = (0.0, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0)
    """in score per mean cost of the most expensive model; the first table is of the first"""
    encoder: str = "hashing"
    weights: Path | None = None
    """folder that holds the sentence encoder's weights"""
    folds: int = 5
    seed: int = 1
    shuffled: bool = False
    """a control: outcomes of train and validation items are dealt to other items, so that nothing can be learnt; what
    AIQ then still has over the zero router is the bias of a hull over noisy points"""


def curves(options: Options, tree: Tree, name: str, fold_of: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Cost and quality `[W, I]` of every item at every cost weight, each by the router of its fold."""
    cost, quality = (np.zeros((len(options.cost_weights), len(tree.items))) for _ in range(2))
    for fold in range(options.folds):
        test, rest = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
        learnt = _shuffled(tree, options.seed) if options.shuffled else tree
        request = RouterRequest(
            models=tree.models, max_hops=1, cost_model=tree.cost_model, cost_weight=options.cost_weights[0],
            seed=options.seed, train=learnt.subset(rest[np.arange(len(rest)) % 8 > 0]),
            validation=learnt.subset(rest[::8]), evaluation=tree.subset(test), weights=options.weights,
            cost_weights=tuple(options.cost_weights),
        )  # fmt: skip
        assert request.evaluation is not None
        given = {"encoder": options.encoder} if learns(name) else {}
        router = load(name, request, options=given)
        for row, weight in enumerate(options.cost_weights):
            at = (
                router.at(weight)
                if isinstance(router, WeighingRouter)
                else load(name, replace(request, cost_weight=weight), options=given)
            )
            outcome: Outcome = evaluate(at, request.evaluation, options.seed)
            cost[row, test], quality[row, test] = outcome.cost, outcome.quality
    return cost, quality


def _shuffled(tree: Tree, seed: int) -> Tree:
    other = tree.subset(np.arange(len(tree.items)))
    other.score[:] = tree.score[np.random.default_rng(seed).permutation(len(tree.items))]
    return other


def shown(estimate: Estimate | Sequence[float]) -> str:
    """A mean with its 95% interval."""
    mean, low, high = (estimate.mean, estimate.low, estimate.high) if isinstance(estimate, Estimate) else estimate
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def verdict(low: float, high: float) -> Text:
    """What an interval of a difference says."""
    return Text("better", "green") if low > 0 else Text("worse", "red") if high < 0 else Text("no difference shown")


def main() -> None:
    """Train and evaluate every router on every fold and print the tables."""
    options = tyro.cli(Options, description=__doc__)
    recording = load_recording(options.recording)
    tree = recording.tree
    highest = float(tree.cost[:, tree.level(1)].mean(axis=0).max())
    options = replace(options, cost_weights=tuple(weight / highest for weight in options.cost_weights))
    fold_of = np.random.default_rng(options.seed).permutation(len(tree.items)) % options.folds
    singles = {
        model: curves(replace(options, cost_weights=(0.0,)), tree, f"single:{model}", fold_of) for model in tree.models
    }
    bootstrap = Bootstrap.draw(len(tree.items), options.seed, RESAMPLES)
    every = np.concatenate([np.full((1, len(tree.items)), 1 / len(tree.items)), bootstrap.weights])
    best = max(singles, key=lambda model: singles[model][1].mean())
    costs = [singles[model][0].mean() for model in singles]
    bounds = (float(min(costs)), float(max(costs)))
    points = [np.concatenate([curve[part] for curve in singles.values()]) for part in (0, 1)]
    zero = areas_of(hulls(Points(*points), every), bounds)

    quality = Table(
        "router",
        "quality",
        f"minus {best}",
        "verdict",
        "cost",
        "seconds",
        title=f"{len(tree.items)} items, {options.folds} folds",
    )
    areas = Table(
        "router", "AIQ", "minus the zero router's", "verdict", title=f"AIQ from {bounds[0]:.3g} to {bounds[1]:.3g}"
    )
    for model, (c, q) in singles.items():
        quality.add_row(model, shown(bootstrap.mean(q[0])), "", "", f"{c.mean():.3g}", "")
    oracle = curves(replace(options, cost_weights=(0.0,)), tree, "oracle", fold_of)
    quality.add_row("oracle", shown(bootstrap.mean(oracle[1][0])), "", "a bound", f"{oracle[0].mean():.3g}", "")
    areas.add_row("zero router", shown([zero[0], *np.percentile(zero[1:], [2.5, 97.5])]), "", "")
    for name in options.routers:
        start = time.perf_counter()
        c, q = curves(options, tree, name, fold_of)
        ahead = bootstrap.mean(q[0] - singles[best][1][0])
        seconds = f"{time.perf_counter() - start:.0f}"
        quality.add_row(
            name,
            shown(bootstrap.mean(q[0])),
            shown(ahead),
            verdict(ahead.low, ahead.high),
            f"{c[0].mean():.3g}",
            seconds,
        )
        area = areas_of(hulls(Points(c, q), every), bounds)
        low, high = np.percentile((area - zero)[1:], [2.5, 97.5])
        cells = shown([area[0], *np.percentile(area[1:], [2.5, 97.5])]), shown([area[0] - zero[0], low, high])
        areas.add_row(name, *cells, verdict(low, high))
        print(name, seconds, "s", flush=True)
    console = Console(width=140)
    console.print(quality)
    console.print(areas)


if __name__ == "__main__":
    main()
