"""The isolations that this machine allows, one after the other, and what a sandbox may not leave behind."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.sandbox import Isolation, SandboxUnavailable, Session


@functools.cache
def _works(isolation: Isolation) -> bool:
    with contextlib.suppress(SandboxUnavailable), Session(isolation=isolation) as session:
        session.start()
        return True
    return False


def _where_it_works(isolation: Isolation) -> Isolation:
    if not _works(isolation):
        pytest.skip(f"isolation {isolation} does not work on this machine")
    return isolation


@pytest.fixture(params=["bwrap", "namespaces", "rlimits"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    """Each isolation."""
    return _where_it_works(request.param)


@pytest.fixture(params=["bwrap", "namespaces"])
def shut_off(request: pytest.FixtureRequest) -> Isolation:
    """Each isolation that shuts a program off from the file system."""
    return _where_it_works(request.param)


@pytest.fixture
def children() -> Callable[[], set[int]]:
    """Finds every process that carries the sandbox's script, started by this process, in its command line."""

    def found() -> set[int]:
        pids = set()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (folder / "cmdline").read_bytes()
                    if b"_sandbox_child.py" in command and f'"parent": {os.getpid()}'.encode() in command:
                        pids.add(int(folder.name))
        return pids

    return found


@pytest.fixture
def nothing_stays_behind(children: Callable[[], set[int]]) -> Iterator[None]:
    """No process, no folder and no open descriptor is left by a test."""
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    assert children() == set()
    assert list(Path(tempfile.gettempdir()).glob(f"sandbox-{os.getpid()}-*")) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
