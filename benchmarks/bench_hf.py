"""How much faster `pools/models/hf.py` is than lm-eval's plain `hf`: the same requests of a recording, in turn.

    python benchmarks/bench_hf.py --weights DIR

Both answer with the same loaded models and the same batches. The requests are those of a random sample of the items of
each task, of all hops; their contexts are the recording's, so nothing depends on what was answered before.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from harness.runs.source import RESULTS
from pools.data.recording import load_recording
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.models.generator import LiveGenerator
from pools.types import Context, GenerationSettings

Requests = dict[tuple[Context, GenerationSettings], str]


@dataclass(frozen=True)
class Args:
    """What is measured."""

    weights: Path | None = None
    recording: Path = RESULTS / "recordings" / "lightweight-offline"
    model: tuple[str, ...] = ()
    """of the pool; by default all"""
    task: tuple[str, ...] = ()
    """of the recording; by default all"""
    hops: tuple[int, ...] = ()
    """by default all"""
    items: int = 2
    """of each task"""
    rounds: int = 2
    seed: int = 7


def sampled(tree: Tree, tasks: tuple[str, ...], items: int, seed: int) -> list[int]:
    """So many items of each task at random, or all that it has."""
    rng = random.Random(seed)
    of_task: dict[str, list[int]] = {}
    for number, item in enumerate(tree.items):
        if not tasks or item.task in tasks:
            of_task.setdefault(item.task, []).append(number)
    return [number for numbers in of_task.values() for number in rng.sample(numbers, min(items, len(numbers)))]


def requests(live: LiveGenerator, tree: Tree, items: list[int], model: int, hops: tuple[int, ...]) -> list[Requests]:
    """A model's requests, hop by hop, with the recorded responses; contexts that it reads alike are one request."""
    seen: set[tuple[str, GenerationSettings]] = set()
    made: list[Requests] = []
    for hop in hops:
        made.append({})
        nodes = [node for node in tree.level(hop).tolist() if tree.action(node) == model]
        for item in items:
            settings = tree.items[item].settings
            for node in nodes:
                context = tree.context(item, int(tree.parent(node)))
                if (read := (live.text(model, context), settings)) not in seen:
                    seen.add(read)
                    made[-1][context, settings] = tree.generation(item, node).response
    return [of_hop for of_hop in made if of_hop]


def checked(args: Args, tree: Tree) -> Args:
    """The options, if the recording has what they name. Raises UserError."""
    for option, given, known in (
        ("--model", args.model, tree.models),
        ("--task", args.task, tuple(dict.fromkeys(item.task for item in tree.items))),
        ("--hops", args.hops, tuple(range(1, tree.max_hops + 1))),
    ):
        if wrong := set(given) - set(known):
            named = f"{option} {', '.join(sorted(map(str, wrong)))}"
            raise UserError(f"{named}: not of {args.recording}; it has {', '.join(map(str, known))}")
    if args.items < 1:
        raise UserError(f"--items {args.items}: no request would be made; expected 1 or more")
    return args


def main() -> None:
    """Measure and print what the command line asks for; what cannot be measured is said in one line."""
    try:
        measure(tyro.cli(Args, description=__doc__))
    except UserError as error:
        print(f"bench_hf: {error}", file=sys.stderr)
        sys.exit(2)


def measure(args: Args) -> None:
    """Print processor seconds, which do not depend on who else is at work, and seconds."""
    from lm_eval.models.huggingface import HFLM

    from pools.models.hf import SharedPrefixHFLM

    recording = load_recording(args.recording)
    tree, args = recording.tree, checked(args, recording.tree)
    live = LiveGenerator(recording.pool, args.weights)
    items = sampled(tree, args.task, args.items, args.seed)
    kinds: dict[str, Any] = {"ours": SharedPrefixHFLM._model_generate, "plain": HFLM._model_generate}
    for model, name in enumerate(tree.models):
        if args.model and name not in args.model:
            continue
        hops = requests(live, tree, items, model, args.hops or tuple(range(1, tree.max_hops + 1)))
        recorded = [response for hop in hops for response in hop.values()]
        live.generate(model, list(hops[0])[:1])
        took: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        for number in range(args.rounds):
            for kind in sorted(kinds, reverse=number % 2 == 1):
                SharedPrefixHFLM._model_generate = kinds[kind]  # type: ignore[method-assign]
                start = time.process_time(), time.perf_counter()
                made = [answer.response for hop in hops for answer in live.generate(model, list(hop))]
                took[kind].append((time.process_time() - start[0], time.perf_counter() - start[1]))
                differ = sum(one != other for one, other in zip(made, recorded, strict=True))
                print(f"{name}, {kind}: {took[kind][-1]}, {differ} of {len(made)} responses differ", flush=True)
        ours, plain = (np.median(took[kind], axis=0) for kind in ("ours", "plain"))
        print(f"{name}: {plain[0] / ours[0]:.2f} times as fast in processor time, {plain[1] / ours[1]:.2f} in time")


if __name__ == "__main__":
    main()
