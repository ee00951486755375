"""How long batches of several sizes take, so what a kill loses: recorded requests, in the batches that `record` makes.

    python benchmarks/bench_batches.py

No model runs: seconds are computed from recorded tokens and what a token costs, by default as measured of
`qwen2.5-coder-0.5b` on one idle core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tyro

from harness.runs.source import RESULTS
from pools.data.recording import load_recording
from pools.models.engine import Answers, Request
from pools.models.generator import LiveGenerator
from pools.types import Generation


@dataclass(frozen=True)
class Args:
    """What is computed."""

    recording: Path = RESULTS / "recordings" / "lightweight-offline"
    model: str = "qwen2.5-coder-0.5b"
    sizes: tuple[int, ...] = (96, 64, 32, 16, 8, 1)
    read_ms: float = 7.4
    """of a token that is read"""
    write_ms: float = 11.2
    """of a token that is written"""
    step_ms: float = 130.0
    """of a step, in which each response of the batch that has not ended gets a token"""
    shared: float = 0.5
    """of what is read, as the requests of a batch begin alike"""


@dataclass
class Replay:
    """An engine that answers as was recorded and keeps the batches."""

    recorded: Mapping[Request, Generation]
    batches: list[list[Generation]] = field(default_factory=list)

    def run(self, batches: Mapping[int, Sequence[Sequence[Request]]]) -> Iterator[tuple[int, int, Answers]]:
        """Each batch in its turn."""
        for model, of_model in batches.items():
            for number, batch in enumerate(of_model):
                self.batches.append([self.recorded[request] for request in batch])
                yield model, number, self.batches[-1]


def main() -> None:
    """Print a row for each size, and what the recording itself holds."""
    args = tyro.cli(Args, description=__doc__)
    recording = load_recording(args.recording)
    pool, model = recording.pool, recording.pool.model_names.index(args.model)
    reads = LiveGenerator(pool).reads
    hop_of: dict[Request, int] = {}
    recorded: dict[Request, Generation] = {}
    for context, settings, generation in recording.tree.generations(model):
        request, hop = (reads(model, context), settings), len(context.responses)
        hop_of[request], recorded[request] = min(hop_of.get(request, hop), hop), generation
    took = [seconds * number for seconds, number in Counter(made.seconds for made in recorded.values()).items()]
    print(f"{len(recorded):,} requests; seconds of a batch (hours: of all), as computed, and as recorded")
    show = "{:>8} {:>8} {:>6} {:>6} {:>6} {:>8}".format
    print(show("size", "batches", "hours", "mean", "90%", "longest"))

    def row(size: object, seconds: Sequence[float]) -> None:
        figures = np.mean(seconds), np.quantile(seconds, 0.9), max(seconds)
        print(show(size, len(seconds), f"{sum(seconds) / 3600:.2f}", *(f"{figure:.0f}" for figure in figures)))

    for size in args.sizes:
        models = [replace(declared, batch_size=size) for declared in pool.models]
        replay = Replay(recorded)
        generator = LiveGenerator(replace(pool, models=tuple(models)), engine=replay)
        for hop in range(recording.tree.max_hops):
            generator.generate(model, [request for request, first in hop_of.items() if first == hop])
        row(size, [_seconds(batch, args) for batch in replay.batches])
    row("recorded", took)


def _seconds(batch: Sequence[Generation], args: Args) -> float:
    read, written = sum(made.tokens_in for made in batch), [made.tokens_out for made in batch]
    milliseconds = args.read_ms * args.shared * read + args.write_ms * sum(written) + args.step_ms * max(written)
    return milliseconds / 1000


if __name__ == "__main__":
    main()
