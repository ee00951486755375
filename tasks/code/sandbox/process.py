"""The processes of sandboxes, as their caller holds them: a nursery for each isolation, a handle for each program."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.code.sandbox import bubblewrap

_CHILD = Path(__file__).with_name("_child.py")
_START_SECONDS = 60


class Program:
    """One program in its sandbox. requests, replies: descriptors of the channel, which `clean` closes."""

    def __init__(self, requests: int, replies: int, status: socket.socket, scratch: str | None) -> None:
        self.requests, self.replies = requests, replies
        self._status, self._scratch = status, scratch
        self._code: int | None = None
        self.orphaned = False
        """Whether the nursery has ended, and has taken the program along."""

    def exit_code(self, seconds: float | None = None) -> int | None:
        """128 and the signal, or what it exited with, once nothing of it is left; None if that takes longer."""
        if self._code is None:
            poll = select.poll()
            poll.register(self._status, select.POLLIN)
            if not poll.poll(None if seconds is None else seconds * 1000):
                return None
            line = self._status.recv(16)
            self.orphaned = not line
            self._code = int(line or 128 + 9)
        return self._code

    def kill(self) -> None:
        """Kill everything inside."""
        with contextlib.suppress(OSError):
            self._status.shutdown(socket.SHUT_WR)

    def clean(self) -> None:
        """Close the channel, and remove what the program left; after it has ended."""
        os.close(self.requests)
        os.close(self.replies)
        self._status.close()

        # With rlimits the program may have filled the folder, and made folders that cannot be entered.
        def unlock(function: Any, path: str, error: Any) -> None:
            with contextlib.suppress(OSError):
                os.chmod(os.path.dirname(path), 0o700)
                os.chmod(path, 0o700)
                function(path)

        if self._scratch is not None:
            shutil.rmtree(self._scratch, onerror=unlock)


class Nursery:
    """The process that programs are forked from. Raises OSError where it cannot be started."""

    def __init__(self, isolation: str) -> None:
        self._isolation = isolation
        # -S: no site-packages. -P and -B: neither reads nor writes beside the script. Not -I: it ignores the seed.
        python = [getattr(sys, "_base_executable", None) or sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8"]
        command = bubblewrap.command(python) if isolation == "bwrap" else [*python, str(_CHILD)]
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as complaints:
            self._process = subprocess.Popen(
                [*command, f"--nursery-of={os.getpid()}"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env={"PYTHONHASHSEED": "0"},
                cwd="/",
                start_new_session=True,
            )
            theirs.close()
            self._orders.settimeout(_START_SECONDS)
            if self._orders.recv(16) != b"ready":
                self.close()
                complaints.seek(0)
                raise OSError(complaints.read(1000).decode(errors="replace").strip() or "it ended at once")
        self._orders.settimeout(None)
        atexit.register(self.close)

    def start(self, config: Mapping[str, Any]) -> Program:
        """Have a program shut in. Raises OSError where the nursery has ended."""
        scratch = None if self._isolation == "bwrap" else tempfile.mkdtemp(prefix=f"sandbox-{os.getpid()}-")
        status, theirs = socket.socketpair()
        inside, requests = os.pipe()
        replies, outside = os.pipe()
        program = Program(requests, replies, status, scratch)
        try:
            order = json.dumps({**config, "scratch": scratch}).encode()
            socket.send_fds(self._orders, [order], [inside, outside, theirs.fileno()])
        except BaseException:
            program.clean()
            raise
        finally:
            os.close(inside)
            os.close(outside)
            theirs.close()
        os.set_blocking(requests, False)
        os.set_blocking(replies, False)
        return program

    def close(self) -> None:
        """End it, and with it every program that still runs."""
        atexit.unregister(self.close)
        self._orders.close()
        self._process.wait(10)


_lock = threading.Lock()
_nurseries: dict[tuple[int, str], Nursery] = {}


def start(isolation: str, config: Mapping[str, Any]) -> Program:
    """Have a program shut in, by the nursery of this process and isolation, which is started where there is none."""
    key = (os.getpid(), isolation)  # a forked caller has a nursery of its own
    with _lock:
        if key in _nurseries:
            try:
                return _nurseries[key].start(config)
            except ConnectionError:  # it was killed: make another
                _nurseries.pop(key).close()
        _nurseries[key] = Nursery(isolation)
        return _nurseries[key].start(config)
