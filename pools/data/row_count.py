"""How many responses a store holds, in a small file beside it.

SQLite leaves out what it finds damaged in its log, or behind a lost end, as if it had never been written. A number that
is not in those files shows that something is missing.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from pools.types import content_hash

_log = logging.getLogger(__name__)


class RowCount:
    """The file `STORE-rows`: a number and its checksum. Who writes has the store's own lock.

    Where it is gone, damaged or cannot be written, nothing is compared until the store is opened again.
    """

    def __init__(self, store: Path) -> None:
        self._store, self._path = store, store.with_name(store.name + "-rows")

    def read(self) -> int | None:
        """The number of rows, or None where it is not known."""
        with suppress(OSError, ValueError):
            number, checksum = self._path.read_text(encoding="ascii").split()
            if checksum == _checksum(int(number)):
                return int(number)
        return None

    def write(self, rows: int | None) -> None:
        """Note a number of rows, in place, so that a full disk is no hindrance."""
        if rows is not None:
            with suppress(OSError):
                mode = "r+" if self._path.exists() else "w"
                with self._path.open(mode, encoding="ascii") as file:
                    file.write(f"{rows:>19} {_checksum(rows)}\n")

    def add(self, more: int) -> None:
        """Count the rows of a transaction, just before it is committed."""
        before = self.read()
        self.write(None if before is None else before + more)

    def compare(self, held: int) -> None:
        """Say how many rows are missing of those that were committed, and go on from what is there."""
        noted = self.read()
        if noted is not None and held < noted:
            _log.warning(
                "%d of %d responses are missing in the store %s: its file or its log was damaged; they are generated "
                "anew; look after that disk",
                noted - held,
                noted,
                self._store,
            )
        self.write(held)

    def forget(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _checksum(rows: int) -> str:
    return content_hash(rows)[:16]
