"""The transition store: every response a model ever gave, by content."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pools.errors import UserError, shown
from pools.types import Context, Generation, GenerationSettings, content_hash, utf8

_COLUMNS = (
    "key",
    "fingerprint",
    "settings",
    "context",
    "response",
    "tokens_in",
    "tokens_out",
    "finish_reason",
    "seconds",
    "origin",
)
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS transition (
        key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, settings TEXT NOT NULL, context TEXT NOT NULL,
        response TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
        finish_reason TEXT NOT NULL, seconds REAL NOT NULL, origin TEXT REFERENCES origin (id)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE IF NOT EXISTS origin (id TEXT PRIMARY KEY, made TEXT NOT NULL) WITHOUT ROWID",
)
_PATIENCE = 60.0  # seconds to wait for another process's transaction


def transition_key(fingerprint: str, settings: GenerationSettings, context: Context) -> str:
    """The address of a response: a hash of the model's fingerprint, the settings and the context."""
    return content_hash(fingerprint, asdict(settings), asdict(context))


class TransitionStore:
    """A SQLite file in WAL mode, safe under several processes and `kill -9`.

    The first response written for a key stays: `put` returns what the store holds, so that all processes go on with
    the same response and a replay is exact. hits, misses: look-ups so far that found a response, or none.

    origin: how the responses that are put here come about (versions, commit, batch rule; plain data), kept with each of
    them, since a store may outlive all of these. None where that is not known.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any] | None = None) -> None:
        self.path, self.hits, self.misses = path, 0, 0
        self.origin = origin
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
            _use_wal(self._connection)
            self._connection.execute("PRAGMA synchronous = NORMAL")
            for table in _SCHEMA:
                self._connection.execute(table)
            self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM transition LIMIT 0")
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"cannot use {path} as a transition store: {error}; name another file, or remove it"
            ) from None

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT COUNT(*) FROM transition").fetchone()[0])

    def get(self, fingerprint: str, settings: GenerationSettings, context: Context) -> Generation | None:
        """The recorded response, or None."""
        found = self._read(transition_key(fingerprint, settings, context))
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def put(
        self,
        fingerprint: str,
        entries: Iterable[tuple[Context, GenerationSettings, Generation]],
        origin: Mapping[str, Any] | None = None,
    ) -> list[Generation]:
        """Write responses of one model in one transaction; what the store now holds for each.

        origin: of these, where it is not the store's.
        """
        rows = [
            (
                transition_key(fingerprint, settings, context),
                fingerprint,
                json.dumps(asdict(settings), sort_keys=True),
                json.dumps(asdict(context), sort_keys=True, ensure_ascii=False),
                *(made.response, made.tokens_in, made.tokens_out, made.finish_reason, made.seconds),
            )
            for context, settings, made in entries
        ]
        for row in rows:
            _check(row)
        origin = origin or self.origin
        made = None if origin is None else json.dumps(origin, sort_keys=True, ensure_ascii=False)
        self._insert([(*row, made) for row in rows])
        held = [self._read(row[0]) for row in rows]
        return [generation for generation in held if generation is not None]

    def keys(self) -> Iterator[str]:
        """All keys, in order."""
        for (key,) in self._connection.execute("SELECT key FROM transition ORDER BY key"):
            yield key

    def origins(self, keys: Iterable[str]) -> list[tuple[int, dict[str, Any] | None]]:
        """How the responses of these keys came about: each origin with how many there are of it, most first."""
        ids = "SELECT origin FROM transition WHERE key = ?"
        found = Counter(row[0] for key in keys for row in self._connection.execute(ids, (key,)))
        texts = dict(self._connection.execute("SELECT id, made FROM origin").fetchall())
        return [(number, None if id is None else json.loads(texts[id])) for id, number in found.most_common()]

    def export_parquet(self, path: Path) -> int:
        """Write all transitions to a Parquet file (zstd); how many."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns_of_both = ", ".join("origin.made" if name == "origin" else f"transition.{name}" for name in _COLUMNS)
        query = f"SELECT {columns_of_both} FROM transition LEFT JOIN origin ON origin.id = transition.origin"
        rows = self._connection.execute(f"{query} ORDER BY key").fetchall()
        columns = dict(zip(_COLUMNS, zip(*rows, strict=True) if rows else [()] * len(_COLUMNS), strict=True))
        repeated = pa.dictionary(pa.int32(), pa.string())
        types = {"tokens_in": pa.int32(), "tokens_out": pa.int32(), "seconds": pa.float32(), "origin": repeated}
        arrays = {name: pa.array(column, types.get(name, pa.string())) for name, column in columns.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".partial")
        pq.write_table(pa.table(arrays), temporary, compression="zstd")
        temporary.replace(path)
        return len(rows)

    def import_parquet(self, path: Path) -> int:
        """Read transitions that `export_parquet` wrote; how many were new. Keys that are there already stay.

        Raises UserError where the file cannot be read as one, or where a key does not belong to its content.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            table = table.append_column("origin", pa.nulls(len(table))) if "origin" not in table.column_names else table
            table = table.select(list(_COLUMNS))
        except (OSError, KeyError, pa.ArrowException) as error:
            shown = " ".join(str(error).split())
            raise UserError(f"{path} is not an exported transition store: {shown}; name a file of export") from None
        rows = list(zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True))
        for row in rows:
            if None in row[:-1] or row[0] != _row_key(row):
                raise UserError(f"{path} is damaged: key {row[0]} does not belong to its content; export it again")
        before = len(self)
        self._insert(rows)
        return len(self) - before

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def _insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write rows whose last value is the origin's text, or None."""
        marks = ", ".join("?" * len(_COLUMNS))
        ids = {made: content_hash(made)[:16] for made in {row[-1] for row in rows} if made is not None}
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany("INSERT OR IGNORE INTO origin VALUES (?, ?)", [(i, m) for m, i in ids.items()])
            numbered = [(*row[:-1], ids.get(row[-1])) for row in rows]
            self._connection.executemany(f"INSERT OR IGNORE INTO transition VALUES ({marks})", numbered)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _read(self, key: str) -> Generation | None:
        row = self._connection.execute(
            "SELECT response, tokens_in, tokens_out, finish_reason, seconds FROM transition WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else Generation(*row)


def _check(row: Sequence[Any]) -> None:
    """Raise UserError where a column cannot hold a value; the texts but the response are in the key already."""
    utf8(row[4])
    if not all(isinstance(tokens, int) and 0 <= tokens < 2**31 for tokens in row[5:7]) or not 0 <= row[8] < 2**31:
        raise UserError(f"a transition store cannot hold the tokens and seconds of a response: {shown(row[5:9])}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait here for others that do so at the same moment, as it does elsewhere."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _row_key(row: Sequence[str]) -> str | None:
    """The key that belongs to an exported row, or None where its settings or context cannot be read."""
    try:
        return content_hash(row[1], json.loads(row[2]), json.loads(row[3]))
    except (ValueError, TypeError):
        return None
