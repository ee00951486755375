"""What a task is to all other code: items to answer, and scores for responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pools.types import Item


class Task(Protocol):
    """A benchmark whose items are answered by text.

    name: as in the registry. fingerprint: sha256, in hex, of the configuration, the items and their targets, so that a
    recording can say what it recorded. duplicates: items left out because an earlier one has the same text.
    """

    name: str

    @property
    def fingerprint(self) -> str:
        """Hash of configuration, items and targets; another hash means other scores may follow."""
        ...

    @property
    def duplicates(self) -> int:
        """How many items were left out because an earlier one asks the same."""
        ...

    def items(self, limit: int | None = None) -> list[Item]:
        """The items, in order; of the first `limit` documents only if it is given."""
        ...

    def score(self, answers: Sequence[tuple[int, str]]) -> list[float]:
        """One score in [0, 1] per (doc_id, response), in their order."""
        ...
