"""What long work shows while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pools.live import Batch
from pools.live import Progress as OnBatch

# Where standard output is not a terminal there is nothing to redraw: a line this often instead.
_SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def generation_progress(console: Console) -> Iterator[OnBatch]:
    """A bar for every call of a model: responses made of those asked for, tokens per second, time left for the call."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} tokens/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    current: dict[str, float] = {"task": -1, "tokens": 0, "seconds": 0, "printed": time.monotonic()}

    def on_batch(batch: Batch) -> None:
        if current["task"] < 0 or bar.tasks[int(current["task"])].finished or batch.done < current["done"]:
            current["task"] = bar.add_task(batch.model, total=batch.total, rate=0.0)
            current["tokens"] = current["seconds"] = 0
        current["done"] = batch.done
        current["tokens"] += batch.tokens_out
        current["seconds"] += batch.seconds
        rate = current["tokens"] / max(current["seconds"], 1e-9)
        bar.update(bar.task_ids[int(current["task"])], completed=batch.done, rate=rate)
        now = time.monotonic()
        if bar.disable and (batch.done == batch.total or now - current["printed"] > _SECONDS_BETWEEN_LINES):
            current["printed"] = now
            left = current["seconds"] / batch.done * (batch.total - batch.done)
            console.print(
                f"{batch.model}: {batch.done}/{batch.total} responses, {rate:.0f} tokens/s, {left:.0f} s left",
                highlight=False,
            )

    with bar:
        yield on_batch
