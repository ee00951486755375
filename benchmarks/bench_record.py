"""How much faster the recorder is than rolling out every pipeline, one request at a time, on the same items.

    python benchmarks/bench_record.py --weights DIR

Both answer with the same loaded models. The roll-out calls every pipeline of
`--max-hops` models hop by hop and shares nothing between pipelines, as a benchmark without a recording does; the
recorder goes breadth-first, in batches sorted by length, and asks equal requests once. Loading is not counted.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from harness.source import suite_tasks
from pools.live import LiveGenerator
from pools.pool import Pool, load_pool
from pools.store import TransitionStore
from pools.tree import Tree
from pools.types import Context, Generation, GenerationSettings, Item
from tasks import load_suite


@dataclass(frozen=True)
class Args:
    """What is measured."""

    pool: str = "lightweight"
    suite: str = "offline"
    items: int = 20
    """so many items, taken from the suite's tasks in turn"""
    max_hops: int = 2
    weights: Path | None = None


class Counted:
    """A generator that counts what it is asked and remembers the answers."""

    def __init__(self, generator: LiveGenerator) -> None:
        self.generator, self.requests = generator, 0
        self.answers: dict[tuple[int, Context, GenerationSettings], str] = {}

    def generate(self, model: int, requests: Any) -> list[Generation]:
        """As the generator's."""
        made = self.generator.generate(model, requests)
        self.requests += len(requests)
        self.answers |= {(model, *request): one.response for request, one in zip(requests, made, strict=True)}
        return made


def roll_out(items: list[Item], pool: Pool, hops: int, generator: Counted) -> None:
    """Every pipeline of every item, one request at a time."""
    for item in items:
        for pipeline in itertools.product(range(len(pool.models)), repeat=hops):
            context = Context(item.query)
            for model in pipeline:
                [made] = generator.generate(model, [(context, item.settings)])
                context = context.extended(made.response)


def record(items: list[Item], pool: Pool, hops: int, generator: Counted) -> None:
    """What `python -m harness record` does but for the scores: the tree, one level after the other."""
    tree = Tree(items, pool.model_names, hops, generator, lambda answers: [0.0] * len(answers))
    for depth in range(1, hops + 1):
        rows, nodes = np.meshgrid(np.arange(len(items)), tree.level(depth), indexing="ij")
        tree.require(rows.ravel(), nodes.ravel())


def timed(work: Callable[[], None]) -> float:
    """Seconds that it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure both and print the ratio."""
    args = tyro.cli(Args, description=__doc__)
    pool = load_pool(args.pool)
    tasks = suite_tasks(load_suite(args.suite))
    in_turn = zip(*(task.items(-(-args.items // len(tasks)) + 2) for task in tasks), strict=False)
    items = list(itertools.chain.from_iterable(in_turn))[: args.items]
    live = LiveGenerator(pool, args.weights)
    for model in range(len(pool.models)):
        live.generate(model, [(Context("Hello"), GenerationSettings((), 2))])
    with tempfile.TemporaryDirectory() as folder:
        live.store = TransitionStore(Path(folder) / "record.sqlite")
        batched = Counted(live)
        seconds = timed(lambda: record(items, pool, args.max_hops, batched))
        print(f"recorder: {batched.requests} requests in {seconds:.1f} s", flush=True)
    live.store = None
    single = Counted(live)
    slow = timed(lambda: roll_out(items, pool, args.max_hops, single))
    print(f"one at a time: {single.requests} requests in {slow:.1f} s")
    shared = [key for key in single.answers if key in batched.answers]
    flips = sum(single.answers[key] != batched.answers[key] for key in shared)
    print(f"{len(items)} items, {args.max_hops} hops: {slow / seconds:.1f} times as fast")
    print(f"{flips} of {len(shared)} responses differ between the batches")


if __name__ == "__main__":
    main()
