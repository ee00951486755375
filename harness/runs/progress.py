"""What long work shows while it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

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
from routers.encoders.cache import embedding_progress

# Where standard output is not a terminal there is nothing to redraw: a line this often instead.
_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_TRIALS = 15.0
# Most encodings are over before anybody wonders.
_SECONDS_BEFORE_TEXTS = 2.0


@dataclass
class _Call:
    """What one call of a model has made so far."""

    task: TaskID
    tokens: int = 0
    seconds: float = 0.0
    start: float = field(default_factory=time.monotonic)


@contextmanager
def generation_progress(console: Console) -> Iterator[OnBatch]:
    """A bar for every call of a model: responses made of those asked for, tokens per second, time left for the call.

    One more for every long encoding of texts by a router's encoder.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} {task.fields[unit]}/s"),
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
            calls[batch.model] = _Call(bar.add_task(batch.model, total=batch.total, rate=0.0, unit="tokens"))
            if bar.disable:
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

    encodings: list[_Call] = []

    def on_texts(done: int, total: int) -> None:
        if done == 0:
            encodings[:] = [_Call(bar.add_task("texts to embed", total=total, rate=0.0, unit="texts", visible=False))]
        call = encodings[0]
        seconds = time.monotonic() - call.start
        shown = seconds > _SECONDS_BEFORE_TEXTS
        bar.update(call.task, completed=done, rate=done / max(seconds, 1e-9), visible=shown)
        if bar.disable and shown and time.monotonic() - printed[0] > _SECONDS_BETWEEN_LINES:
            say(f"{done}/{total} texts embedded, {seconds / done * (total - done):.0f} s left")

    with bar, embedding_progress(on_texts):
        yield on_batch


@contextmanager
def trial_progress(console: Console, first: str = "") -> Iterator[Callable[[int, int, str], None]]:
    """A bar for trials done of those asked for, and what came last; a line now and then if nothing can be redrawn.

    first: a line that is shown once it is known how many trials there are.
    """
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task, start, over = bar.add_task("trials", total=None, visible=False), time.monotonic(), Event()
    now = ["0", ""]  # how many of how many, and which came last

    def say() -> None:
        line = f"{now[0]} trials, {time.monotonic() - start:.0f} s" + (f": {now[1]}" if now[1] else "")
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def on_trial(done: int, of: int, last: str) -> None:
        now[:] = f"{done}/{of}", last
        bar.update(task, total=of, completed=done, description=last or "trials", visible=True)
        if not last and first:
            console.print(first, highlight=False, markup=False, emoji=False, soft_wrap=True)
        if bar.disable and done == of:
            say()

    def say_again() -> None:
        # By the clock, not when a trial comes: the first may take minutes.
        while not over.wait(_SECONDS_BETWEEN_TRIALS):
            say()

    lines = Thread(target=say_again, daemon=True)
    with bar:
        if bar.disable:
            lines.start()
        try:
            yield on_trial
        finally:
            over.set()
            if bar.disable:
                lines.join()
