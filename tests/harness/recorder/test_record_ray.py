"""`record --engine ray` as a command, on a cluster that runs already and on a Ray of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness as package
from pools.data.recording import load_recording

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster that has one `here`, which no other Ray has."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a token that another Ray left in the home folder is asked for
        has = {"num_cpus": 2, "resources": {"here": 1}, "include_dashboard": False}
        started = Cluster(initialize_head=True, head_node_args=has)
        yield started.address
        started.shutdown()


def test_record_on_a_cluster(
    cluster: str, tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, harness: Callable[..., int]
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
        own = {"PYTHONPATH": str(Path(package.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
        return subprocess.Popen(command, env={**os.environ, **own, **environment}, **quiet)

    started = [
        start("ray", "--engine", "ray", "--ray-address", cluster),
        start("alone", "--engine", "ray", RAY_ADDRESS=cluster),  # no address was given, so this is not joined
    ]
    assert harness(*record("local")) == 0  # in the meantime
    said = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 2], said
    assert "needs 0.5 here for its 1 actors, the cluster has 0" in said[1]
    local, ray = (load_recording(tmp_path / name).tree for name in ("local", "ray"))
    assert [{**row, "seconds": 0} for row in ray.rows()] == [{**row, "seconds": 0} for row in local.rows()]
