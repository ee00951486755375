"""The transition store: every response a model ever gave, by content."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import Any, get_args

from pools.data.parquet import read_columns
from pools.errors import UserError, shown
from pools.files import whole_file
from pools.types import Context, FinishReason, Generation, GenerationSettings, content_hash, utf8

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
_NUMBERS = ("tokens_in", "tokens_out")
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS transition (
        key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, settings TEXT NOT NULL, context TEXT NOT NULL,
        response TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
        finish_reason TEXT NOT NULL, seconds REAL NOT NULL, origin TEXT REFERENCES origin (id),
        checksum TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID
    """,
    "CREATE TABLE IF NOT EXISTS origin (id TEXT PRIMARY KEY, made TEXT NOT NULL) WITHOUT ROWID",
)
_ROW = f"SELECT {', '.join(_COLUMNS)}, checksum FROM transition"
# Rows that a look-up can find: what damage makes of a key is rarely one.
_FINDABLE = "SELECT COUNT(*) FROM transition WHERE length(key) = 64 AND key NOT GLOB '*[^0-9a-f]*'"
_EXPORT_CHECKSUM = b"checksum"
_log = logging.getLogger(__name__)


def transition_key(fingerprint: str, settings: GenerationSettings, context: Context) -> str:
    """The address of a response: a hash of the model's fingerprint, the settings and the context."""
    return content_hash(fingerprint, asdict(settings), asdict(context))


class TransitionStore:
    """A SQLite file in WAL mode, safe under several threads and processes and under `kill -9`.

    The first response written for a key stays: `put` returns what the store holds, so that all processes go on with
    the same response and a replay is exact. hits, misses: look-ups so far that found a response, or none.

    Every row carries a checksum of all that it says. A row that does not agree with its own, since a bit of the file is
    another, is never handed out: it is dropped, with one warning, and counts as missing, so that it is generated anew.
    So is what SQLite itself leaves out of a damaged log or file, with a warning when the store is opened.
    Every method raises UserError where the file cannot be used any more: a full disk, a damaged file.

    origin: how the responses that are put here come about (versions, commit, batch rule; plain data), kept with each of
    them, since a store may outlive all of these. None where that is not known.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any] | None = None) -> None:
        self.path, self.hits, self.misses = path, 0, 0
        self.origin = origin
        self._warned = False
        self._rows = RowCount(path)
        self._lock = threading.RLock()  # of the connection, and so of one transaction at a time
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                self._rows.forget()  # of one that was removed
            self._connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            # A damaged text need not be UTF-8; it shall fail its checksum and not the whole file.
            self._connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
            use_wal(self._connection)
            self._connection.execute("PRAGMA synchronous = NORMAL")
            for table in _SCHEMA:
                self._connection.execute(table)
            self._add_checksums()
            self._connection.execute(f"{_ROW} LIMIT 0")
            if self._rows.read() != self._findable():
                with self._transaction():  # nobody else is about to commit
                    self._rows.compare(self._findable())
        except (*BROKEN, OSError) as error:
            raise UserError(
                f"cannot use {path} as a transition store: {one_line(error)}; "
                + advice(error, "name another file, or remove it")
            ) from None

    def __len__(self) -> int:
        with self._in_use():
            return int(self._connection.execute("SELECT COUNT(*) FROM transition").fetchone()[0])

    def get(self, fingerprint: str, settings: GenerationSettings, context: Context) -> Generation | None:
        """The recorded response, or None."""
        with self._in_use():
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
        entries = list(entries)
        for _, _, generation in entries:
            _check(generation)
        # Plus 0.0, since SQLite keeps no -0.0, and the checksum would be another.
        rows = [
            (
                transition_key(fingerprint, settings, context),
                fingerprint,
                json.dumps(asdict(settings), sort_keys=True),
                json.dumps(asdict(context), sort_keys=True, ensure_ascii=False),
                *(
                    made.response,
                    int(made.tokens_in),
                    int(made.tokens_out),
                    made.finish_reason,
                    float(made.seconds) + 0.0,
                ),
            )
            for context, settings, made in entries
        ]
        origin = origin or self.origin
        made = None if origin is None else json.dumps(origin, sort_keys=True, ensure_ascii=False)
        with self._in_use():
            for _ in range(2):  # again where a row in its place was damaged and is dropped now
                self._insert([(*row, made) for row in rows])
                held = [self._read(row[0]) for row in rows]
                whole = [generation for generation in held if generation is not None]
                if len(whole) == len(rows):
                    return whole
        raise UserError(
            f"the store {self.path} does not give back what is written to it; move it away and record again, on a disk "
            "and a computer that keep what they are given"
        )

    def keys(self) -> Iterator[str]:
        """All keys, in order."""
        with self._in_use():
            for (key,) in self._connection.execute("SELECT key FROM transition ORDER BY key"):
                yield key

    def origins(self, keys: Iterable[str]) -> list[tuple[int, dict[str, Any] | None]]:
        """How the responses of these keys came about: each origin with how many there are of it, most first."""
        ids = "SELECT origin FROM transition WHERE key = ?"
        with self._in_use():
            found = Counter(row[0] for key in keys for row in self._connection.execute(ids, (key,)))
            texts = self._origins()
        named = [(number, texts.get(id)) for id, number in found.most_common()]
        return [(number, None if text is None else json.loads(text)) for number, text in named]

    def export_parquet(self, path: Path) -> int:
        """Write all transitions to a Parquet file (zstd); how many."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._in_use():
            texts = self._origins()
            held = {row[0]: (*row[:-2], texts.get(row[-2])) for row in self._sound_rows()}
        rows = [held[key] for key in sorted(held)]
        columns = dict(zip(_COLUMNS, zip(*rows, strict=True) if rows else [()] * len(_COLUMNS), strict=True))
        repeated = pa.dictionary(pa.int32(), pa.string())
        types = {"tokens_in": pa.int32(), "tokens_out": pa.int32(), "seconds": pa.float32(), "origin": repeated}
        table = pa.table({name: pa.array(column, types.get(name, pa.string())) for name, column in columns.items()})
        table = table.replace_schema_metadata({_EXPORT_CHECKSUM: content_hash(*_rows(table))})
        path.parent.mkdir(parents=True, exist_ok=True)
        # As an open file: pyarrow takes a path with a colon for an address.
        with whole_file(path) as partial, partial.open("wb") as file:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        return len(rows)

    def import_parquet(self, path: Path) -> int:
        """Read transitions that `export_parquet` wrote; how many were new. Keys that are there already stay.

        Raises UserError where the file cannot be read as one, where it is not what was exported, or where a key does
        not belong to its content.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts, numbers = dict.fromkeys(_COLUMNS[:-1], pa.string()), dict.fromkeys(_NUMBERS, pa.int32())
        schema = pa.schema({**texts, **numbers, "seconds": pa.float64()})
        try:
            content = path.read_bytes()
            columns = read_columns(path.name, content, schema)
            rows = list(zip(*columns.values(), _read_origins(content), strict=True))
        except (OSError, KeyError, ValueError, TypeError, RecursionError, pa.ArrowException) as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"{path} is not an exported transition store, or is damaged: {said}; name a file of export"
            ) from None
        written = pq.read_schema(pa.BufferReader(content)).metadata or {}
        if written.get(_EXPORT_CHECKSUM, b"").decode("ascii", "replace") not in ("", _hash_or_none(rows)):
            raise UserError(f"{path} is damaged: it is not what was exported; export it again")
        for row in rows:
            if row[0] != _row_key(row):
                raise UserError(f"{path} is damaged: key {row[0]} does not belong to its content; export it again")
            try:
                _check(Generation(*row[4:9]))
            except UserError as error:
                raise UserError(f"{path} is damaged: {error}; export it again") from None
        before = len(self)
        with self._in_use():
            self._insert(rows)
        return len(self) - before

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def _insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write rows whose last value is the origin's text, or None."""
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        ids = {made: _origin_id(made) for made in {row[-1] for row in rows} if made is not None}
        numbered = [(*row[:-1], ids.get(row[-1])) for row in rows]
        with self._transaction():
            # Replaced, since one that is there may be damaged.
            origins = [(id, made) for made, id in ids.items()]
            self._connection.executemany("INSERT OR REPLACE INTO origin VALUES (?, ?)", origins)
            new = self._connection.executemany(
                f"INSERT OR IGNORE INTO transition ({', '.join(_COLUMNS)}, checksum) VALUES ({marks})",
                [(*row, content_hash(*row)) for row in numbered],
            )
            self._rows.add(new.rowcount)

    def _read(self, key: str) -> Generation | None:
        row = self._connection.execute(f"{_ROW} WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if not _is_sound(row):
            self._drop(key)
            return None
        return Generation(*row[4:9])

    def _drop(self, key: str) -> None:
        """Remove a damaged row, unless another process has put a sound one in its place meanwhile."""
        self._warn()
        with self._transaction():
            row = self._connection.execute(f"{_ROW} WHERE key = ?", (key,)).fetchone()
            if row is not None and not _is_sound(row):
                self._connection.execute("DELETE FROM transition WHERE key = ?", (key,))
                self._rows.add(-1)

    def _sound_rows(self) -> Iterator[tuple[Any, ...]]:
        """All rows, with their checksums, but for the damaged ones."""
        for row in self._connection.execute(_ROW):
            if _is_sound(row):
                yield row
            else:
                self._warn()

    def _origins(self) -> dict[str, str]:
        """The origins' texts by their ids; a damaged one is not known any more."""
        found = self._connection.execute("SELECT id, made FROM origin").fetchall()
        return {id: made for id, made in found if id == _hash_or_none(made, _origin_id)}

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "the store %s holds damaged responses (their checksums do not agree); they are not used but generated "
                "anew; look after that disk",
                self.path,
            )

    def _findable(self) -> int:
        return int(self._connection.execute(_FINDABLE).fetchone()[0])

    def _add_checksums(self) -> None:
        """Bring a store that was made without checksums up to date. A row whose key is not its own gets none."""

        def there() -> bool:
            return "checksum" in {column[1] for column in self._connection.execute("PRAGMA table_info(transition)")}

        if there():
            return
        with self._transaction():
            if there():  # another process was faster
                return
            self._connection.execute("ALTER TABLE transition ADD COLUMN checksum TEXT NOT NULL DEFAULT ''")
            for (key,) in self._connection.execute("SELECT key FROM transition").fetchall():
                if not isinstance(key, str) or not key.isascii():
                    continue
                row = self._connection.execute(f"{_ROW} WHERE key = ?", (key,)).fetchone()
                if row is not None and key == _row_key(row):
                    made = _hash_or_none(row[:-1])
                    self._connection.execute("UPDATE transition SET checksum = ? WHERE key = ?", (made or "", key))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        rows = self._rows.read()
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._rows.write(rows)
            if self._connection.in_transaction:  # SQLite ends it itself where the disk is full
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """One thread at a time. Turn what SQLite says of a full disk or a damaged file into a UserError."""
        try:
            with self._lock:
                yield
        except sqlite3.ProgrammingError:
            raise
        except BROKEN as error:
            raise UserError(
                f"the transition store {self.path} cannot be used any more: {one_line(error)}; "
                + advice(error, ADVICE[sqlite3.SQLITE_CORRUPT])
            ) from None


def _check(made: Generation) -> None:
    """Raise UserError where a column cannot hold a value; the texts but the response are in the key already."""
    utf8(made.response)
    numbers = made.tokens_in, made.tokens_out, made.seconds
    whole = all(isinstance(tokens, Integral) for tokens in numbers[:2])
    if not whole or not all(0 <= number < 2**31 for number in numbers):
        raise UserError(f"a transition store cannot hold the tokens and seconds of a response: {shown(numbers)}")
    if made.finish_reason not in get_args(FinishReason):
        raise UserError(f"a response ends by {' or '.join(get_args(FinishReason))}, got {shown(made.finish_reason)}")


def _origin_id(made: str) -> str:
    return content_hash(made)[:16]


def _hash_or_none(content: Sequence[Any], hashed: Callable[..., str] | None = None) -> str | None:
    """The hash of a row, or None where it holds what no row does: bytes, a text that is no Unicode."""
    try:
        return content_hash(*content) if hashed is None else hashed(content)
    except (ValueError, TypeError):
        return None


def _is_sound(row: Sequence[Any]) -> bool:
    """Whether a row's checksum, its last value, is that of the others."""
    return row[-1] is not None and row[-1] == _hash_or_none(row[:-1])


def _rows(table: Any) -> list[tuple[Any, ...]]:
    """The rows of an exported table."""
    return list(zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True))


def _read_origins(content: bytes) -> list[str | None]:
    """The origins of an exported table, which may lack them. Raises ValueError where one is no JSON of an object."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    if _COLUMNS[-1] not in file.schema_arrow.names:
        return [None] * int(file.metadata.num_rows)
    found: list[str | None] = file.read([_COLUMNS[-1]])[_COLUMNS[-1]].to_pylist()
    for made in {made for made in found if made is not None}:
        if not isinstance(json.loads(made), dict):
            raise ValueError(f"{_COLUMNS[-1]} is {shown(made)}")
    return found


def _row_key(row: Sequence[str]) -> str | None:
    """The key that belongs to an exported row, or None where its settings or context cannot be read."""
    try:
        return content_hash(row[1], json.loads(row[2]), json.loads(row[3]))
    except (ValueError, TypeError, RecursionError, UserError):
        return None


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
