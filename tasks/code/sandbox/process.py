"""The processes of sandboxes, as their caller holds them: a nursery for each isolation, a handle for each program."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.code.sandbox import bubblewrap

_CHILD = Path(__file__).with_name("_child.py")
_START_SECONDS = 60
_REMOVE_SECONDS, _REMOVE_LATER_SECONDS = 10, 600
"""How long grading waits until what a program left is removed, and how long a thread then goes on with it."""

_LOG = logging.getLogger(__name__)


class Program:
    """One program in its sandbox. requests, replies: descriptors of the channel, which `clean` closes."""

    def __init__(self, requests: int, replies: int, status: socket.socket, scratch: str | None) -> None:
        self.requests, self.replies = requests, replies
        self._status = status
        # Held open: with rlimits the program may rename the folder.
        self._scratch = None if scratch is None else os.open(scratch, os.O_PATH | os.O_DIRECTORY)
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

        if self._scratch is not None:
            _remove(self._scratch, _REMOVE_SECONDS, _REMOVE_LATER_SECONDS)


def _remove(folder: int, seconds: float, later: float = 0) -> None:
    """Remove a folder with all in it, and close its descriptor; what took too long, in a thread. Never raises.

    A program can leave so many files that a slow disk needs minutes. What cannot be removed is logged.
    """
    until = time.monotonic() + seconds
    path = os.readlink(f"/proc/self/fd/{folder}")
    try:
        os.chmod(f"/proc/self/fd/{folder}", 0o700)
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        try:
            _empty(top, until)
        finally:
            os.close(top)
        os.rmdir(path)
    except FileNotFoundError:
        pass  # the program removed it
    except OSError as error:
        if later and time.monotonic() > until:
            return threading.Thread(target=_remove, args=(folder, later)).start()
        _LOG.warning("What a program left in %s stays: %s", path, error)
    os.close(folder)


def _empty(top: int, until: float) -> None:
    """Remove what a folder holds. Folders are moved to the top before they are emptied: none is too deep."""

    def remove(name: str, inside: int) -> int:
        """How many files were removed and folders moved or removed."""
        if time.monotonic() > until:
            return 0
        done = 0
        with contextlib.suppress(OSError):
            try:
                os.unlink(name, dir_fd=inside)
                return 1
            except IsADirectoryError:
                folder = _open_folder(name, inside)
            try:
                if inside != top:
                    os.rename(name, uuid.uuid4().hex, src_dir_fd=inside, dst_dir_fd=top)
                    return 1
                done = sum(remove(each, folder) for each in os.listdir(folder))
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)
            done += 1
        return done

    while sum(remove(name, top) for name in os.listdir(top)):
        pass


def _open_folder(name: str, inside: int) -> int:
    """Open a folder, no link to one, whatever its mode forbids."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=inside)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
    finally:
        os.close(handle)


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
