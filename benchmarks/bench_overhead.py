"""What this harness costs, or saves, beside plain lm-eval with the same model, task and batch size.

    python benchmarks/bench_overhead.py --weights DIR

Two comparisons, each with the model loaded before the clock starts, alternating, the median of `--rounds`:

one hop     `lm_eval.simple_evaluate` with lm-eval's own `hf` model, against the recorder on the same items, one hop,
            scores and a transition store included. The prompts are the same, so equal responses are counted.
all hops    lm-eval's `hf` model asked for every request of a roll-out of every pipeline of `--max-hops` calls of two
            specialists, against the recorder's tree of the same items: merged, sorted by length, beginnings read
            once.

Tokens per second are of the tokens that the requests of plain lm-eval read and wrote; so they compare as the times do.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from harness.runs.source import scorer
from pools.data.store import TransitionStore
from pools.mdp.tree import Tree
from pools.models.generator import LiveGenerator
from pools.pool import Pool, load_pool
from pools.types import Item
from tasks import Task, chosen_suite


@dataclass(frozen=True)
class Args:
    """What is measured."""

    weights: Path | None = None
    pool: str = "lightweight"
    suite: str = "offline"
    model: str = "qwen2.5-coder-0.5b"
    """of the comparison of one hop: one whose template leaves the first query as it is"""
    task: str = "stories"
    items: int = 24
    batch_size: int = 12
    specialists: tuple[str, ...] = ("calculator", "reader")
    """of the comparison of all hops"""
    specialist_items: int = 32
    """from each of the suite's first four tasks"""
    max_hops: int = 3
    rounds: int = 3


def part(pool: Pool, names: tuple[str, ...], batch_size: int | None = None) -> Pool:
    """The pool of these models alone."""
    chosen = [model for model in pool.models if model.name in names]
    if batch_size is not None:
        chosen = [replace(model, batch_size=batch_size) for model in chosen]
    return replace(pool, models=tuple(chosen))


def record(items: list[Item], hops: int, live: LiveGenerator, tasks: list[Task]) -> Tree:
    """What `python -m harness record` does: store, tree, scores."""
    with tempfile.TemporaryDirectory() as folder:
        live.store = TransitionStore(Path(folder) / "store.sqlite")
        tree = Tree(items, live.pool.model_names, hops, live.pool.cost_model("paper"), live, scorer(tasks))
        for depth in range(1, hops + 1):
            rows, nodes = np.meshgrid(np.arange(len(items)), tree.level(depth), indexing="ij")
            tree.require(rows.ravel(), nodes.ravel())
        live.store.close()
    return tree


def plain_model(live: LiveGenerator, model: int, batch_size: int) -> Any:
    """lm-eval's own `hf` model around the weights and the tokenizer that the harness has loaded."""
    from lm_eval.models.huggingface import HFLM

    ours = live.language_model(model)
    return HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=batch_size)


def quiet(function: Callable[[], Any]) -> Any:
    """Its value, without progress bars."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return function()


def timed(names: tuple[str, str], functions: tuple[Callable[[], Any], Callable[[], Any]], rounds: int) -> list[Any]:
    """Run both in turn, print the medians and the ratio; their last values."""
    seconds: tuple[list[float], list[float]] = ([], [])
    values: list[Any] = [None, None]
    for round_ in range(rounds):
        for number in (0, 1) if round_ % 2 == 0 else (1, 0):
            start = time.perf_counter()
            values[number] = quiet(functions[number])
            seconds[number].append(time.perf_counter() - start)
    plain, ours = map(float, map(np.median, seconds))
    ratios = np.array(seconds[0]) / np.array(seconds[1])
    print(f"{names[0]}: {plain:.1f} s; {names[1]}: {ours:.1f} s", flush=True)
    print(f"the harness is {plain / ours:.2f} times as fast ({min(ratios):.2f}..{max(ratios):.2f})", flush=True)
    return values


def one_hop(args: Args, pool: Pool) -> None:
    """The first comparison."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    pool = part(pool, (args.model,), args.batch_size)
    live = LiveGenerator(pool, args.weights)
    lm = plain_model(live, 0, args.batch_size)
    tasks = chosen_suite(args.suite, (args.task,)).load()
    items = tasks[0].items(args.items)
    manager = quiet(lambda: TaskManager(include_path=str(Path(__file__).parent.parent / "tasks")))
    print(f"{args.model} on {len(items)} items of {args.task}, one hop, batches of {args.batch_size}")
    evaluate: Any = lm_eval.simple_evaluate
    given, tree = timed(
        ("plain lm-eval", "recorder"),
        (
            lambda: evaluate(
                lm, tasks=[args.task], limit=args.items, task_manager=manager, apply_chat_template=True,
                log_samples=True, bootstrap_iters=0,
            ),
            lambda: record(items, 1, live, tasks),
        ),
        args.rounds,
    )  # fmt: skip
    said = {sample["doc_id"]: sample["resps"][0][0] for sample in given["samples"][args.task]}
    equal = sum(said[item.doc_id] == tree.generation(number, 1).response for number, item in enumerate(items))
    tokens = sum(tree.generation(n, 1).tokens_in + tree.generation(n, 1).tokens_out for n in range(len(items)))
    print(f"{equal} of {len(items)} responses equal; {tokens} tokens\n", flush=True)


def all_hops(args: Args, pool: Pool) -> None:
    """The second comparison."""
    from lm_eval.api.instance import Instance

    pool = part(pool, args.specialists)
    live = LiveGenerator(pool, args.weights)
    tasks = chosen_suite(args.suite).load()[:4]
    items = [item for task in tasks for item in task.items(args.specialist_items)]
    tree = quiet(lambda: record(items, args.max_hops, live, tasks))
    batch = pool.models[0].batch_size
    models = [plain_model(live, number, batch) for number in range(len(pool.models))]
    asked: dict[int, list[Instance]] = {number: [] for number in range(len(models))}
    tokens = 0
    for item in range(len(items)):
        for leaf in tree.level(args.max_hops).tolist():
            node = leaf
            while node:
                settings = items[item].settings
                text = live.text(int(tree.action(node)), tree.context(item, int(tree.parent(node))))
                arguments = {"until": list(settings.until), "max_gen_toks": settings.max_new_tokens, "do_sample": False}
                request = Instance("generate_until", {}, (text, arguments), len(asked[int(tree.action(node))]))
                asked[int(tree.action(node))].append(request)
                made = tree.generation(item, node)
                tokens += made.tokens_in + made.tokens_out
                node = int(tree.parent(node))
    requests = sum(map(len, asked.values()))
    print(f"{', '.join(pool.model_names)} on {len(items)} items, {args.max_hops} hops, batches of {batch}")
    timed(
        ("plain lm-eval", "recorder"),
        (
            lambda: [lm.generate_until(asked[number]) for number, lm in enumerate(models)],
            lambda: record(items, args.max_hops, live, tasks),
        ),
        args.rounds,
    )
    print(f"{requests} requests of the roll-out, {tokens} tokens; the tree has {int(tree.known[:, 1:].sum())} nodes")


def main() -> None:
    """Measure both."""
    args = tyro.cli(Args, description=__doc__)
    logging.disable(logging.WARNING)
    pool = load_pool(args.pool)
    all_hops(args, pool)
    one_hop(args, pool)


if __name__ == "__main__":
    main()
