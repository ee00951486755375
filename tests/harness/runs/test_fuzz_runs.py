"""The files that commands read back: run folders and baselines. What was changed is refused, or means itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import command, damaged, fuzz, mutated, told
from harness.regression.baseline import read_baseline
from harness.runs.folder import load_runs, read_run
from pools.data.recording import save_recording
from pools.mdp.tree import Tree
from pools.pool import CandidateModel, Pool

FILES = ("manifest.json", "summary.json", "items.parquet")


@pytest.fixture(scope="module")
def made(synthetic_tree: Callable[..., Tree], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a small recording, a whole run on it, a copy to be damaged, and a baseline."""
    folder = tmp_path_factory.mktemp("runs")
    models = tuple(CandidateModel(f"model-{n}", "hf", 0.01 * 4**n) for n in range(2))
    save_recording(synthetic_tree(items=9), Pool("p", models, "unit", "made up"), {"suite": "s"}, folder / "r")
    routers = ("--recording", folder / "r", "--router", "random", "single:model-0")
    assert not command("run", *routers, "--cost-weight", "0.1", "1", "--out", folder / "whole").refused
    assert not command("check", "--update", "--baseline", folder / "whole.json", *routers).refused
    shutil.copytree(folder / "whole", folder / "changed")
    return folder


def changed(data: st.DataObject, whole: Path, path: Path) -> None:
    """The file with other values, or with other bytes."""
    if path.suffix == ".json" and data.draw(st.booleans()):
        path.write_text(json.dumps(data.draw(mutated(json.loads(whole.read_text()), surrogates=True))))
    else:
        path.write_bytes(data.draw(damaged(whole.read_bytes())))


def changed_run(data: st.DataObject, made: Path) -> Path:
    for name in FILES:
        shutil.copyfile(made / "whole" / name, made / "changed" / name)
    name = data.draw(st.sampled_from(FILES))
    changed(data, made / "whole" / name, made / "changed" / name)
    return made / "changed"


@fuzz("run folders: read", 400)
@given(st.data())
def test_a_run_folder(made: Path, data: st.DataObject) -> None:
    folder = changed_run(data, made)
    same = all((folder / name).read_bytes() == (made / "whole" / name).read_bytes() for name in FILES[1:])
    for read in (lambda: read_run(folder), lambda: load_runs([folder, made / "whole"])):
        assert told(read, folder) is None or same


@fuzz("run folders: report", 12, seconds=60)  # it draws every figure
@given(st.data())
def test_report(made: Path, data: st.DataObject) -> None:
    folder, out = changed_run(data, made), made / "page" / "r.html"
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    ended = command("report", folder, "--out", out)
    assert out.exists() != ended.refused
    if out.exists():
        assert "<script" not in out.read_text(encoding="utf-8")


@fuzz("baselines: read", 400)
@given(st.data())
def test_a_baseline(made: Path, data: st.DataObject) -> None:
    path = made / "changed.json"
    changed(data, made / "whole.json", path)
    told(lambda: read_baseline(path), path)


@fuzz("baselines: check", 60)
@given(st.data())
def test_check(made: Path, data: st.DataObject) -> None:
    path, junit = made / "changed.json", made / "junit.xml"
    junit.unlink(missing_ok=True)
    changed(data, made / "whole.json", path)
    before = path.read_bytes()
    ended = command("check", "--baseline", path, "--junit", junit)
    assert path.read_bytes() == before
    assert ended.code == 1 or junit.exists() != ended.refused
