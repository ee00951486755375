"""What is told of live models while they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Loading:
    """A model is being loaded into this process; or has been, in so many `seconds`."""

    model: str
    seconds: float | None = None


@dataclass(frozen=True)
class Silence:
    """The server behind a model did not answer, `why`, and is asked again; told once, until it answers."""

    model: str
    why: str


@dataclass(frozen=True)
class UnderWay:
    """What the batch that a model is answering has so far: nothing, when it begins.

    responses: that have ended. tokens_out: written.
    """

    model: str
    responses: int
    tokens_out: int


@dataclass(frozen=True)
class Batch:
    """A batch that was answered, and stored if there is a store.

    done: requests answered so far, this batch included, of `total` that one call of `generate` has to ask for; 0 before
    the first batch. tokens_in, tokens_out: of the batch.
    """

    model: str
    done: int
    total: int
    tokens_in: int
    tokens_out: int


Progress = Callable[[Loading | Silence | UnderWay | Batch], None]


@dataclass
class _Tally:
    model: str
    progress: Progress
    responses: int = 0
    tokens_out: int = 0


_tally: ContextVar[_Tally | None] = ContextVar("tally", default=None)


@contextmanager
def under_way(model: str, progress: Progress | None) -> Iterator[None]:
    """A batch of a model: that it begins, and what is counted and said of it in all that this calls, is told."""
    token = _tally.set(None if progress is None else _Tally(model, progress))
    count()
    try:
        yield
    finally:
        _tally.reset(token)


def count(responses: int = 0, tokens_out: int = 0) -> None:
    """So much more of the batch under way is there."""
    if (tally := _tally.get()) is not None:
        tally.responses, tally.tokens_out = tally.responses + responses, tally.tokens_out + tokens_out
        tally.progress(UnderWay(tally.model, tally.responses, tally.tokens_out))


def say_silent(why: str) -> None:
    """The server that is asked does not answer."""
    if (tally := _tally.get()) is not None:
        tally.progress(Silence(tally.model, why))
