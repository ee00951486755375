"""Runs Python text that nobody has read: a separate process that can compute, and answer calls, and nothing else.

Three isolations, the strongest first; `default_isolation()` says which one is in force:

`bwrap`       New mount, network, process, IPC and host-name namespaces, made by bubblewrap where it is installed. The
              program sees a read-only file system with the standard library, the shared libraries below /lib and
              /usr/lib and three devices, plus an empty, size-limited /tmp; no /proc, no installed packages, no network
              device that is up, no process of the host. Works as root and, where unprivileged user namespaces are on,
              as an ordinary user.
`namespaces`  The same, made by `unshare` of util-linux and a script of mounts.
`rlimits`     Resource limits, a clean environment, an empty folder, no inherited descriptors, and as root a user id
              that nobody has. For containers and kernels that refuse the above.

All limit CPU time, address space, file size and wall-clock time, let a program start neither process nor thread, read a
bounded amount of output, start with an empty environment, and leave no process and no folder behind. On x86-64 and
ARM64 a seccomp filter refuses the network, signals to other processes, memory that no limit counts (shared mappings and
files without a name among it) and some eighty system calls that computing does not need (`_syscalls.py`). Only the
standard library can be imported. The hash seed is fixed, so that an answer does not change with the order of a set.

What is not protected is listed in docs/reference/sandbox.md. Use `rlimits` for models you trust not to attack.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Literal, cast, get_args

from pools.errors import UserError
from tasks.code.sandbox import _wire as wire
from tasks.code.sandbox.fork_server import START_SECONDS, start

Isolation = Literal["bwrap", "namespaces", "rlimits"]
Role = Literal["answer", "examine"]

ISOLATION_VARIABLE = "HARNESS_SANDBOX"
"""Environment variable that forces an isolation; unset or `auto`: the strongest one that works here."""

REMOVE_SECONDS = 10
"""How long grading waits until what a program left is removed, which on a slow disk may be minutes."""

MAX_DEFINED = 10_000
"""Bytes of the reply to a definition; it says no more than that it worked, or why not."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one program may use; seconds and bytes."""

    cpu_seconds: int = 5
    """CPU time."""
    wall_seconds: int = 20
    """Time from start to end; generous, because it also runs while the machine is busy with other work."""
    memory_bytes: int = 512 << 20
    """Address space, the interpreter included (about 30 MiB)."""
    file_bytes: int = 16 << 20
    """Size of any one file."""
    disk_bytes: int = 32 << 20
    """Size of all files together (not with rlimits)."""
    output_bytes: int = 4 << 20
    """Length of one message from the program."""


class SandboxUnavailable(UserError):
    """This machine does not allow the isolation that was asked for."""


class Session:
    """One sandboxed process and the channel to it. A context manager; leaving it kills what still runs.

    Raises SandboxUnavailable.
    """

    def __init__(self, role: Role = "answer", limits: Limits | None = None, isolation: Isolation | None = None) -> None:
        self.isolation: Isolation = isolation or default_isolation()
        self.ended: str | None = None
        """Why the channel closed; None while it is open."""
        self._limits = limits or Limits()
        self._rest = b""
        """What has been read behind the last line."""
        self._deadline = time.monotonic() + START_SECONDS
        self._scratch = _make_scratch() if self.isolation == "rlimits" else None
        order = {"role": role, "limits": asdict(self._limits), "scratch": self._scratch and f"{self._scratch}/own"}
        self._channel, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo:  # of an interrupt, too
            undo.callback(self._clean)
            try:
                with theirs:
                    self._server, self._pid = start(self.isolation, order, theirs)
            except OSError as error:
                raise SandboxUnavailable(f"no sandbox by {self.isolation}: {error}") from error
            undo.pop_all()
            undo.callback(self.close)
            hello = json.loads(self.receive() or wire.dump({"failed": self.ended}))
            if "failed" in hello:
                raise SandboxUnavailable(f"no sandbox by {self.isolation}: {hello['failed']}")
            undo.pop_all()
        self._deadline = time.monotonic() + self._limits.wall_seconds

    def send(self, line: bytes) -> None:
        """Send one line (with its line end). Does nothing once the channel is closed."""
        if self.ended is None:
            self._try(lambda: self._channel.sendall(line))

    def receive(self) -> bytes | None:
        """The next line, or None when the program ended, ran out of time or said too much: then `ended` says which."""
        line, chunk = bytearray(), self._rest
        while self.ended is None:
            head, end, self._rest = chunk.partition(b"\n")
            line += head
            if end:
                return bytes(line)
            if len(line) > self._limits.output_bytes:
                self._end("the answer is too long")
            else:
                if 0 < len(head) < select.PIPE_BUF:
                    time.sleep(0.001)  # a program that writes byte by byte would keep this process busy
                chunk = self._try(lambda: self._channel.recv(1 << 16)) or b""
                if not chunk:
                    self._end("the program ended")
        return None

    def define(self, source: str) -> str | None:
        """Have a session of role `answer` define a program; why that failed, or None. No value is decoded."""
        self.send(wire.dump({"source": source}))
        line = self.receive()
        if line is None:
            return self.ended
        if len(line) > MAX_DEFINED:
            return "the reply is too large"
        try:
            reply = json.loads(line)
            return str(reply["error"]) if "error" in reply else None
        except (ValueError, TypeError, RecursionError):
            return "the reply is malformed"

    def close(self) -> None:
        """Kill what still runs and wait until it is gone. Safe to call twice."""
        self._end("closed")

    def _try(self, operation: Callable[[], bytes | None]) -> bytes | None:
        """Send or receive; end the session if that fails or takes too long."""
        try:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._channel.settimeout(left)
            return operation()
        except TimeoutError:
            self._end("out of time")
        except OSError:
            self._end("the program ended")
        return None

    def _end(self, reason: str) -> None:
        if self.ended is not None:
            return
        self.ended = reason
        try:
            code = self._server.end(self._pid)
        finally:
            self._clean()
        if reason == "the program ended" and code < 0:
            self.ended += f" ({signal.strsignal(-code)})"

    def _clean(self) -> None:
        self._channel.close()
        if self._scratch is not None:
            _remove(self._scratch)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make_scratch() -> str:
    """An empty folder `own`, in one that the program cannot rename."""
    folder = tempfile.mkdtemp(prefix=f"sandbox-{os.getpid()}-")
    os.chmod(folder, 0o711)
    os.mkdir(f"{folder}/own")
    return folder


def _remove(folder: str) -> None:
    """Remove a folder whatever is in it. Waits a while; `rm` then goes on by itself. What stays is logged."""
    with contextlib.suppress(OSError):  # most programs leave nothing
        os.rmdir(f"{folder}/own")
        return os.rmdir(folder)
    script = 'chmod -R u+rwX "$1"; exec rm -rf "$1"'
    command = ["sh", "-c", script, "sh", folder]
    removal = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        if removal.wait(REMOVE_SECONDS) != 0:
            _LOG.warning("What a program left in %s stays", folder)


def choose_isolation(wanted: str) -> Isolation:
    """Set the isolation that is in force from now on, `auto` or one by name; that which was chosen.

    Raises SandboxUnavailable if this machine does not allow it, rather than to use a weaker one.
    """
    os.environ[ISOLATION_VARIABLE] = wanted
    chosen = default_isolation()
    if wanted != "auto":
        Session(isolation=chosen).close()
    return chosen


def default_isolation() -> Isolation:
    """The isolation in force: the one named by HARNESS_SANDBOX, else the strongest one that works here.

    Raises UserError if the variable holds anything else.
    """
    wanted = os.environ.get(ISOLATION_VARIABLE, "auto")
    if wanted == "auto":
        return _strongest()
    if wanted not in get_args(Isolation):
        raise UserError(
            f"{ISOLATION_VARIABLE}={wanted!r}: expected auto, {', '.join(get_args(Isolation))}; unset it for auto"
        )
    return cast(Isolation, wanted)


@functools.cache
def _strongest() -> Isolation:
    reasons = []
    for isolation in get_args(Isolation)[:-1]:
        try:
            Session(isolation=isolation).close()
            return cast(Isolation, isolation)
        except SandboxUnavailable as reason:
            reasons.append(str(reason))
    _LOG.warning("Code runs with resource limits only (%s); see docs/reference/sandbox.md", "; ".join(reasons))
    return "rlimits"
