"""Hostile programs: each scores nothing, and the harm that shows from outside is looked for and not found."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pools.errors import UserError
from sandbox_call import call
from tasks.code.grade import examine
from tasks.code.sandbox import fork_server, walls
from tasks.code.sandbox import session as sandbox
from tasks.code.sandbox.session import Limits, SandboxUnavailable, Session

pytestmark = pytest.mark.usefixtures("nothing_stays_behind")

TESTS = "def check(candidate):\n    assert candidate(2) == 5\n    assert candidate(3) == 10\n"
RIGHT = "def f(x):\n    return x * x + 1\n"
SHORT = Limits(cpu_seconds=1, wall_seconds=4)


def score(program: str, isolation: str, limits: Limits = SHORT):
    return examine(program, "f", "", TESTS, limits, isolation)


def test_a_right_program_passes(isolation):
    assert score(RIGHT, isolation).passed
    assert not score(RIGHT.replace("+ 1", "+ 2"), isolation).passed


def test_fork_bomb(isolation):
    bomb = "import os\nwhile True:\n    try:\n        os.fork(); os.setsid()\n    except OSError:\n        pass\n"
    assert not score(bomb + RIGHT, isolation).passed


def test_ten_gigabytes(isolation):
    verdict = score("block = bytearray(10 << 30)\n" + RIGHT, isolation)
    assert not verdict.passed and "MemoryError" in verdict.detail


def test_endless_loop(isolation):
    second = Limits(cpu_seconds=1)
    busy = score("def f(x):\n    while True: pass\n", isolation, second)
    assert not busy.passed and "CPU time limit exceeded" in busy.detail
    deaf = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass\n"
    assert "Killed" in score(deaf, isolation, second).detail
    sleeping = score("import time\ntime.sleep(1000)\n" + RIGHT, isolation, Limits(wall_seconds=1))
    assert not sleeping.passed and sleeping.detail == "out of time"


def test_what_programs_use_still_works(isolation, monkeypatch):
    """The filter of system calls leaves what the standard library is made of, asyncio's pair of sockets among it."""
    monkeypatch.setenv("SANDBOX_TEST_SECRET", "x")
    program = """
import asyncio, ctypes, os, sqlite3, tempfile
async def double(x):
    await asyncio.sleep(0)
    return 2 * x
def f(x):
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * x)
        size = file.tell()
    ctypes.CDLL(None).qsort((ctypes.c_int * 2)(2, 1), 2, 4, ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0))
    found = sqlite3.connect(":memory:").execute("select 1").fetchone()
    return size, found, asyncio.run(double(x)), "SANDBOX_TEST_SECRET" in os.environ
"""
    assert call(program, "f", [4], isolation=isolation).value == (4, (1,), 8, False)


def test_killing_the_parent(isolation):
    received = []
    previous = signal.signal(signal.SIGTERM, lambda *_: received.append(1))
    program = f"""
import os, signal
for pid in (os.getppid(), {os.getpid()}, 1, 0, -1):
    for number in (signal.SIGTERM, signal.SIGKILL)[: 1 + (pid > 0)]:
        try:
            os.kill(pid, number)
        except OSError:
            pass
os._exit(0)
"""
    try:
        assert not score(program + RIGHT, isolation).passed
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert received == []
    assert score(RIGHT, isolation).passed


@pytest.mark.parametrize("exit_", ["os._exit(0)", "sys.exit(0)", "os.kill(os.getpid(), 9)", "os.close(3)"])
def test_exit_before_the_check(isolation, exit_):
    assert not score(f"import os, sys\n{exit_}\n" + "def f(x): return 1\n", isolation).passed
    assert not score(f"import os, sys\ndef f(x):\n    {exit_}\n", isolation).passed


FAKES = [
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
    program = """
import os
def f(x):
    written = 0
    for number in range(x):
        try:
            with open(f"file{number}", "wb", 0) as file:
                while n := file.write(bytes(1 << 20)):
                    written += n
        except OSError:
            pass
    return written
"""
    limits = Limits(cpu_seconds=2, file_bytes=4 << 20, disk_bytes=8 << 20)
    written = call(program, "f", [6], isolation=isolation, limits=limits).value
    # rlimits: each file is limited, their number is not
    assert 0 < written <= (8 << 20 if isolation != "rlimits" else 6 * (4 << 20))


def test_a_flood_of_output_ends_the_session(isolation):
    small = Limits(cpu_seconds=3, output_bytes=1 << 16)
    long = "def f(): return 'x' * 10_000_000"
    flood = "import os\nwhile True: os.write(3, b'x' * 65536)"
    for program in (long, flood):
        assert call(program, "f", isolation=isolation, limits=small).error == "the answer is too long"
    assert call("print('x' * 50_000_000)\ndef f(): return 1", "f", isolation=isolation, limits=small).value == 1


def test_a_program_that_does_not_read_cannot_block_the_caller(isolation):
    with Session(limits=Limits(wall_seconds=1), isolation=isolation) as session:
        session.send(b'{"source": "import time; time.sleep(100)"}\n')
        session.send(b"x" * (8 << 20))
        assert session.ended == "out of time"


def test_sandboxes_run_side_by_side(isolation):
    def square(number):
        return call("def f(x):\n    open('own', 'x').write('1')\n    return x * x", "f", [number], isolation=isolation)

    with ThreadPoolExecutor(8) as pool:
        assert [reply.value for reply in pool.map(square, range(24))] == [n * n for n in range(24)]


def until(condition, seconds=20):
    """Wait for it."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_nothing_outlives_a_caller_that_is_killed(isolation, tmp_path, processes):
    """Also a caller that gets SIGKILL takes its sandboxes along."""
    forever = "import time\nwhile True: time.sleep(1)"
    script = f"from tasks.code.sandbox.session import Session; Session(isolation={isolation!r}).define({forever!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as caller:
        until(lambda: "sandboxed" in processes(caller.pid).values())
        time.sleep(0.3)
        caller.kill()
    until(lambda: processes(caller.pid) == {})  # the fork server too


def test_a_fork_server_that_was_killed_is_replaced(isolation, processes):
    with Session(isolation=isolation) as session:
        for pid, name in processes(os.getpid()).items():  # of all isolations
            if name != "sandboxed":
                with contextlib.suppress(ProcessLookupError):  # those inside bubblewrap go with its first process
                    os.kill(pid, signal.SIGKILL)
        assert session.define("while True: pass") == "the program ended (Killed)"
    for other in (isolation, "rlimits"):
        assert call("def f(): return 1", "f", isolation=other).value == 1


def test_a_fork_server_that_answers_too_late_is_replaced(isolation, processes):
    """Its late answer would be taken for that to the next order."""
    session = Session(isolation=isolation)
    stopped = [pid for pid, name in processes(os.getpid()).items() if name != "sandboxed"]  # of all isolations
    session._server._orders.settimeout(0.1)
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        session.close()
        assert session._channel.fileno() < 0
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    assert session._server._process.pid not in processes(os.getpid())
    for number in range(3):
        assert call("def f(x): return x", "f", [number], isolation=isolation).value == number


def test_an_interrupt_while_a_program_is_started_leaves_nothing(isolation, monkeypatch):
    def interrupted(server):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fork_server.ForkServer, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Session(isolation=isolation)
    for number in range(3):
        assert call("def f(x): return x", "f", [number], isolation=isolation).value == number


def elsewhere(command, script, *arguments):
    """What a script prints that a command runs, as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [*command, sys.executable, "-c", script, *arguments]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("limit", ["-f 8192", "-n 48", "-t 5", "-v 400000"])
def test_a_limit_of_the_caller_may_be_lower(isolation, limit):
    command = ["sh", "-c", f'ulimit {limit}; exec "$@"', "-"]
    script = """
import json, sys
from sandbox_call import call
print(json.dumps(call("def f(x): return x", "f", [1], isolation=sys.argv[1]).value))
"""
    assert elsewhere(command, script, isolation) == 1


def own_namespaces(*kinds):
    """The command that runs another as root of new namespaces, of the user too if this is no root."""
    command = ["unshare", *kinds, *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this machine allows no namespaces")
    return command


def test_a_mount_below_a_shown_folder_is_read_only(isolation):
    if isolation == "rlimits":
        pytest.skip("rlimits: the program sees the file system")
    folder = next(str(path) for path in sorted(Path("/usr/lib").iterdir()) if path.is_dir() and ".so" not in str(path))
    mount = ["sh", "-c", f'mount -t tmpfs -o mode=1777,noexec none {folder}; exec "$@"', "-"]
    script = """
import json, os, sys
from sandbox_call import call
write = "def f(path): open(path, 'w').write('x')"
reply = call(write, "f", [sys.argv[2] + "/planted"], isolation=sys.argv[1])
print(json.dumps([reply.error, os.path.ismount(sys.argv[2]), os.listdir(sys.argv[2])]))
"""
    error, mounted, planted = elsewhere([*own_namespaces("--mount"), *mount], script, isolation, folder)
    assert "Read-only file system" in error and mounted and planted == []


ALTERED = """
import sys
from tasks.code.sandbox import walls
walls.__file__ = sys.argv[2] + "/walls.py"
"""


@pytest.fixture
def altered(tmp_path):
    """The command-line argument for ALTERED, which uses other scripts inside: one text replaced by another."""

    def alter(script, old, new):
        folder = tmp_path / "scripts"
        folder.mkdir()
        for path in [folder, *folder.parents][:-2]:
            with contextlib.suppress(PermissionError):
                path.chmod(path.stat().st_mode | 0o055)
        for name in walls.SCRIPTS:
            text = (Path(walls.__file__).parent / name).read_text()
            assert name != script or old in text
            (folder / name).write_text(text.replace(old, new) if name == script else text)
        return str(folder)

    return alter


def test_without_a_filter_programs_cannot_trace_each_other(isolation, altered):
    """On other machines than x86-64 and ARM64, of a caller that is not root: all programs have one user id."""
    script = f"""{ALTERED}
import json
from sandbox_call import call
from tasks.code.sandbox.session import Session
ATTACK = '''
import ctypes, os
def f(pids):
    gained = []
    for pid in pids or [os.getppid()]:
        if ctypes.CDLL(None).ptrace(16, pid, None, None) == 0:
            gained.append(f"traced {{pid}}")
        try:
            open(f"/proc/{{pid}}/mem", "r+b")
            gained.append(f"opened {{pid}}")
        except OSError:
            pass
    return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), gained
'''
with Session(isolation=sys.argv[1]) as other:
    assert other.define("x = 1") is None
    print(json.dumps([call(ATTACK, "f", [pids], isolation=sys.argv[1]).value for pids in ([other._pid], [])]))
"""
    folder = altered("_syscalls.py", "ARCHITECTURES.get(os.uname().machine)", "None")
    user = own_namespaces("--user", "--map-root-user")
    nothing = [0, []]  # is not dumpable, and says so: no filter refuses the question
    assert elsewhere(user, script, isolation, folder) == [nothing, nothing]


def test_no_program_runs_without_the_filter_where_there_should_be_one(isolation, altered, monkeypatch):
    monkeypatch.setattr(fork_server, "_servers", {})
    folder = altered("_syscalls.py", "SECCOMP_MODE_FILTER = 22, 2", "SECCOMP_MODE_FILTER = 22, 9")
    monkeypatch.setattr(walls, "__file__", f"{folder}/walls.py")
    with pytest.raises(SandboxUnavailable, match="seccomp"):
        Session(isolation=isolation)
    for server in fork_server._servers.values():
        server.close()


def test_the_libraries_of_python_are_shown_wherever_they_are(tmp_path):
    """Nix and Spack have each package, the C library too, in a folder of its own."""
    python = tmp_path / "python"
    lines = f"7f00-7f01 r-xp 00000000 fe:00 12 {tmp_path}/glibc/lib/libc.so.6\n7f02-7f03 rw-p 00000000 00:00 0 [heap]"
    python.write_text(f"#!/bin/sh\ncat <<END\n{lines}\nEND\n")
    python.chmod(0o755)
    (tmp_path / "glibc/lib").mkdir(parents=True)
    assert f"{tmp_path}/glibc/lib" in walls._visible([str(python)])


def test_a_session_can_be_handed_to_another_thread(isolation):
    """A program does not end with the thread that started it."""
    opened = []
    thread = threading.Thread(target=lambda: opened.append(Session(isolation=isolation)))
    thread.start()
    thread.join()
    with opened[0] as session:
        assert session.define("def f(): return 1") is None


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
        assert session.isolation == sandbox.default_isolation() == "rlimits"
    monkeypatch.setenv(sandbox.ISOLATION_VARIABLE, "docker")
    with pytest.raises(UserError, match="docker"):
        sandbox.default_isolation()


def test_without_the_tools_limits_alone_are_used_and_no_other_if_named(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("tasks.code.sandbox.fork_server._servers", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(sandbox.ISOLATION_VARIABLE, "auto")
    assert sandbox._strongest.__wrapped__() == "rlimits"
    assert "(bwrap) is not installed" in caplog.text and "(unshare) is not installed" in caplog.text
    with pytest.raises(UserError, match="no sandbox by namespaces: util-linux"):
        sandbox.choose_isolation("namespaces")
