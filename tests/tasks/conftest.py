"""The isolations that this machine allows, one after the other, and what a sandbox may not leave behind."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from tasks.code.sandbox.session import Isolation, SandboxUnavailable, Session

REQUIRED = os.environ.get("HARNESS_TEST_ISOLATIONS", "").split()
"""The isolations that have to work here: where one does not, its tests fail, rather than to be skipped."""


@functools.cache
def _works(isolation: Isolation) -> bool:
    with contextlib.suppress(SandboxUnavailable), Session(isolation=isolation):
        return True
    return False


def _where_it_works(isolation: Isolation) -> Isolation:
    if not _works(isolation):
        end = pytest.fail if isolation in REQUIRED else pytest.skip
        end(f"isolation {isolation} does not work on this machine")
    return isolation


@pytest.fixture(params=["bwrap", "namespaces", "rlimits"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    """Each isolation."""
    return _where_it_works(request.param)


@pytest.fixture(params=["bwrap", "namespaces"])
def shut_off(request: pytest.FixtureRequest) -> Isolation:
    """Each isolation that shuts a program off from the file system."""
    return _where_it_works(request.param)


def _processes(caller: int) -> dict[int, str]:
    """Processes that belong to the sandboxes of a caller, each with its name: `sandboxed`, or that of the fork server."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if f"--fork-server-of={caller}".encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
    return found


@pytest.fixture
def processes() -> Callable[[int], dict[int, str]]:
    """Processes that belong to the sandboxes of a caller, each with its name."""
    return _processes


@pytest.fixture
def children() -> Callable[[], set[int]]:
    """The sandboxed processes of this one; the fork servers that they are forked from do not count."""
    return lambda: {pid for pid, name in _processes(os.getpid()).items() if name == "sandboxed"}


@pytest.fixture
def nothing_stays_behind(children: Callable[[], set[int]]) -> Iterator[None]:
    """No process, no folder and no open descriptor is left by a test."""
    for isolation in get_args(Isolation):
        _works(isolation)  # its fork server stays
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    assert children() == set()
    assert list(Path(tempfile.gettempdir()).glob(f"sandbox-{os.getpid()}-*")) == []
    # Fewer, where threads of a Ray that an earlier test has ended close what they had open only now.
    assert len(os.listdir("/proc/self/fd")) <= descriptors
