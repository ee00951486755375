"""What each of HierRouter's options is worth: trainings that differ in one of them, on one recording, over seeds.

    python benchmarks/ablation.py --seeds 5
    python benchmarks/ablation.py --variants default sentence --weights DIR
    python benchmarks/ablation.py --variants default "no stop" --cost-weight 3
    python benchmarks/ablation.py --variants default "no stop" --equal-rates

The figure is the share of the gap closed from the best single model to the exact optimum (which may stop), at
`--cost-weight`, of the greedy policy: mean and standard deviation over seeds. What is kept as a default is chosen by
the column `validation`; `test` is for the record.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from harness.evaluation.evaluate import evaluate
from harness.evaluation.metrics import gap_closed, value
from pools.cost import CostModel, paper_cost, register_cost_model
from pools.data.recording import load_recording
from pools.mdp.tree import Tree
from pools.pool import Pool
from routers import RouterRequest, load
from routers.ppo_hierrouter import Args, plain, request_for

GRID = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
DEFAULT = Args()
VARIANTS: dict[str, Args] = {
    "default": DEFAULT,
    "no stop": replace(DEFAULT, allow_stop=False),  # the preset paper: nothing else of the defaults is not the paper's
    "drawn cost weights": replace(DEFAULT, cost_weights=GRID),
    "query alone": replace(DEFAULT, sees=("query",)),
    "response alone": replace(DEFAULT, sees=("response",)),
    "+ models": replace(DEFAULT, sees=("query", "response", "models")),
    "+ agreement": replace(DEFAULT, sees=("query", "response", "agreement")),
    "+ length": replace(DEFAULT, sees=("query", "response", "length")),
    "all": replace(DEFAULT, sees=("query", "response", "agreement", "length", "models")),
    "sentence": replace(DEFAULT, encoder="sentence"),
}


@dataclass(frozen=True)
class Options:
    """What is compared."""

    recording: Path = Args.recording
    variants: tuple[str, ...] = tuple(name for name in VARIANTS if name != "sentence")
    seeds: int = 5
    cost_weight: float = 0.1
    weights: Path | None = None
    """folder that holds the sentence encoder's weights"""
    equal_rates: bool = False
    """every model at the dearest one's rate, so that no hop is next to free"""
    total_timesteps: int = Args.total_timesteps


@register_cost_model("equal rates")
def equal_rates(pool: Pool) -> CostModel:
    """The paper's cost model, every model at the rate of the most expensive one."""
    rate = max(model.base_rate for model in pool.models)
    return paper_cost((rate,) * len(pool.models), pool.cost_unit, pool.rates)


def closed(args: Args, parts: dict[str, Tree]) -> list[float]:
    """Share of the gap closed on each part's items."""
    request = request_for(args, parts["train"], parts["validation"])
    router = load("hierrouter", request, options=plain(args))
    shares = []
    for tree in parts.values():
        request = RouterRequest(
            models=tree.models, max_hops=tree.max_hops, cost_model=tree.cost_model, cost_weight=args.cost_weight,
            evaluation=tree,
        )  # fmt: skip
        names = ("oracle", *(f"single:{model}" for model in tree.models))
        optimum, *singles = (evaluate(load(name, request), tree) for name in names)
        best = max(singles, key=lambda outcome: value(outcome, args.cost_weight).mean())
        share = gap_closed(evaluate(router, tree), best, optimum, args.cost_weight)
        shares.append(float("nan") if share is None else share)
    return shares


def main() -> None:
    """Train every variant with every seed and print the table."""
    options = tyro.cli(Options, description=__doc__)
    recording = load_recording(options.recording, "equal rates" if options.equal_rates else "paper")
    parts = {name: recording.tree.select(name) for name in ("train", "validation", "test")}
    table = Table("variant", *parts, "seconds", title=f"gap closed, {options.seeds} seeds, {recording.pool.name}")
    for name in options.variants:
        given = replace(VARIANTS[name], cost_weight=options.cost_weight, weights=options.weights)
        given = replace(given, total_timesteps=options.total_timesteps)
        start = time.perf_counter()
        shares = np.array([closed(replace(given, seed=n + 1), parts) for n in range(options.seeds)])
        seconds = (time.perf_counter() - start) / options.seeds
        cells = [f"{m:.1%} ± {s:.1%}" for m, s in zip(shares.mean(axis=0), shares.std(axis=0), strict=True)]
        table.add_row(name, *cells, f"{seconds:.1f}")
        print(name, *cells, f"{seconds:.1f} s", flush=True)
    Console().print(table)


if __name__ == "__main__":
    main()
