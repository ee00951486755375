"""What `rlimits` has to do itself, without namespaces: remove what programs leave, and take root's power from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sandbox_call import call
from tasks.code.sandbox import session

pytestmark = pytest.mark.usefixtures("nothing_stays_behind")


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of programs in memory where there is a place for it: thousands of files take a busy disk seconds."""
    if os.access("/dev/shm", os.W_OK):
        monkeypatch.setattr("tempfile.tempdir", "/dev/shm")


LEFT = {
    "folders inside folders": "for _ in range(1500): os.mkdir('x' * 99); os.chdir('x' * 99)",
    "many files": "for n in range(5000): os.close(os.open(str(n), os.O_CREAT))",
    "folders without permissions": "os.makedirs('a/b/c'); [os.chmod(p, 0) for p in ('a/b', 'a', '.')]",
    "links": "os.symlink('/', 'root'); os.symlink('.', 'self'); os.link('self', 'same'); os.mkfifo('pipe')",
    "a folder that goes by another name": "os.rename(os.getcwd(), os.getcwd() + '-renamed'); open('file', 'w')",
    "no folder": "os.rmdir(os.getcwd())",
}
"""The last two are refused to a program that has a user id of its own."""


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT)
def test_nothing_stays_of_what_a_program_made(body: str) -> None:
    mode = os.stat(tempfile.gettempdir()).st_mode
    reply = call(f"import os\n{body}\ndef f(): return 1", "f", isolation="rlimits")
    assert reply.value == 1 or reply.error.startswith("PermissionError")
    assert os.stat(tempfile.gettempdir()).st_mode == mode


def test_what_takes_long_to_remove_does_not_hold_grading_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "REMOVE_SECONDS", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = f"import os\n{LEFT['many files']}\ndef f(): pass"
    call(program, "f", isolation="rlimits")
    until = time.monotonic() + 20
    while any(tmp_path.iterdir()) and time.monotonic() < until:
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


ROOT = """
import json, os, sys
from sandbox_call import call

PROGRAM = '''
import os

def works(function):
    try:
        return function() is not False
    except (OSError, ValueError):
        return False

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

def f(host):
    open('own', 'w').close()
    status = dict(line.split(':\\\\t', 1) for line in open('/proc/self/status').read().splitlines())
    gained = {
        'chown': works(lambda: os.chown('own', 1, 1)),
        'user': works(lambda: os.setresuid(1, 1, 1)) or works(lambda: os.setgroups([1])),
        'environment': works(lambda: open(f"/proc/{host['caller']}/environ").close()),
        'memory': works(lambda: open(f"/proc/{host['caller']}/mem", 'rb').close()),
    }
    if os.getuid() == 0:
        gained['fork'] = works(fork)
    else:
        gained['write'] = works(lambda: os.mkdir(host['folder'] + '/new'))
    return os.getuid(), int(status['CapEff'], 16), int(status['CapPrm'], 16), [k for k, v in gained.items() if v]
'''
host = {"caller": os.getpid(), "folder": sys.argv[1]}
reply = call(PROGRAM, "f", [host], isolation="rlimits")
print(json.dumps(reply.value or reply.error))
"""
READS = 1 << 2
"""CAP_DAC_READ_SEARCH: a program keeps it where only root may read the interpreter's library."""


@pytest.mark.parametrize("others", ["", "1 100000 65536"], ids=["no other user", "a rootless container's users"])
def test_root_of_a_user_namespace_has_no_power(others: str, tmp_path: Path) -> None:
    if others and os.geteuid() != 0:
        pytest.skip("only root may map the ids of others")
    run = ["unshare", "--user", "sh", "-c", 'read _; exec "$@"', "-", sys.executable, "-c", ROOT, str(tmp_path)]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=path) as root:
        proc, until = Path(f"/proc/{root.pid}"), time.monotonic() + 5
        while root.poll() is None and (proc / "ns/user").readlink() == Path("/proc/self/ns/user").readlink():
            if time.monotonic() > until:
                break
            time.sleep(0.01)
        try:
            (proc / "setgroups").write_text("allow" if others else "deny")
            (proc / "uid_map").write_text(f"0 {os.geteuid()} 1\n{others}")
            (proc / "gid_map").write_text(f"0 {os.getegid()} 1\n{others}")
        except OSError:
            root.kill()
            pytest.skip("this machine allows no user namespaces")
        printed, _ = root.communicate("\n")
    assert "[" in printed, printed
    user, effective, permitted, gained = json.loads(printed)
    assert gained == [] and effective == permitted
    assert (user > 0 and permitted & ~READS == 0) if others else (user == permitted == 0)


def test_the_host_name_is_hidden_where_it_can_be() -> None:
    if subprocess.run(["unshare", "--uts", "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this user may make no namespace of host names")
    assert call("import os\ndef f(): return os.uname().nodename", "f", isolation="rlimits").value == "sandbox"
