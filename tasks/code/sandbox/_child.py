"""The fork server: a script, started behind the walls, that forks a process for each program.

The program gives up all privileges, limits itself and has its system calls filtered before it reads a request. It can
start no other process, so that killing it leaves nothing. When the server ends, so do all its programs: with it ends
its process namespace, and with rlimits the kernel kills the children of a parent that died. Nobody but the program
reads the channel, so untrusted text is only ever seen by the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
from typing import Any, NoReturn

NEWNS, NEWUTS = 0x00020000, 0x04000000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME = 1, 4, 8, 15
PR_SET_NO_NEW_PRIVS, PR_SET_THP_DISABLE = 38, 41
CAP_DAC_READ_SEARCH = 2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4

CHANNEL = 3
"""Descriptor of a program's requests and replies, the only one that is no /dev/null."""
FIRST_UID = 0x60000000
"""Where the server runs as root, the program gets a user id that nobody has: this plus its process id."""
FEWER_UIDS = range(32768, 60001)
"""Where a user namespace has not so many ids: one of these, which a rootless container usually has."""

libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: Any) -> None:
    plain = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in args]
    if getattr(libc, name)(*plain) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _prctl(option: int, value: int | bytes) -> None:
    _call("prctl", option, value, 0, 0, 0)


def _seal() -> None:
    """Make every mount read-only, also those below a shown folder; only what is in /dev is a device."""

    def change(path: str, flags: int, add: int, remove: int) -> None:
        attributes = (ctypes.c_uint64 * 4)(add, remove, 0, 0)
        _call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, attributes, ctypes.sizeof(attributes))

    change("/", AT_RECURSIVE, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, 0)
    for name in os.listdir("/dev"):
        change(f"/dev/{name}", 0, 0, ATTR_NODEV)


def _own_tmp(disk_bytes: int) -> None:
    """Work in an empty /tmp of limited size, which goes with the program."""
    limits = f"mode=1777,size={disk_bytes},nr_inodes=1024".encode()
    _call("unshare", NEWNS)
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    _call("mount", b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV, limits)
    os.chdir("/tmp")


def _become_another() -> None:
    """As root, take a user id that nobody has, if there is one; the working folder goes along."""
    _prctl(PR_SET_KEEPCAPS, 1)
    for uid in (FIRST_UID + os.getpid(), FEWER_UIDS[os.getpid() % len(FEWER_UIDS)]):
        with contextlib.suppress(OSError):  # not an id of this user namespace
            os.chown(".", uid, uid)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            return


def _drop_capabilities() -> None:
    """Drop all but the right to read, where only root may read the interpreter's own library (below /root)."""
    keep = 0 if os.getuid() == 0 or os.access(os.__file__, os.R_OK) else 1 << CAP_DAC_READ_SEARCH
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    data = (ctypes.c_uint32 * 6)(keep, keep, 0, 0, 0, 0)  # effective, permitted, inheritable; then the upper halves
    _call("capset", header, data)


def _set_limits(limits: dict[str, int]) -> None:
    cpu = limits["cpu_seconds"]
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
        (resource.RLIMIT_NPROC, 0, 0),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_SIGPENDING, 64, 64),
    ):
        ceiling = resource.getrlimit(kind)[1]  # the caller's, which may be lower
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))


def _shut_in(order: dict[str, Any], server: int) -> None:
    import _syscalls as syscalls  # loaded by `main`

    _prctl(PR_SET_NAME, b"sandboxed")
    os.setsid()
    if order["scratch"] is None:
        _own_tmp(order["limits"]["disk_bytes"])
    else:
        os.chdir(order["scratch"])
    if os.geteuid() == 0:
        _become_another()
    _drop_capabilities()
    # Without it, programs of one user id could trace each other: the program its own tests.
    _prctl(PR_SET_DUMPABLE, 0)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of the user id unsets it
    if os.getppid() != server:
        raise ProcessLookupError("the fork server has ended")
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        _prctl(PR_SET_THP_DISABLE, 1)  # a huge page stays whole while a part is mapped, and the limit counts that part
    _set_limits(order["limits"])
    syscalls.restrict()


def _program(order: dict[str, Any], channel: int, server: int) -> NoReturn:
    """Give everything up, say so, serve the channel. server: process id of the parent."""
    import _wire as wire  # loaded by `main`

    os.dup2(channel, CHANNEL)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
    with open(CHANNEL, "rb", closefd=False) as requests, open(CHANNEL, "wb", closefd=False) as replies:
        try:
            _shut_in(order, server)
        except Exception as error:
            replies.write(wire.dump({"failed": f"{type(error).__name__}: {error}"}))
            replies.flush()
            os._exit(1)
        replies.write(wire.dump({"ready": True}))
        replies.flush()
        {"answer": wire.answer, "examine": wire.examine}[order["role"]](requests, replies)
    os._exit(0)


def serve(orders: socket.socket) -> None:
    """Start and end programs until the caller closes its end.

    An order is one JSON object. `{"role", "limits", "scratch"}` comes with the program's end of the channel, and is
    answered by the process id; `{"end": pid}` by what the program exited with, or minus the signal.
    """
    orders.send(b"0")
    while True:
        message, given, _, _ = socket.recv_fds(orders, 1 << 12, 1)
        if not message:
            return
        order = json.loads(message)
        if "end" in order:
            os.kill(order["end"], signal.SIGKILL)
            answer = os.waitstatus_to_exitcode(os.waitpid(order["end"], 0)[1])
        else:
            server = os.getpid()
            answer = os.fork()
            if answer == 0:
                _program(order, given[0], server)
            os.close(given[0])
        orders.send(b"%d" % answer)


def main() -> None:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # for these two, and nothing else
    import _syscalls  # noqa: F401
    import _wire  # noqa: F401

    del sys.path[0]
    _prctl(PR_SET_DUMPABLE, 0)
    if "--seal" in sys.argv:
        _seal()
    with contextlib.suppress(OSError):  # with rlimits: not allowed to an ordinary user, nor in most containers
        _call("unshare", NEWUTS)
        _call("sethostname", b"sandbox", len(b"sandbox"))
    serve(socket.socket(fileno=0))


if __name__ == "__main__":
    main()
