"""A store or an export of which a bit is another, or the end is missing: refused in one line, or the same responses."""

from __future__ import annotations

import hashlib
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pools import Context, Generation, GenerationSettings, UserError
from pools.data import store
from pools.data.store import TransitionStore

SETTINGS = GenerationSettings(("\n\n",), 16)
PROVENANCE = {"by": "this test", "versions": {"torch": "2"}}
NUMBERS = range(60)


def made(number: int) -> Generation:
    """What a model answers: long enough that the file has several pages."""
    text = f"answer {number} " + hashlib.sha256(str(number).encode()).hexdigest() * (number % 5)
    return Generation(text, 10 + number, 3, "stop", 0.25 * number)


def context(number: int) -> Context:
    return Context(f"Question {number}", tuple(f"answer {n}" for n in range(number % 4)))


def record(path: Path, numbers: range = NUMBERS) -> list[Generation]:
    """As the recorder does: what the store has stays, what it lacks is generated; the responses."""
    held = TransitionStore(path, PROVENANCE)
    found = {n: held.get("model", SETTINGS, context(n)) for n in numbers}
    missing = [n for n, generation in found.items() if generation is None]
    for some in (missing[:20], missing[20:]):
        put = held.put("model", [(context(n), SETTINGS, made(n)) for n in some])
        found.update(zip(some, put, strict=True))
    answers = [generation for generation in found.values() if generation is not None]
    held.close()
    return answers


def held_in(path: Path) -> list[Generation | None]:
    """What a store has of all responses."""
    held = TransitionStore(path, PROVENANCE)
    return [held.get("model", SETTINGS, context(n)) for n in NUMBERS]


def imported(file: Path, path: Path) -> list[tuple[Any, ...]]:
    """The rows of a new store that an export was read into."""
    path.unlink(missing_ok=True)
    held = TransitionStore(path)
    held.import_parquet(file)
    held.close()
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT * FROM transition ORDER BY key").fetchall()


def exported(path: Path) -> list[tuple[Any, ...]]:
    """The rows of a store as its export gives them to another store."""
    file = path.with_name("export.parquet")
    TransitionStore(path).export_parquet(file)
    return imported(file, path.with_name("other"))


def put_back(files: dict[str, bytes], folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "s"


@pytest.fixture(params=["store", "store and its log", "half a store"])
def files(request: Any, tmp_path: Path) -> Iterator[dict[str, bytes]]:
    """The files of a store: closed; as a killed recorder leaves it, with all that is new in the log; half recorded."""
    path = tmp_path / "made" / "s"
    record(path, range(len(NUMBERS) // 2) if request.param == "half a store" else NUMBERS)
    if request.param == "store and its log":
        path.unlink()
        held = TransitionStore(path, PROVENANCE)  # open until the files are read
        held.put("model", [(context(n), SETTINGS, made(n)) for n in NUMBERS])
        assert path.with_name("s-wal").stat().st_size > 10_000
    yield {p.name: p.read_bytes() for p in path.parent.iterdir() if not p.name.endswith("-shm")}


@pytest.mark.parametrize("fault", ["bit flip", "truncation"])
def test_a_damaged_store(
    outcome: Any, files: dict[str, bytes], fault: str, tmp_path: Path, damages: Any, counted: Any, faults: int
) -> None:
    record(tmp_path / "whole" / "s")
    rows = without_provenance(exported(tmp_path / "whole" / "s"))
    expected = [made(n) for n in NUMBERS]
    before = sum(g is not None for g in held_in(put_back(files, tmp_path / "damaged")))
    found, anew = [], 0
    for name, content in files.items():
        for seed, damaged in enumerate(damages(fault, content, 12 * faults)):
            path = put_back({**files, name: damaged}, tmp_path / "damaged")
            with suppress(UserError):  # refused as a whole, so none is made again
                anew += sum(g is None for g in held_in(put_back({**files, name: damaged}, tmp_path / "seen"))[:before])
            found.append(outcome(lambda path=path: record(path), expected))
            if found[-1] == "same":
                found[-1] = outcome(lambda path=path: without_provenance(exported(path)), rows)
            assert path.exists() and found[-1] != "wrong", (name, seed)
    counted(fault, "transition store", len(found), found.count("refused"), 0, found.count("wrong"), anew)


def without_provenance(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows without their provenance, which is null if that is what was damaged, and the checksum over it."""
    return [row[:9] for row in rows]


def test_without_the_checksum_another_response_would_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, expected = tmp_path / "s", [made(n) for n in NUMBERS]
    record(path)
    changed = path.read_bytes().replace(b"answer 7 ", b"answer 5 ")
    path.write_bytes(changed)
    with monkeypatch.context() as patched:
        patched.setattr(TransitionStore, "_is_sound", lambda *_: True)
        assert record(path) != expected
    path.write_bytes(changed)
    assert record(path) == expected
    assert len(caplog.records) == 1 and "damaged responses" in caplog.text
    caplog.clear()
    assert record(path) == expected and not caplog.records, "it is fixed"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("response", "other"),
        ("response", b"\xff\xfe"),
        ("tokens_out", 2.5),
        ("origin", None),
        ("origin", "0" * 16),
        ("fingerprint", "stranger"),
        ("checksum", ""),
        ("key", "0" * 64),
    ],
)
def test_a_row_that_is_not_as_it_was_written_is_dropped_and_made_again(
    tmp_path: Path, column: str, value: Any, counted: Any
) -> None:
    path, expected = tmp_path / "s", [made(n) for n in NUMBERS]
    record(path)
    rows = exported(path)
    with sqlite3.connect(path) as connection:
        change = f"UPDATE transition SET {column} = ? WHERE response LIKE 'answer 7 %'"
        assert connection.execute(change, (value,)).rowcount == 1
    held = TransitionStore(path, PROVENANCE)
    assert len(held.put("model", [(context(n), SETTINGS, made(n)) for n in NUMBERS])) == len(NUMBERS)
    assert record(path) == expected and exported(path) == rows
    counted("another value", "row of a store", 1, lost=0, anew=1)


@pytest.mark.parametrize("fault", ["bit flip", "truncation"])
def test_a_damaged_export(outcome: Any, fault: str, tmp_path: Path, damages: Any, counted: Any, faults: int) -> None:
    record(tmp_path / "s")
    rows = exported(tmp_path / "s")
    file = tmp_path / "damaged.parquet"
    found = []
    for damaged in damages(fault, (tmp_path / "export.parquet").read_bytes(), 40 * faults):
        file.write_bytes(damaged)
        found.append(outcome(lambda: imported(file, tmp_path / "target"), rows))
    counted(fault, "exported store", len(found), found.count("refused"), wrong=found.count("wrong"))
    assert "refused" in found


def test_a_store_that_breaks_while_it_is_used(tmp_path: Path) -> None:
    held = TransitionStore(tmp_path / "s", PROVENANCE)
    held.put("model", [(context(n), SETTINGS, made(n)) for n in NUMBERS])
    held.close()
    held = TransitionStore(tmp_path / "s", PROVENANCE)
    held._connection.execute("PRAGMA shrink_memory")  # what it read when it was opened
    (tmp_path / "s").write_bytes(b"\xa5" * (tmp_path / "s").stat().st_size)
    for use in (lambda: held.get("model", SETTINGS, context(1)), lambda: len(held)):
        with pytest.raises(UserError, match=r"cannot use .*damaged.*--reuse") as error:
            use()
        assert "\n" not in str(error.value)


def test_a_file_that_may_grow_no_more(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; tests/harness/test_faults.py has a full disk."""
    script = f"""
import resource, signal, sys
sys.path[:0] = {[str(Path(store.__file__).parents[2])]!r}
from pathlib import Path
from pools import Context, Generation, GenerationSettings, UserError
from pools.data.store import TransitionStore
held = TransitionStore(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
settings = GenerationSettings((), 1)
try:
    for n in range(1000):
        held.put("m", [(Context(str(n)), settings, Generation(str(n) * 2000, 1, 1, "stop", 0.0))])
        print(n)
except UserError as error:
    print(error, file=sys.stderr)
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "s")], capture_output=True, text=True)
    assert "make room on that disk" in run.stderr and "what was stored stays" in run.stderr, run.stderr
    assert run.stderr.count("\n") == 1
    held, settings = TransitionStore(tmp_path / "s"), GenerationSettings((), 1)
    assert len(run.stdout.split()) > 5
    for n in run.stdout.split():
        kept = held.get("m", settings, Context(n))
        assert kept is not None and kept.response == n * 2000
