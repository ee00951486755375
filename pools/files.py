"""A file that is written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what shall become `path`: it takes that name at the end, and is removed where that is not reached.

    An OSError that does not say of which file it is, as that of a full disk, says it then.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, " ".join(str(error.strerror).split()), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
