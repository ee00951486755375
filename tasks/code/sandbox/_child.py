"""The inner half of the sandbox: started as a script, it forks sandboxed processes for as long as its caller lives.

To start Python takes longer than most programs run, so it is started once, as the nursery, and forked for each program.
Four processes, so that nothing the program does can outlive it or reach the one that cleans up:

    nursery   waits for orders, forks launchers, reports how they ended; ends when its caller does
    launcher  leads the session; makes the namespaces and the new root; waits, and on time-out kills the keeper
    keeper    process 1 of the new process namespace: when it dies, the kernel kills everything inside
    program   no privileges, limits set; reads requests from the channel and answers them

Without namespaces there is no keeper: the launcher is the subreaper of whatever the program starts, and kills it all.
With bubblewrap the nursery runs inside it, so that a program has two walls around it. Nobody but the program reads the
channel, so untrusted text is only ever seen by the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
SPACES = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWPID | NEWNET

MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
ATTR_RDONLY, ATTR_NOSUID = 1, 2
AT_RECURSIVE = 0x8000
AT_FDCWD = -100
SYS_MOUNT_SETATTR = 442  # the same number on every architecture

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME = 1, 4, 8, 15
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_THP_DISABLE = 36, 38, 41
CAP_DAC_READ_SEARCH = 2

HOST_NAME = b"sandbox"
FIRST_UID = 0x60000000
"""Where this script runs as root, the program gets a user id that nobody has: this plus the launcher's process id."""
FEWER_UIDS = range(32768, 60001)
"""With rlimits, where a user namespace has not so many ids: one of these, which a rootless container usually has."""

libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: Any) -> None:
    plain = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in args]
    if getattr(libc, name)(*plain) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, value, 0, 0, 0)


def _drop_capabilities(keep: int = 0) -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    data = (ctypes.c_uint32 * 6)(keep, keep, 0, 0, 0, 0)  # effective, permitted, inheritable; then the upper halves
    _call("capset", header, data)


def _can_become(*ids: int) -> bool:
    """Whether this process is root and these user and group ids exist in its namespace (a container may have few)."""
    if os.geteuid() != 0:
        return False
    if not os.path.exists("/proc"):  # inside bubblewrap, which is told to change the user id where root cannot
        return True
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}") as lines:
            ranges = [[int(field) for field in line.split()] for line in lines]
        if not all(any(start <= id_ < start + count for start, _, count in ranges) for id_ in ids):
            return False
    return True


def _own_ids(isolation: str) -> range | None:
    """The ids of which each program gets one of its own; None where it keeps the caller's."""
    if _can_become(FIRST_UID + os.getpid()):
        return range(FIRST_UID, FIRST_UID + (1 << 22))  # no process id is larger
    # With namespaces it gets a user namespace of its own instead.
    if isolation == "rlimits" and _can_become(FEWER_UIDS[0], FEWER_UIDS[-1]):
        return FEWER_UIDS
    return None


def _hide_host_name() -> None:
    """In a namespace of host names."""
    for name in ("sethostname", "setdomainname"):
        _call(name, HOST_NAME, len(HOST_NAME))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _visible() -> list[str]:
    """The paths that the program may read: the standard library, the shared libraries, three devices."""
    found = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"}
    found |= {"/dev/null", "/dev/zero", "/dev/urandom"}
    found.update(path for path in sys.path if path.startswith("/"))  # started with -S: the standard library alone
    with open("/proc/self/maps") as lines:
        for line in lines:
            name = line.split(maxsplit=5)[-1].strip()
            if name.startswith("/") and ".so" in os.path.basename(name):
                found.add(os.path.dirname(name))
    chosen: list[str] = []
    for path in sorted(path for path in found if os.path.exists(path)):
        if not any(path.startswith(other + "/") for other in chosen):
            chosen.append(path)
    return chosen


def _masked() -> list[str]:
    """Folders below the visible ones that are emptied: installed packages, among them the data sets with the tests."""
    names = ("site-packages", "dist-packages")
    folders = [*sys.path, "/usr/lib/python3"]
    return [path for folder in folders for name in names if os.path.isdir(path := os.path.join(folder, name))]


def _new_root(scratch: str) -> None:
    """Replace the file system by a read-only one of `_visible()` paths and an empty folder /tmp."""
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    _call("mount", b"tmpfs", scratch.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0755,size=1m")
    for path in _visible():
        target = scratch + path
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        _call("mount", path.encode(), target.encode(), None, MS_BIND | MS_REC, None)
    for path in _masked():
        _call("mount", b"tmpfs", (scratch + path).encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0755,size=4k")
    os.makedirs(scratch + "/tmp", exist_ok=True)
    attributes = (ctypes.c_uint64 * 4)(ATTR_RDONLY | ATTR_NOSUID, 0, 0, 0)
    _call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, scratch.encode(), AT_RECURSIVE, attributes, 32)
    os.chdir(scratch)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", MNT_DETACH)


def _own_tmp(disk_bytes: int) -> None:
    """Work in an empty /tmp of limited size."""
    limits = f"mode=1777,size={disk_bytes},nr_inodes=1024".encode()
    _call("mount", b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV, limits)
    os.chdir("/tmp")


def _become(uid: int) -> None:
    """Give up root for `uid`; keep the right to read where the interpreter's own library needs it (below /root)."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    _prctl(PR_SET_KEEPCAPS, 1)
    os.setresuid(uid, uid, uid)
    keep = 1 << CAP_DAC_READ_SEARCH
    if os.access(os.__file__, os.R_OK):
        keep = 0
    _drop_capabilities(keep)


def _set_limits(limits: dict[str, int], processes: int) -> None:
    cpu = limits["cpu_seconds"]
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
        (resource.RLIMIT_NPROC, processes, processes),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_SIGPENDING, 64, 64),
    ):
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))


def _program(config: dict[str, Any], own_uid: int | None) -> NoReturn:
    """The innermost process: give everything up, say how it is shut in, serve the channel."""
    spaces = config["isolation"] != "rlimits"
    limits = config["limits"]
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.setsid()
    import _syscalls as syscalls  # both loaded by `main`, before the limits
    import _wire as wire

    if own_uid is not None:
        _become(own_uid)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user id, which clears it
    if spaces:
        if not os.access(os.__file__, os.R_OK):
            raise PermissionError(f"only its owner may read {os.__file__}")
        try:
            # A user namespace of its own: holds no power over the mounts, the keeper or the launcher, and the process
            # limit counts from here.
            _call("unshare", NEWUSER)
        except OSError:
            if own_uid is None:
                raise
        _drop_capabilities()
    elif own_uid is None:
        _drop_capabilities()  # root in a user namespace that has no other id
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        _prctl(PR_SET_THP_DISABLE, 1)  # a huge page stays whole while a part is mapped, and the limit counts that part
    # Without a namespace or a user id of its own the limit counts all of the user's processes: none may be started.
    _set_limits(limits, limits["processes"] if spaces or own_uid is not None else 0)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    for name in os.listdir("/proc/self/fd") if not spaces else range(3, 64):
        if int(name) not in (0, 1, 2, requests.fileno(), replies.fileno()):
            with contextlib.suppress(OSError):  # not open
                os.close(int(name))
    user = "own user id" if own_uid is not None else "the caller's user id"
    # The limit on processes does not bind the machine's root, as who the root of a user namespace may count.
    filtered = syscalls.restrict(alone=not spaces and own_uid is None)
    replies.write(wire.dump({"ready": config["isolation"], "user": user, "filtered": filtered}))
    replies.flush()
    {"answer": wire.answer, "examine": wire.examine}[config["role"]](requests, replies)
    os._exit(0)


def _guarded_program(config: dict[str, Any], own_uid: int | None) -> NoReturn:
    try:
        _program(config, own_uid)
    except BaseException as error:
        # Before "ready" this tells the parent why; afterwards descriptor 1 is /dev/null.
        os.write(1, json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode() + b"\n")
    os._exit(1)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _keeper(config: dict[str, Any], own_uid: int | None, gate: int) -> NoReturn:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(PR_SET_DUMPABLE, 0)
    os.setsid()
    # The launcher may have died before the line above took effect: then the gate is closed and reads as empty.
    os.write(gate, b"?")
    if os.read(gate, 1) != b"!":
        os._exit(1)
    os.close(gate)
    program = os.fork()
    if program == 0:
        _guarded_program(config, own_uid)
    for number in (0, 1):
        os.close(number)
    while True:
        pid, status = os.wait()
        if pid == program:
            os._exit(_exit_code(status))


def _sweep(own_uid: int | None) -> None:
    """Kill and reap every descendant; as subreaper this process inherits all that lose their parent."""
    if own_uid is not None:
        # One at a time would lose the race with a fork bomb: one call kills all that this user id has.
        killer = os.fork()
        if killer == 0:
            os.setresuid(own_uid, own_uid, own_uid)
            try:
                os.kill(-1, signal.SIGKILL)
            finally:
                os._exit(0)
        os.waitpid(killer, 0)
    while True:
        found = False
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat") as file:
                        parent = int(file.read().rpartition(")")[2].split()[1])
                    if parent == os.getpid():
                        found = True
                        os.kill(int(name), signal.SIGKILL)
                        os.waitpid(int(name), 0)
                except OSError:
                    pass  # it ended meanwhile
        if not found:
            return


def _launch(config: dict[str, Any], uid: int | None, nursery: int) -> NoReturn:
    """Shut a program in, wait for it, exit as it did when nothing of it is left.

    uid: of the program; None leaves it the caller's. nursery: process id of the parent.
    """
    spaces = config["isolation"] != "rlimits"
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != nursery:
        os._exit(1)
    _call("prctl", PR_SET_NAME, b"sandboxed", 0, 0, 0)
    os.setsid()
    waited = {signal.SIGCHLD, signal.SIGTERM, signal.SIGALRM}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    # Should the caller forget about us. The caller's clock starts when the program is ready, within a minute.
    signal.alarm(config["limits"]["wall_seconds"] + 61)

    if spaces:
        try:
            if config["isolation"] == "bwrap":
                _call("unshare", SPACES)
                _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
            else:
                user, group = os.geteuid(), os.getegid()
                _call("unshare", SPACES if uid is not None else SPACES | NEWUSER)
                if uid is None:
                    _write("/proc/self/setgroups", "deny")
                    _write("/proc/self/uid_map", f"1000 {user} 1")
                    _write("/proc/self/gid_map", f"1000 {group} 1")
                _new_root(config["scratch"])
            _hide_host_name()
            _own_tmp(config["limits"]["disk_bytes"])
        except OSError as error:
            os.write(1, json.dumps({"failed": f"{error}"}).encode() + b"\n")
            os._exit(1)
        inner, outer = socket.socketpair()
        child = os.fork()
        if child == 0:
            outer.close()
            _keeper(config, uid, inner.detach())
        inner.close()
        outer.recv(1)
        outer.send(b"!")
    else:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        with contextlib.suppress(OSError):  # not allowed to an ordinary user, nor in most containers
            _call("unshare", NEWUTS)
            _hide_host_name()
        os.chdir(config["scratch"])
        if uid is not None:
            os.chown(".", uid, uid)
        child = os.fork()
        if child == 0:
            _guarded_program(config, uid)
    for number in (0, 1):
        os.close(number)
    while True:
        caught = signal.sigwait(waited)
        if caught != signal.SIGCHLD:
            os.kill(child, signal.SIGKILL)
        # Reaping the keeper returns only when its whole namespace is empty.
        pid, status = os.waitpid(child, 0 if caught != signal.SIGCHLD else os.WNOHANG)
        if pid == child:
            break
    if not spaces:
        _sweep(uid)
    os._exit(_exit_code(status))


class _Launched:
    """A launcher that runs. status: tells the caller its exit code, and is shut by a caller who wants it ended."""

    def __init__(self, status: socket.socket) -> None:
        self.status = status
        self.kill_at: float | None = None
        """Set once it has been asked to end."""


def nursery(orders: socket.socket) -> None:
    """Launch what is ordered until the caller closes its end.

    An order is one JSON object with three descriptors: the channel's two, and a socket for its status. To that goes the
    launcher's exit code, as one line, when everything it started is gone. Who shuts its other end wants it killed.
    """
    own = os.getpid()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    running: dict[int, _Launched] = {}
    orders.send(b"ready")
    while True:
        poll = select.poll()
        poll.register(orders, select.POLLIN)
        poll.register(woken, select.POLLIN)
        by_status = {entry.status.fileno(): pid for pid, entry in running.items() if entry.kill_at is None}
        for descriptor in by_status:
            poll.register(descriptor, select.POLLIN)
        asked = [entry.kill_at for entry in running.values() if entry.kill_at is not None]
        for descriptor, _ in poll.poll(max(0.0, min(asked) - time.monotonic()) * 1000 if asked else None):
            if descriptor in by_status:
                pid = by_status[descriptor]
                os.kill(pid, signal.SIGTERM)  # it then kills the namespace, waits until it is empty, and exits
                running[pid].kill_at = time.monotonic() + 10
            elif descriptor == woken:
                os.read(woken, 4096)
            else:
                message, given, _, _ = socket.recv_fds(orders, 1 << 16, 3)
                if not message:
                    return  # and every launcher with it
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    null = os.open("/dev/null", os.O_RDWR)
                    for number, source in enumerate((*given[:2], null)):
                        os.dup2(source, number)
                    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                    config = json.loads(message)
                    ids = _own_ids(config["isolation"])
                    _launch(config, None if ids is None else ids[os.getpid() % len(ids)], own)
                for source in given[:2]:
                    os.close(source)
                running[pid] = _Launched(socket.socket(fileno=given[2]))
        for pid, entry in list(running.items()):
            if entry.kill_at is not None and entry.kill_at < time.monotonic():
                os.kill(pid, signal.SIGKILL)
            if (ended := os.waitpid(pid, os.WNOHANG))[0]:
                with contextlib.suppress(OSError):  # a caller that is gone
                    entry.status.send(b"%d\n" % _exit_code(ended[1]))
                entry.status.close()
                del running[pid]


def main() -> None:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # for these two, and nothing else
    import _syscalls  # noqa: F401
    import _wire  # noqa: F401

    del sys.path[0]
    if sys.argv[1] == "--host":
        own_user = _own_ids("bwrap") is not None
        print(json.dumps({"visible": _visible(), "masked": _masked(), "own_user": own_user}))
    else:
        nursery(socket.socket(fileno=0))


if __name__ == "__main__":
    main()
