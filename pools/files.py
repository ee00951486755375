"""Files that are written whole or not at all: one alone, or several that belong together."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pools.errors import UserError

_COMPLETE = ".complete"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what shall become `path`: it takes that name at the end, and is removed if that is not reached.

    Of several processes that write the same file at once, each waits for the one before it. An OSError that does not
    say of which file it is, as that of a full disk, says it then.
    """
    partial = path.with_name(path.name + ".partial")
    with alone_in(path.parent):
        try:
            with _naming(path):
                yield partial
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def check_out_file(out: Path | None, force: bool) -> None:
    """Raise UserError if `--out` is given and no place for a file, or holds one that only `--force` replaces."""
    if out is None:
        return
    if out.is_dir() or (out.parent.exists() and not out.parent.is_dir()):
        raise UserError(f"--out {out} is no place for a file; name another")
    if out.exists() and not force:
        raise UserError(f"--out {out} is there; name another file, or replace it with --force")


@contextmanager
def whole_folder(
    folder: Path, last: str, obsolete: Callable[[], Iterable[str]] = tuple, check: Callable[[], None] | None = None
) -> Iterator[Path]:
    """Where to write files that shall be in `folder` together: all of them are moved there at the end, or none.

    They are written to a folder inside it. Once they are complete, a file there says so, and they are moved, `last` as
    the last. A process that is killed in between leaves the rest to `finish_moving`, which every reader calls first.
    Other programs need not know of this: while files are moved, `last` is missing.

    obsolete: names in `folder` that belong to an earlier result and go; whatever else is there stays. check: raises
    UserError if nothing may be written. Both are called when no other process writes there.
    """
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    partial = _partial(folder, last)
    with alone_in(folder):
        _move(folder, last)
        try:
            if check is not None:
                check()
            with _naming(folder):
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                yield partial
                gone = set(obsolete()) - set(map(str, _files(partial)))
                with whole_file(partial / _COMPLETE) as file:
                    file.write_bytes(b"\0".join(map(os.fsencode, sorted(gone))))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            if not was_there:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()
            raise
        _move(folder, last)


def finish_moving(folder: Path, last: str) -> None:
    """Move what a process that was killed had written completely and not moved; a reader calls it first."""
    if (_partial(folder, last) / _COMPLETE).is_file():
        with alone_in(folder):
            _move(folder, last)


def holds_nothing(folder: Path, last: str, unfinished: str | None = None) -> bool:
    """Whether a folder is empty, but for what a process that was killed left there of its work.

    unfinished: the name of what the process keeps there until it is done.
    """
    return all(path == _partial(folder, last) or path.name == unfinished for path in folder.iterdir())


def _partial(folder: Path, last: str) -> Path:
    return folder / f".{last}.partial"


def _files(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]


def _move(folder: Path, last: str) -> None:
    """Put complete files in their place, those of an earlier result away; it can be cut short anywhere and repeated."""
    partial = _partial(folder, last)
    try:
        obsolete = (partial / _COMPLETE).read_bytes().split(b"\0")
    except FileNotFoundError:
        return
    files = [file for file in _files(partial) if file != Path(_COMPLETE) and _is_inside(folder, file)]
    if Path(last) in files:
        (folder / last).unlink(missing_ok=True)
        for path in (folder / name for name in map(os.fsdecode, obsolete) if _is_inside(folder, name)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for file in sorted(files, key=lambda file: file == Path(last)):
        (folder / file).parent.mkdir(exist_ok=True)
        (partial / file).replace(folder / file)
    shutil.rmtree(partial)


def _is_inside(folder: Path, name: str | Path) -> bool:
    """Whether a name is of something in a folder: whoever made it, and links in it, shall not decide on another."""
    path = Path(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        return False
    return (folder / path).parent.resolve().is_relative_to(folder.resolve())


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process writes there; the system forgets the lock of a process that dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say of which file an OSError is that does not say it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, " ".join(str(error.strerror).split()), str(path)) from error
