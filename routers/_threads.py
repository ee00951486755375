"""How many threads small networks are trained on, and small tables are searched by: one."""

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
    """Run numpy and scikit-learn on one thread: the last bits of a sum depend on how many share it."""
    limited: AbstractContextManager[None] = _libraries().limit(limits=1)
    return limited


@cache
def _libraries() -> Any:
    import sklearn.neighbors  # noqa: F401 - only what is loaded is found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # 8 ms, so once
