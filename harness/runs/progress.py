"""What long work shows while it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pools.models.generator import Batch
from pools.models.generator import Progress as OnBatch

# Where standard output is not a terminal there is nothing to redraw: a line this often instead.
_SECONDS_BETWEEN_LINES = 30.0


@dataclass
class _Call:
    """What one call of a model has made so far."""

    task: TaskID
    tokens: int = 0
    seconds: float = 0.0


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
    calls: dict[str, _Call] = {}
    printed = [-math.inf]

    def say(line: str) -> None:
        printed[0] = time.monotonic()
        console.print(line, highlight=False, markup=False)

    def on_batch(batch: Batch) -> None:
        quiet = time.monotonic() - printed[0] < _SECONDS_BETWEEN_LINES
        if batch.done == 0:
            calls[batch.model] = _Call(bar.add_task(batch.model, total=batch.total, rate=0.0))
            if bar.disable and not quiet:
                say(f"{batch.model}: {batch.total} responses to make")
            return
        call = calls[batch.model]
        call.tokens += batch.tokens_out
        call.seconds += batch.seconds
        rate = call.tokens / max(call.seconds, 1e-9)
        bar.update(call.task, completed=batch.done, rate=rate)
        if bar.disable and (batch.done == batch.total or not quiet):
            left = call.seconds / batch.done * (batch.total - batch.done)
            say(f"{batch.model}: {batch.done}/{batch.total} responses, {rate:.0f} tokens/s, {left:.0f} s left")

    with bar:
        yield on_batch
