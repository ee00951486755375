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
    with contextlib.suppress(SandboxUnavailable):
        Session(isolation=isolation).close()
        return True
    return False


@pytest.fixture(params=get_args(Isolation))
def isolation(request: pytest.FixtureRequest) -> Isolation:
    """Each isolation."""
    if not _works(request.param):
        end = pytest.fail if request.param in REQUIRED else pytest.skip
        end(f"isolation {request.param} does not work on this machine")
    return request.param


def _processes(caller: int) -> dict[int, str]:
    """Processes of the sandboxes of a caller, each with its name: `sandboxed`, or that of the fork server."""
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
def nothing_stays_behind() -> Iterator[None]:
    """No process, no folder and no open descriptor is left by a test."""
    for isolation in get_args(Isolation):
        _works(isolation)  # its fork server stays
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    assert "sandboxed" not in _processes(os.getpid()).values()
    assert list(Path(tempfile.gettempdir()).glob(f"sandbox-{os.getpid()}-*")) == []
    # Fewer, where threads of a Ray that an earlier test has ended close what they had open only now.
    assert len(os.listdir("/proc/self/fd")) <= descriptors
