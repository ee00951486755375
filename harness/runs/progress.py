"""What long work shows while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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

from pools.models.progress import Batch, Loading, Silence, UnderWay
from pools.models.progress import Progress as OnProgress
from pools.numbers import counted
from routers.encoders.cache import embedding_progress
from routers.progress import training_progress
from routers.router import Report

# Where standard output is not a terminal there is nothing to redraw: a line this often instead.
_SECONDS_BETWEEN_LINES = 20.0
_SECONDS_BETWEEN_TRIALS = 15.0
# Most encodings are over before anybody wonders.
_SECONDS_BEFORE_TEXTS = 2.0


@dataclass
class _Call:
    """What one call of a model has made so far: in batches that are stored, and in the one under way."""

    task: TaskID
    total: int = 0
    done: int = 0
    tokens: int = 0
    under_way: tuple[int, int] | None = None
    start: float = field(default_factory=time.monotonic)

    @property
    def responses(self) -> int:
        """Responses that have ended."""
        return self.done + (self.under_way or (0, 0))[0]

    @property
    def written(self) -> int:
        """Tokens."""
        return self.tokens + (self.under_way or (0, 0))[1]

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.written / max(time.monotonic() - self.start, 1e-9)

    def line(self, model: str) -> str:
        """How far it is, and how long the rest takes if it goes on as so far."""
        left = self.total - self.responses
        seconds = (time.monotonic() - self.start) / max(self.responses, 1) * left
        rest = f", {seconds:.0f} s left" if self.responses else ""
        tokens = f"{self.written:,} tokens, {self.rate:.0f} tokens/s"
        return f"{model}: {self.responses}/{self.total} responses, {tokens}{rest}"


@dataclass
class _Training:
    """How far a training is, in steps; before the `first` that it tells of, it prepares."""

    task: TaskID
    first: int = 0
    done: int = 0
    total: int = 0
    said: str = ""
    start: float = field(default_factory=time.monotonic)

    def line(self, name: str) -> str:
        """How far it is, and how long the rest takes if it goes on as so far."""
        seconds = time.monotonic() - self.start
        if self.done == self.first:
            return f"training {name}: {seconds:.0f} s so far"
        left = seconds / (self.done - self.first) * (self.total - self.done)
        said = f", {self.said}" if self.said else ""
        return f"training {name}: {self.done:,}/{self.total:,} steps{said}, {left:.0f} s left"


@contextmanager
def generation_progress(console: Console) -> Iterator[OnProgress]:
    """A bar for every call of a model: responses made of those asked for, tokens per second, time left for the call.

    One more for every model while it is loaded, for every router while it is trained, and for every long encoding of
    texts by a router's encoder. If the console is no terminal, a line where a call's bar would begin or end, and every
    20 seconds one on what is under way.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    calls: dict[str, _Call] = {}
    loading: dict[str, _Call] = {}
    trainings: dict[str, _Training] = {}
    printed = [time.monotonic()]

    def say(line: str) -> None:
        printed[0] = time.monotonic()
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    def begin(what: str, total: int | None, visible: bool = True) -> _Call:
        return _Call(bar.add_task(what, total=total, rate="", visible=visible), total or 0)

    def on_loading(event: Loading) -> None:
        if event.seconds is None:
            loading[event.model] = begin(f"loading {event.model}", None)
            if bar.disable:
                say(f"loading {event.model}")
            return
        bar.remove_task(loading.pop(event.model).task)
        say(f"{event.model}: loaded in {event.seconds:.1f} s")

    def on_progress(event: Loading | Silence | UnderWay | Batch) -> None:
        if isinstance(event, Loading):
            on_loading(event)
        elif isinstance(event, Silence):
            say(f"{event.model}: its server did not answer ({event.why}) and is asked again")
        elif isinstance(event, Batch) and not event.done and event.model not in calls:
            calls[event.model] = begin(event.model, event.total)
            if bar.disable:
                say(f"{event.model}: {counted(event.total, 'response')} to make")
        elif (call := calls.get(event.model)) is not None:
            if isinstance(event, UnderWay):
                if call.under_way is None:  # until now, other models were at work
                    call.start = time.monotonic()
                call.under_way = event.responses, event.tokens_out
            else:
                call.done, call.tokens, call.under_way = event.done, call.tokens + event.tokens_out, (0, 0)
            bar.update(call.task, completed=call.responses, rate=f"{call.rate:.0f} tokens/s")
            if call.done == call.total:
                del calls[event.model]
                if bar.disable:
                    say(call.line(event.model))

    @contextmanager
    def on_training(name: str) -> Iterator[Report]:
        it = trainings[name] = _Training(bar.add_task(f"training {name}", total=None, rate=""))
        printed[0] = it.start  # who begins a training says so

        def report(done: int, total: int, said: str) -> None:
            it.done, it.total, it.said = done, total, said  # before `first`: another thread reads them
            if not it.first:
                it.first, it.start = done, time.monotonic()
            bar.update(it.task, completed=done, total=total, rate=said)

        try:
            yield report
        finally:
            bar.remove_task(trainings.pop(name).task)

    def say_what_is_under_way() -> None:
        if time.monotonic() - printed[0] < _SECONDS_BETWEEN_LINES:
            return
        for model, call in list(loading.items()):
            say(f"loading {model}: {time.monotonic() - call.start:.0f} s so far")
        begun = {model: call for model, call in list(calls.items()) if call.under_way is not None or call.done}
        for model, call in begun.items():
            say(call.line(model))
        for name, training in list(trainings.items()):
            say(training.line(name))

    encodings: list[_Call] = []

    def on_texts(done: int, total: int) -> None:
        if done == 0:
            encodings[:] = [begin("texts to embed", total, visible=False)]
        call = encodings[0]
        seconds = time.monotonic() - call.start
        shown = seconds > _SECONDS_BEFORE_TEXTS
        bar.update(call.task, completed=done, rate=f"{done / max(seconds, 1e-9):.0f} texts/s", visible=shown)
        if bar.disable and shown and time.monotonic() - printed[0] > _SECONDS_BETWEEN_LINES:
            say(f"{done}/{total} texts embedded, {seconds / done * (total - done):.0f} s left")

    talking = _by_the_clock(say_what_is_under_way, 1.0) if bar.disable else nullcontext()
    with bar, embedding_progress(on_texts), training_progress(on_training), talking:
        yield on_progress


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
    task, start = bar.add_task("trials", total=None, visible=False), time.monotonic()
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

    # By the clock, not when a trial comes: the first may take minutes.
    with bar, _by_the_clock(say, _SECONDS_BETWEEN_TRIALS) if bar.disable else nullcontext():
        yield on_trial


@contextmanager
def _by_the_clock(say: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call it every so many seconds, whatever goes on meanwhile."""
    over = Event()

    def say_again() -> None:
        while not over.wait(seconds):
            say()

    thread = Thread(target=say_again, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
