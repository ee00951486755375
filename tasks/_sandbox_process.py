"""The process of one sandbox, as its caller holds it: started, killed with all that is inside, cleaned up behind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tasks import _bubblewrap as bubblewrap

_CHILD = Path(__file__).with_name("_sandbox_child.py")


class Shell(Protocol):
    """popen: the process that ends when the program does, with standard input and output as the channel."""

    popen: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill everything inside, and wait for `popen` to end."""

    def clean(self) -> str:
        """After `popen` has ended: wait until nothing is left inside, remove what was made; what it complained of."""


class Launched:
    """By `_sandbox_child.py` alone, which makes the namespaces, or none, and ends when all inside is gone."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._scratch = tempfile.mkdtemp(prefix=f"sandbox-{os.getpid()}-")
        try:
            self.popen = _spawn([*_interpreter(), str(_CHILD), json.dumps({**config, "scratch": self._scratch})])
        except BaseException:
            os.rmdir(self._scratch)
            raise

    def kill(self) -> None:
        self.popen.terminate()  # it then kills the namespace, waits until it is empty, and exits
        if not exits_within(self.popen.pid, 10):
            self.popen.kill()

    def clean(self) -> str:
        # With rlimits the program may have filled the folder, and made folders that cannot be entered.
        def unlock(function: Any, path: str, error: Any) -> None:
            with contextlib.suppress(OSError):
                os.chmod(os.path.dirname(path), 0o700)
                os.chmod(path, 0o700)
                function(path)

        shutil.rmtree(self._scratch, onerror=unlock)
        return ""


class Bubblewrapped:
    """By bubblewrap, inside which `_sandbox_child.py` is the program at once. Raises FileNotFoundError without it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._status, passed = os.pipe()
        try:
            command = bubblewrap.command(_interpreter(), config["limits"]["disk_bytes"], passed)
            self.popen = _spawn([*command, json.dumps(config)], passed, stderr=subprocess.PIPE)
        except BaseException:
            os.close(self._status)
            raise
        finally:
            os.close(passed)

    def kill(self) -> None:
        self.popen.kill()  # the first process inside dies with it, and with that one all others

    def clean(self) -> str:
        with os.fdopen(self._status, "rb") as status:
            first = json.loads(status.readline() or "{}").get("child-pid")
        if first is not None:
            exits_within(first, 10)
        assert self.popen.stderr is not None
        with self.popen.stderr as complaints:
            return complaints.read(1000).decode(errors="replace").strip()


def exits_within(pid: int, seconds: float) -> bool:
    """Whether a process ends in that time, or has ended already."""
    try:
        descriptor = os.pidfd_open(pid)  # Popen.wait with a time-out would sleep between its looks
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _interpreter() -> list[str]:
    # -S: no site-packages. -P and -B: neither reads nor writes beside the script. Not -I: it ignores the seed.
    return [getattr(sys, "_base_executable", None) or sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8"]


def _spawn(command: Sequence[str], *passed: int, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        env={"PYTHONHASHSEED": "0"},
        cwd="/",
        start_new_session=True,
        pass_fds=passed,
    )
