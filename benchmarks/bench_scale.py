"""How `run` and `import` grow with items and models: wall time, processor time and memory of the commands themselves.

    python benchmarks/bench_scale.py
    python benchmarks/bench_scale.py --parts one-hop --encoder sentence --weights DIR --texts TABLE.csv

First `run` on the recording that ships, with the shipped policy and with one trained by the run. Then, for each size,
on a made-up recording of two hops (a HierRouter is trained, and every baseline of `run` evaluated), and on a made-up
outcome table of one hop, which is imported first and on which every router that learns is trained. In both, a query's
words tell which models are good at it; with --texts a real question stands before them. Each command runs in a process
of its own, `--repeats` times, of which the median counts; what its imports take is printed, and not taken off. Last,
the recorder itself: what it takes for a response of models that answer at once, merging, batches, store and recording
included.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tyro

from pools.data.recording import save_recording
from pools.data.store import TransitionStore
from pools.mdp.tree import Tree
from pools.models.engine import Request
from pools.models.generator import LiveGenerator
from pools.pool import CandidateModel, Pool
from pools.types import Context, Generation, GenerationSettings, Generator, Item

TOPICS, WORDS = 12, 40
LEARNT = ("hierrouter", "knn", "ridge", "logistic", "extra-trees", "mlp", "matrix-factorisation", "cascade")
Part = Literal["shipped", "two-hops", "one-hop", "recorder"]


@dataclass(frozen=True)
class Args:
    """What is measured."""

    items: tuple[int, ...] = (100, 1_000, 10_000)
    """with the first of `models`"""
    models: tuple[int, ...] = (4, 2, 8)
    """with the second of `items`"""
    one_hop: tuple[tuple[int, int], ...] = ((6_000, 9),)
    """items and models of the outcome tables"""
    routers: tuple[str, ...] = LEARNT
    """that are trained on the outcome tables"""
    encoder: str = "hashing"
    """of these routers"""
    weights: Path | None = None
    """folder that holds the sentence encoder's weights"""
    texts: tuple[Path, ...] = ()
    """CSV files with a column `prompt`: the questions of the outcome tables, in turn"""
    parts: tuple[Part, ...] = get_args(Part)
    repeats: int = 3
    seed: int = 1


class MadeUp:
    """Queries of a topic, and models that are right on a topic with a chance of their own."""

    def __init__(self, models: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        self.words = ["".join(self.rng.choice(letters, 7)) for _ in range(TOPICS * WORDS)]
        self.skill = self.rng.random((models, TOPICS))

    def query(self, topic: int) -> str:
        """Between 20 and 60 words of the topic."""
        chosen = topic * WORDS + self.rng.integers(0, WORDS, self.rng.integers(20, 60))
        return " ".join(self.words[word] for word in chosen)

    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        """A response says whether it is right; a right one before it makes the next model right more often."""
        made = []
        for context, _ in requests:
            topic = self.words.index(context.query.split()[0]) // WORDS
            chance = self.skill[model, topic] / 2 + 0.5 * any(said.startswith("right") for said in context.responses)
            word = "right" if self.rng.random() < chance else "wrong"
            read = len(context.query.split()) + 2 * len(context.responses)
            made.append(Generation(f"{word} {self.rng.integers(0, 10)}", read, 2, "stop", 0.01))
        return made


def recording(items: int, models: int, seed: int, folder: Path, generator: Generator | None = None) -> None:
    """Write a recording of two hops."""
    source = MadeUp(models, seed)
    splits: Any = ("train", "train", "validation", "test", "test")
    settings = GenerationSettings((), 8)
    topics = source.rng.integers(0, TOPICS, items).tolist()
    made = [Item(f"task-{t % 6}", n, source.query(t), settings, splits[n % 5]) for n, t in enumerate(topics)]
    names = [f"model-{m}" for m in range(models)]

    def score(answers: Sequence[tuple[Item, str]]) -> list[float]:
        return [float(response.startswith("right")) for _, response in answers]

    tree = Tree(made, names, 2, pool(models).cost_model("paper"), generator or source, score)
    for depth in (1, 2):
        rows, nodes = np.meshgrid(np.arange(items), tree.level(depth), indexing="ij")
        tree.require(rows.ravel(), nodes.ravel())
    save_recording(tree, pool(models), {"suite": "made-up", "command": "benchmarks/bench_scale.py"}, folder)


def pool(models: int) -> Pool:
    """A pool of models that are nowhere."""
    made = (CandidateModel(f"model-{n}", "hf", (n + 1) * 1e-4, {"pretrained": "none"}) for n in range(models))
    return Pool("made-up", tuple(made), "units", "made up")


class AtOnce:
    """An engine of made-up models. seconds: what they took."""

    def __init__(self, source: MadeUp) -> None:
        self.source, self.seconds = source, 0.0

    def run(self, batches: Mapping[int, Sequence[Sequence[Request]]]) -> Iterator[tuple[int, int, list[Generation]]]:
        """Each batch, in order."""
        for model, of_model in batches.items():
            for number, batch in enumerate(of_model):
                start = time.perf_counter()
                made = self.source.generate(model, batch)
                self.seconds += time.perf_counter() - start
                yield model, number, made


def own_time(items: int, models: int, seed: int, folder: Path) -> float:
    """Seconds of the recorder without those of the models."""
    source = MadeUp(models, seed)
    engine, store = AtOnce(source), TransitionStore(folder.with_suffix(".sqlite"))
    start = time.perf_counter()
    recording(items, models, seed, folder, LiveGenerator(pool(models), store=store, engine=engine))
    return time.perf_counter() - start - engine.seconds


def table(items: int, models: int, seed: int, texts: Sequence[Path], path: Path) -> None:
    """Write an outcome table."""
    source = MadeUp(models, seed)
    csv.field_size_limit(1 << 30)
    questions = [""]
    if texts:
        questions = [row["prompt"] + " " for file in texts for row in csv.DictReader(file.open(newline=""))]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "task", "prompt", "model", "score", "cost"])
        for item in range(items):
            topic = int(source.rng.integers(0, TOPICS))
            words = source.query(topic)
            query = questions[item % len(questions)] + (" ".join(words.split()[:8]) if texts else words)
            for model in range(models):
                right = float(source.rng.random() < source.skill[model, topic])
                rows.writerow(
                    [item, f"task-{topic % 6}", query, f"model-{model}", right, (model + 1) * 1e-5 * len(query)]
                )


def measure(repeats: int, *arguments: object) -> tuple[float, float, int]:
    """Wall seconds (the median), and with them processor seconds and peak memory (MiB) of a command."""
    return sorted(once(*arguments) for _ in range(repeats))[repeats // 2]


def once(*arguments: object) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and peak memory (MiB) of a command."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"failed: {arguments}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss >> 10


def show(what: str, measured: tuple[float, float, int]) -> None:
    """One line."""
    wall, processor, memory = measured
    print(f"{what}: {wall:.1f} s, of processors {processor:.1f} s, {memory:,} MiB", flush=True)


def main() -> None:
    """Measure and print."""
    args = tyro.cli(Args, description=__doc__)
    run = ("-m", "harness", "run", "--seed", args.seed)
    show(
        "imports alone",
        measure(args.repeats, "-c", "import harness.runs.run, torch, sklearn, pyarrow.parquet, scipy.stats"),
    )
    sizes = [(items, args.models[0]) for items in args.items]
    sizes += [(args.items[1], models) for models in args.models[1:]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "shipped" in args.parts:
            show("run, the recording that ships", measure(args.repeats, *run, "--out", folder / "shipped"))
            show("the same, HierRouter trained", measure(args.repeats, *run, "--retrain", "--out", folder / "trained"))
        for items, models in sizes if "two-hops" in args.parts else []:
            there = folder / f"{items}-{models}"
            recording(items, models, args.seed, there)
            measured = measure(args.repeats, *run, "--recording", there, "--out", folder / f"run-{items}-{models}")
            show(f"two hops, {items:,} items, {models} models ({items * (models + models**2):,} responses)", measured)
        for items, models in args.one_hop if "one-hop" in args.parts else []:
            path, there = folder / f"table-{items}-{models}.csv", folder / f"table-{items}-{models}"
            table(items, models, args.seed, args.texts, path)
            what = f"one hop, {items:,} items, {models} models"
            show(f"{what}: import", measure(args.repeats, "-m", "harness", "import", path, "--out", there, "--force"))
            encoder = ["--encoder", args.encoder, *(["--weights", args.weights] if args.weights else [])]
            given = ("--recording", there, *encoder, "--out", folder / "o", "--force")
            measured = measure(args.repeats, *run, *given, "--router", *args.routers)
            show(f"{what}: run, {len(args.routers)} routers trained, encoder {args.encoder}", measured)
        for items, models in sizes if "recorder" in args.parts else []:
            found = [
                own_time(items, models, args.seed, folder / f"own-{items}-{models}-{n}") for n in range(args.repeats)
            ]
            seconds, responses = sorted(found)[args.repeats // 2], items * (models + models**2)
            what = f"recorder, two hops, {items:,} items, {models} models"
            print(f"{what}: {seconds:.1f} s, {seconds / responses * 1e6:.0f} us a response", flush=True)


if __name__ == "__main__":
    main()
