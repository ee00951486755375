"""`record --engine ray` as a command, on a cluster that runs already and on a Ray of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import harness
from command_line import call
from pools.data.recording import load_recording

pytest.importorskip("ray")
ROOT = Path(harness.__file__).parent.parent
# Else a token that another Ray left in the home folder is asked for.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster that has one `here`, which no other Ray has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray")  # a short path: sockets go there
    start = [str(Path(sysconfig.get_path("scripts")) / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    has = ["--node-ip-address", "127.0.0.1", "--num-cpus", "2", "--resources", '{"here": 1}', "--temp-dir", folder]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    asked = [*start, *has, "--port", str(port), "--include-dashboard", "false"]
    head = subprocess.Popen(asked, env=ENVIRONMENT, **quiet)
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        assert head.poll() is None and time.monotonic() < deadline, "the cluster did not start"
        time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    head.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        head.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def test_record_on_a_cluster(
    cluster: str, tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tiny_pool_file.with_name("tiny-here.yaml")
    needs = "    resources: {num_cpus: 0.5, custom: {here: 0.5}}\n"
    here.write_text(tiny_pool_file.read_text().replace("    base_rate", needs + "    base_rate"))
    suite = ("--suite", tiny_tasks / "suite.yaml", "--max-hops", 2, "--limit", 2)

    def record(name: str, *engine: str) -> list[str]:
        places = ("--pool", here, "--store", tmp_path / f"{name}.sqlite", "--out", tmp_path / name)
        return ["record", *map(str, (*suite, *places, *engine))]

    def start(name: str, *engine: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "harness", *record(name, *engine)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
        return subprocess.Popen(command, env={**ENVIRONMENT, **environment}, **quiet)

    started = [
        start("ray", "--engine", "ray", "--ray-address", cluster),
        start("alone", "--engine", "ray", RAY_ADDRESS=cluster),  # no address was given, so this is not joined
    ]
    assert call(monkeypatch, *record("local")) == 0  # in the meantime
    said = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 2], said
    assert "needs 0.5 here for its 1 actors, the cluster has 0" in said[1]
    local, ray = (load_recording(tmp_path / name).tree for name in ("local", "ray"))
    assert [{**row, "seconds": 0} for row in ray.rows()] == [{**row, "seconds": 0} for row in local.rows()]
