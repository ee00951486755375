"""How many threads small networks are trained on, and small tables are searched by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread.

    The networks are so small that several threads wait for each other, on a busy machine for minutes, and the numbers
    would depend on how many there are.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def one_library_thread() -> AbstractContextManager[None]:
    """Numerical libraries compute on one thread; must be entered after they are imported, and costs next to nothing."""
    limited: AbstractContextManager[None] = _libraries().limit(limits=1)
    return limited


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
