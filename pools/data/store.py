"""The transition store: every response a model ever gave, by content."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pools.errors import UserError
from pools.files import alone_in, whole_file
from pools.types import Context, Generation, GenerationSettings, content_hash

PATIENCE = 60.0  # seconds to wait for another process's transaction
# What SQLite says of the disk and of other processes, and not of the file's content.
_AROUND = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY}
# The last one is the id of the response's provenance.
_KEY = ("key", "fingerprint", "settings", "context")
_COLUMNS = (*_KEY, "response", "tokens_in", "tokens_out", "finish_reason", "seconds", "origin")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS transition (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, settings TEXT NOT NULL, context TEXT NOT NULL,
    response TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    finish_reason TEXT NOT NULL, seconds REAL NOT NULL, origin TEXT REFERENCES origin (id),
    checksum TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS origin (id TEXT PRIMARY KEY, made TEXT NOT NULL) WITHOUT ROWID;
"""
_ROW = f"SELECT {', '.join(_COLUMNS)}, checksum FROM transition"
_CHECKSUM = b"checksum"  # in the metadata of an export
_log = logging.getLogger(__name__)


def transition_key(fingerprint: str, settings: GenerationSettings, context: Context) -> str:
    """The address of a response: a hash of the model's fingerprint, the settings and the context."""
    return content_hash(fingerprint, asdict(settings), context.plain())


class TransitionStore:
    """A SQLite file in WAL mode, safe under several threads and processes and under `kill -9`.

    The first response written for a key stays: `put` returns what the store holds, so that all processes go on with
    the same response and a replay is exact. hits, misses: look-ups so far that found a response, or none.

    Every row carries a checksum of all that it says. A row that does not agree with its own, since a bit of the file
    is another, counts as missing, with one warning: it is generated anew and replaced.
    Every method raises UserError when the file cannot be used: a full disk, a damaged file.

    provenance: how the responses that are put here come about (versions, commit, batch rule; plain data), kept with
    each of them, since a store may outlive all of these. None if that is not known.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
        self.path, self.hits, self.misses = path, 0, 0
        self._provenance, self._warned = provenance, False
        self._lock = threading.RLock()  # of the connection, and so of one transaction at a time
        with self._in_use():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            # A damaged text need not be UTF-8; it shall fail its checksum and not the whole file.
            self._connection.text_factory = lambda text: text.decode("utf-8", "replace")
            with alone_in(path.parent):  # SQLite does not wait for others that switch to WAL at the same moment
                self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
            self._connection.execute(f"{_ROW} LIMIT 0")

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
        provenance: Mapping[str, Any] | None = None,
    ) -> list[Generation]:
        """Write responses of one model in one transaction; what the store now holds for each.

        provenance: of these, if it is not the store's.
        """
        provenance = provenance or self._provenance
        told = None if provenance is None else json.dumps(provenance, sort_keys=True, ensure_ascii=False)
        return self._write(
            [
                (
                    transition_key(fingerprint, settings, context),
                    fingerprint,
                    json.dumps(asdict(settings), sort_keys=True),
                    json.dumps(context.plain(), sort_keys=True, ensure_ascii=False),
                    made.response,
                    int(made.tokens_in),
                    int(made.tokens_out),
                    made.finish_reason,
                    float(made.seconds),
                    told,
                )
                for context, settings, made in entries
            ]
        )

    def provenance(self, keys: Iterable[str]) -> list[tuple[int, dict[str, Any] | None]]:
        """How the responses of these keys came about: each provenance with how many have it, most first."""
        with self._in_use():
            rows = (self._connection.execute(f"{_ROW} WHERE key = ?", (key,)).fetchone() for key in keys)
            found = Counter(row[-2] for row in rows if row is not None)
            texts = self._provenance_texts()
        told = [(number, texts.get(id)) for id, number in found.most_common()]
        return [(number, None if text is None else json.loads(text)) for number, text in told]

    def export_parquet(self, path: Path) -> int:
        """Write all transitions to a Parquet file (zstd); how many."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._in_use():
            texts = self._provenance_texts()
            found = self._connection.execute(f"{_ROW} ORDER BY key")
            rows = [(*row[:-2], texts.get(row[-2])) for row in found if self._is_sound(row)]
        columns = zip(*rows, strict=True) if rows else [()] * len(_COLUMNS)
        table = pa.table({name: list(column) for name, column in zip(_COLUMNS, columns, strict=True)})
        table = table.replace_schema_metadata({_CHECKSUM: content_hash(*rows)})
        path.parent.mkdir(parents=True, exist_ok=True)
        # As an open file: pyarrow takes a path with a colon for an address.
        with whole_file(path) as partial, partial.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
        return len(rows)

    def import_parquet(self, path: Path) -> int:
        """Read transitions that `export_parquet` wrote; how many were new. Keys that are there already stay.

        Raises UserError when the file is none, or not what was exported.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # With no threads: a command that ends while pyarrow still starts some is aborted by them.
            table = pq.read_table(pa.BufferReader(path.read_bytes()), use_threads=False, pre_buffer=False)
            rows = list(zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True))
            if (table.schema.metadata or {}).get(_CHECKSUM) != content_hash(*rows).encode():
                raise ValueError("its checksum is another")
        except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"{path} is not an exported transition store, or is damaged ({said}); export it again"
            ) from None
        before = len(self)
        self._write(rows)
        return len(self) - before

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> list[Generation]:
        """Write rows, each with its provenance's text in the place of the id, in one transaction; what is held then."""
        with self._in_use(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for told in {row[-1] for row in rows} - {None}:
                # Replaced, since one that is there may be damaged.
                self._connection.execute("INSERT OR REPLACE INTO origin VALUES (?, ?)", (_id(told), told))
            return [self._read(row[0]) or self._insert(row) for row in rows]

    def _insert(self, row: tuple[Any, ...]) -> Generation:
        row = (*row[:-1], None if row[-1] is None else _id(row[-1]))
        marks = ", ".join("?" * (len(row) + 1))
        self._connection.execute(
            f"INSERT OR REPLACE INTO transition ({', '.join(_COLUMNS)}, checksum) VALUES ({marks})",
            (*row, content_hash(*row)),
        )
        return Generation(*row[4:9])

    def _read(self, key: str) -> Generation | None:
        row = self._connection.execute(f"{_ROW} WHERE key = ?", (key,)).fetchone()
        return Generation(*row[4:9]) if row is not None and self._is_sound(row) else None

    def _is_sound(self, row: Sequence[Any]) -> bool:
        """Whether a row's checksum, its last value, is that of the others."""
        try:
            sound = bool(row[-1] == content_hash(*row[:-1]))
        except (TypeError, ValueError):  # bytes in the place of a text, or a number that is none
            sound = False
        if not sound and not self._warned:
            self._warned = True
            _log.warning(
                "the store %s holds damaged responses (their checksums do not agree); they are not used but generated "
                "anew; look after that disk",
                self.path,
            )
        return sound

    def _provenance_texts(self) -> dict[str, str]:
        """The texts by their ids; a damaged one is not known any more."""
        found = self._connection.execute("SELECT id, made FROM origin").fetchall()
        return {id: told for id, told in found if id == _id(str(told))}

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """One thread at a time. Turn what SQLite says of a full disk or a damaged file into a UserError."""
        try:
            with self._lock:
                yield
        except sqlite3.ProgrammingError:  # a mistake of ours
            raise
        # A UnicodeDecodeError is raised when SQLite quotes a damaged file that is no UTF-8.
        except (sqlite3.DatabaseError, UnicodeDecodeError, OSError) as error:
            if getattr(error, "sqlite_errorcode", -1) & 0xFF in _AROUND:
                advice = "what was stored stays; make room on that disk, allow writing there, or wait for the process "
                advice += "that holds it, and give the same command again"
            else:
                advice = "it is damaged, or no store: name another, or move it away and record again, with what an "
                advice += "export or an earlier recording holds (--reuse)"
            said = " ".join(str(error).split())
            raise UserError(f"cannot use {self.path} as a transition store: {said}; {advice}") from None


def _id(provenance: str) -> str:
    return content_hash(provenance)[:16]
