"""The process that programs are forked from, as its caller holds it: one for each isolation.

To start Python takes longer than most programs run, so it is started once and forked for each program.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.code.sandbox import walls

START_SECONDS = 60
"""How long a sandbox may take to start, which on a machine that is busy with other work is not a moment."""


class ForkServer:
    """Starts programs and ends them. Raises OSError if it cannot be started, or has ended."""

    def __init__(self, isolation: str) -> None:
        command = [*walls.command(isolation), f"--fork-server-of={os.getpid()}"]
        self._lock = threading.Lock()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as complaints:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env={"PYTHONHASHSEED": "0"},
                cwd="/",
                start_new_session=True,
            )
            theirs.close()
            self._orders.settimeout(START_SECONDS)
            try:
                self._answer()
            except BaseException as error:
                self.close()
                if not isinstance(error, ConnectionError):
                    raise
                complaints.seek(0)
                said = complaints.read(1000).decode(errors="replace").split()
                raise OSError(" ".join(said) or "it ended at once") from None

    def start(self, order: Mapping[str, Any], channel: socket.socket) -> int:
        """Fork a program that answers on `channel`; its process id, as the server sees it."""
        return self._order(order, [channel.fileno()])

    def end(self, pid: int) -> int:
        """Kill a program and wait until it is gone; what it exited with, or minus the signal that had ended it."""
        with contextlib.suppress(OSError):
            return self._order({"end": pid}, [])
        return -signal.SIGKILL  # every program ends with the server

    def close(self) -> None:
        """End it, and with it every program that still runs. Safe to call twice."""
        self._orders.close()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(START_SECONDS)

    def _order(self, order: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        with self._lock:
            if self._orders.fileno() < 0:
                raise ConnectionError("the fork server has ended")
            try:
                socket.send_fds(self._orders, [json.dumps(order).encode()], descriptors)
                return self._answer()
            except BaseException:  # out of time or interrupted: a late answer would be taken for that to the next order
                self.close()
                raise

    def _answer(self) -> int:
        answer = self._orders.recv(16)
        if not answer:
            raise ConnectionError("the fork server has ended")
        return int(answer)


_lock = threading.Lock()
_servers: dict[tuple[int, str], ForkServer] = {}


def start(isolation: str, order: Mapping[str, Any], channel: socket.socket) -> tuple[ForkServer, int]:
    """Have a program forked, by the server of this process and isolation, which is started if there is none."""
    key = (os.getpid(), isolation)  # a forked caller has servers of its own
    with _lock:
        if key in _servers:
            with contextlib.suppress(ConnectionError):  # it was killed: start another
                return _servers[key], _servers[key].start(order, channel)
            _servers.pop(key).close()
        _servers[key] = ForkServer(isolation)
        return _servers[key], _servers[key].start(order, channel)
