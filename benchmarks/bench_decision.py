"""How long one routing decision of HierRouter takes, embedding included.

    python -m harness train --out runs/hierrouter.safetensors
    python benchmarks/bench_decision.py --checkpoint runs/hierrouter.safetensors

The texts are new to the router at every decision: its cache of embeddings is emptied before each.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from pools.data.recording import load_recording
from routers.encoders.cache import forget
from routers.hierrouter import HierRouter
from routers.ppo_hierrouter import Args
from routers.registry import load_taught
from routers.router import RouterRequest, RoutingStates


@dataclass(frozen=True)
class Options:
    """What is measured."""

    checkpoint: Path
    recording: Path = Args.recording
    """the queries are its items'"""
    weights: Path | None = None
    """folder of the sentence encoder's weights"""
    decisions: int = 300
    batch: int = 64


def decide(router: HierRouter, states: RoutingStates) -> float:
    """Seconds of one call with nothing cached."""
    forget()
    start = time.perf_counter()
    router.act(states)
    return time.perf_counter() - start


def main() -> None:
    """Measure single decisions and batches."""
    options = tyro.cli(Options, description=__doc__)
    router = load_taught("hierrouter", options.checkpoint, RouterRequest(weights=options.weights)).router
    assert isinstance(router, HierRouter)
    tree = load_recording(options.recording).tree
    rng, depth = np.random.default_rng(0), min(1, tree.max_hops - 1)
    pipelines = tree.pipelines()

    def states(number: int) -> RoutingStates:
        items, nodes = rng.integers(len(tree.items), size=number), rng.choice(tree.level(depth), size=number)
        contexts = [tree.context(item, node) for item, node in zip(items.tolist(), nodes.tolist(), strict=True)]
        return RoutingStates(contexts, tree.depth[nodes], np.full(number, 0.1), pipelines[nodes])

    decide(router, states(options.batch))
    single = np.array([decide(router, states(1)) for _ in range(options.decisions)]) * 1e3
    print(f"one query: median {np.median(single):.2f} ms, 99% within {np.percentile(single, 99):.2f} ms")
    batched = np.array([decide(router, states(options.batch)) for _ in range(max(5, options.decisions // 10))])
    print(f"batches of {options.batch}: {options.batch / np.median(batched):,.0f} queries/s")


if __name__ == "__main__":
    main()
