"""The router of docs/guides/routers.md, installed as a package of its own: what an installer leaves, no more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]


def installed(site: Path) -> None:
    """Put the page's module and its entry points into a folder for packages."""
    text = (ROOT / "docs" / "guides" / "routers.md").read_text(encoding="utf-8")
    module, declared = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "toml"))
    assert module is not None and declared is not None
    (site / "my_router.py").write_text(module[1], encoding="utf-8")
    info = site / "my_router-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-router\nVersion: 1.0\n", encoding="utf-8")
    groups = tomllib.loads(declared[1])["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def test_a_router_in_a_package_of_its_own_is_known_by_name(tmp_path: Path) -> None:
    installed(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    def harness(*arguments: str) -> str:
        command = [sys.executable, "-m", "harness", *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert "longest-to-coder" in harness("list", "routers")
    harness("run", "--router", "longest-to-coder", "--baselines", "no", "--out", "run")
    rows = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["routers"]
    calls = rows["longest-to-coder"]["overall"]["calls"]
    # HumanEval's queries hold code, and only they: the coder gets those, the first model all others.
    tasks = rows["longest-to-coder"]["tasks"]
    share = tasks["human_eval"]["items"] / sum(task["items"] for task in tasks.values())
    assert calls["qwen2.5-coder-0.5b"] == pytest.approx(share)
    assert calls["qa-specialist"] == 0


def test_the_file_alone_is_enough(tmp_path: Path) -> None:
    installed(tmp_path)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name", encoding="utf-8")
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(router: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", "run", "--router", router, "--baselines", "no", "--out", "run"]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    assert run("my_router.py").returncode == 0
    rows = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["routers"]
    assert rows["my_router.py"]["overall"]["calls"]["qwen2.5-coder-0.5b"] > 0
    for router, said in (
        ("my_router.py:other", "it registers longest-to-coder"),
        ("broken.py", "No module named 'nothing_of_that_name'"),
        ("empty.py", "decorate one"),
        ("absent.py", "no such file"),
    ):
        refused = run(router)
        assert refused.returncode == 2 and said in refused.stderr and refused.stderr.count("\n") == 1


def test_a_router_of_another_package_that_learns_is_trained_saved_run_compared_and_served(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "guides" / "routers.md").read_text(encoding="utf-8")
    source = re.search(r"```python\n(# word_router.py\n.*?)```", text, re.DOTALL)
    assert source is not None and source[1].count("\n") < 60
    (tmp_path / "word_router.py").write_text(source[1], encoding="utf-8")
    info = tmp_path / "word_router-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: word-router\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[harness.routers]\nwords = word_router:WordLearner\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    def harness(*arguments: str) -> str:
        command = [sys.executable, "-m", "harness", *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "smoothing" in harness("list", "routers", "words")
    harness("train", "--router", "words", "--router-args", "smoothing=5", "--out", "words.safetensors")
    given = ("--router", "words", "--baselines", "no", "--out")
    harness("run", "--checkpoint", "words.safetensors", *given, "loaded")
    harness("run", "--router-args", "smoothing=5", *given, "trained")
    tables = [pq.read_table(tmp_path / run / "items.parquet") for run in ("loaded", "trained")]
    assert tables[0].equals(tables[1])
    quality = json.loads((tmp_path / "trained" / "summary.json").read_text())["routers"]["words"]["overall"]["quality"]
    assert quality > 0.5, "it has learnt: the best single model has 0.341"
    assert "same" in harness("compare", "loaded", "trained")
    recording = ROOT / "results" / "recordings" / "lightweight-offline"
    serve = [sys.executable, "-u", "-m", "harness", "serve", "--router", "words", "--port", "0"]
    serve += ["--checkpoint", "words.safetensors", "--recording", str(recording)]
    with subprocess.Popen(serve, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://\S+/v1", server.stdout.readline())
            assert address is not None
            with urlopen(f"{address[0]}/models", timeout=30) as reply:
                assert json.load(reply)["data"][0]["id"] == "words"
        finally:
            server.terminate()
