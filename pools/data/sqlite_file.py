"""A SQLite file that several processes write: how it is opened, and what to do about its errors."""

from __future__ import annotations

import sqlite3
import time

PATIENCE = 60.0  # seconds to wait for another process's transaction
BROKEN = (sqlite3.Error, UnicodeDecodeError)  # the latter where SQLite quotes a damaged file that is no UTF-8
_KEPT = "what was stored stays;"
ADVICE = {
    sqlite3.SQLITE_FULL: f"{_KEPT} make room on that disk and give the same command again",
    sqlite3.SQLITE_IOERR: f"{_KEPT} make room on that disk, or mend it, and give the same command again",
    sqlite3.SQLITE_READONLY: f"{_KEPT} allow writing there, or name a copy of it",
    sqlite3.SQLITE_BUSY: f"{_KEPT} wait for the process that holds it, and give the same command again",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: move it away and record again, with what an export or an earlier "
    "recording holds (--reuse) or what `sqlite3 FILE .recover` saves",
}


def one_line(error: Exception) -> str:
    """What SQLite says, which may quote the damaged file."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())


def advice(error: Exception, otherwise: str) -> str:
    """What to do about an error of SQLite."""
    return ADVICE.get(getattr(error, "sqlite_errorcode", -1) & 0xFF, otherwise)


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait here for others that do so at the same moment, as it does elsewhere."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
