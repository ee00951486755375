"""Who is told how far trainings are, if no other is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import replace

from routers.router import Report, Training

Listener = Callable[[str], AbstractContextManager[Report]]
"""Is told the name of a training that begins; what it gives is told how far that is, and is left when it ends."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def training_progress(listener: Listener) -> Iterator[None]:
    """Tell the listener of every training that begins meanwhile."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def listened_to(training: Training) -> Iterator[Training]:
    """The training while it lasts: it reports to the listener, unless somebody else is named."""
    listener = _listener.get()
    if listener is None or training.report is not None:
        yield training
        return
    with listener(training.name) as report:
        yield replace(training, report=report)
