"""The invented tasks' items, as lm-eval asks for them: it loads this file by its path, and calls it with metadata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tasks.invented import records as _records
from tasks.invented import stories as _stories
from tasks.invented import sums as _sums


def records(**_: Any) -> dict[str, Any]:
    """lm-eval's `custom_dataset`: all documents as the split `test`; the suite's split is in their field `split`."""
    return _dataset(_records.docs())


def sums(**_: Any) -> dict[str, Any]:
    """As `records`."""
    return _dataset(_sums.docs())


def stories(**_: Any) -> dict[str, Any]:
    """As `records`."""
    return _dataset(_stories.docs())


def _dataset(docs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    import datasets

    return {"test": datasets.Dataset.from_list(list(docs))}
