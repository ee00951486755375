"""How much faster the recorder is than rolling out every pipeline, one request at a time, on the same items.

    python benchmarks/bench_record.py --weights DIR

Both answer with the same loaded models. The roll-out calls every pipeline of
`--max-hops` models hop by hop and shares nothing between pipelines, as a benchmark without a recording does; the
recorder goes breadth-first, in batches sorted by length, and asks equal requests once. Loading is not counted.

One at a time, each request takes its time whatever came before it, so a random share of them (`--share`), timed one by
one, tells the time of all, with a standard error that is printed.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from pools.data.store import TransitionStore
from pools.mdp.tree import Tree
from pools.models.generator import LiveGenerator
from pools.pool import Pool, load_pool
from pools.types import Context, Generation, GenerationSettings, Item
from tasks import chosen_suite


@dataclass(frozen=True)
class Args:
    """What is measured."""

    pool: str = "lightweight"
    suite: str = "offline"
    items: int = 20
    """so many items, taken from the suite's tasks in turn"""
    max_hops: int = 2
    weights: Path | None = None
    share: float = 1.0
    """share of the roll-out's requests that are timed, drawn at random"""
    seed: int = 1


class Counted:
    """A generator that counts what it is asked."""

    def __init__(self, generator: LiveGenerator) -> None:
        self.generator, self.requests = generator, 0

    def generate(self, model: int, requests: Any) -> list[Generation]:
        """As the generator's."""
        self.requests += len(requests)
        return self.generator.generate(model, requests)


def roll_out(tree: Tree) -> list[tuple[int, int]]:
    """The requests of a roll-out of every pipeline of every item, in order, as `(item, node)` of the recorded tree."""
    made = []
    for item in range(len(tree.items)):
        for leaf in tree.level(tree.max_hops).tolist():
            path = [leaf]
            while path[-1] > len(tree.models):
                path.append(int(tree.parent(path[-1])))
            made += [(item, node) for node in reversed(path)]
    return made


def record(items: list[Item], pool: Pool, hops: int, generator: Counted) -> Tree:
    """What `python -m harness record` does but for the scores: the tree, one level after the other."""
    unscored = lambda answers: [0.0] * len(answers)  # noqa: E731
    tree = Tree(items, pool.model_names, hops, pool.cost_model("paper"), generator, unscored)
    for depth in range(1, hops + 1):
        rows, nodes = np.meshgrid(np.arange(len(items)), tree.level(depth), indexing="ij")
        tree.require(rows.ravel(), nodes.ravel())
    return tree


def main() -> None:
    """Measure both and print the ratio."""
    args = tyro.cli(Args, description=__doc__)
    pool = load_pool(args.pool)
    tasks = chosen_suite(args.suite).load()
    in_turn = zip(*(task.items(-(-args.items // len(tasks)) + 2) for task in tasks), strict=False)
    items = list(itertools.chain.from_iterable(in_turn))[: args.items]
    live = LiveGenerator(pool, args.weights)
    for model in range(len(pool.models)):
        live.generate(model, [(Context("Hello"), GenerationSettings((), 2))])
    with tempfile.TemporaryDirectory() as folder:
        live.store = TransitionStore(Path(folder) / "record.sqlite")
        batched = Counted(live)
        start = time.perf_counter()
        tree = record(items, pool, args.max_hops, batched)
        seconds = time.perf_counter() - start
        print(f"recorder: {batched.requests} requests in {seconds:.1f} s", flush=True)
    live.store = None
    requests = roll_out(tree)
    rng = np.random.default_rng(args.seed)
    chosen = rng.permutation(len(requests))[: max(2, round(args.share * len(requests)))]
    each, flips = [], 0
    for number in chosen.tolist():
        item, node = requests[number]
        request = (tree.context(item, int(tree.parent(node))), tree.items[item].settings)
        start = time.perf_counter()
        [made] = live.generate(int(tree.action(node)), [request])
        each.append(time.perf_counter() - start)
        flips += made.response != tree.generation(item, node).response
    slow = float(np.mean(each)) * len(requests)
    unseen = 1 - len(chosen) / len(requests)
    error = float(np.std(each, ddof=1) / len(each) ** 0.5 * unseen**0.5) * len(requests)
    print(f"one at a time: {len(requests)} requests in {slow:.0f} +- {error:.0f} s, by {len(chosen)} of them")
    ratio = f"{slow / seconds:.1f} +- {error / seconds:.1f}"
    print(f"{len(items)} items, {args.max_hops} hops: {ratio} times as fast")
    print(f"{flips} of {len(chosen)} responses differ between the batches")


if __name__ == "__main__":
    main()
