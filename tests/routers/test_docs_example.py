"""The router of docs/guides/routers.md, installed as a package of its own: what an installer leaves, no more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest

from command_line import call
from harness.runs.folder import load_run
from pools.pool import load_pool
from routers.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def page(tmp_path: Path) -> list[str]:
    """The page's two routers as files, with the code of each."""
    text = (ROOT / "docs" / "guides" / "routers.md").read_text(encoding="utf-8")
    sources: list[str] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, source in zip(("my_router.py", "word_router.py"), sources, strict=True):
        (tmp_path / name).write_text(source, encoding="utf-8")
    return sources


def test_the_file_alone_is_enough(page: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name", encoding="utf-8")
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def harness(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    def run(router: str) -> subprocess.CompletedProcess[str]:
        return harness("run", "--router", router, "--baselines", "no", "--out", "run", "--force")

    assert run("my_router.py").returncode == 0
    row = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["routers"]["longest-to-coder"]
    # HumanEval's queries hold code, and only they: the coder gets those, the first model all others.
    share = row["tasks"]["human_eval"]["items"] / sum(task["items"] for task in row["tasks"].values())
    assert row["overall"]["calls"]["qwen2.5-coder-0.5b"] == pytest.approx(share)
    assert row["overall"]["calls"]["reader"] == 0
    for router, said in (
        ("my_router.py:other", "it registers longest-to-coder"),
        ("broken.py", "No module named 'nothing_of_that_name'"),
        ("empty.py", "decorate one"),
        ("absent.py", "no such file"),
    ):
        refused = run(router)
        assert refused.returncode == 2 and said in refused.stderr and refused.stderr.count("\n") == 1
    assert "How many queries of average value" in harness("list", "routers", "word_router.py").stdout


def test_a_router_of_another_package_that_learns_is_trained_saved_run_compared_and_served(
    page: list[str], tmp_path: Path
) -> None:
    assert page[1].count("\n") < 60
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

    assert "words" in harness("list", "routers")
    harness("train", "--router", "words", "--router-args", "smoothing=5", "--out", "words.safetensors")
    singles = [f"single:{model}" for model in load_pool("lightweight").model_names]
    given = ("--router", "words", *singles, "--baselines", "no", "--out")
    harness("run", "--checkpoint", "words.safetensors", *given, "loaded")
    harness("run", "--router-args", "words:smoothing=5", *given, "trained")
    tables = [pq.read_table(tmp_path / run / "items.parquet") for run in ("loaded", "trained")]
    assert tables[0].equals(tables[1])
    rows = json.loads((tmp_path / "trained" / "summary.json").read_text())["routers"]
    value = rows["words"]["overall"]["value"]
    assert value > max(rows[single]["overall"]["value"] for single in singles), "it has learnt"
    assert "same" in harness("compare", "loaded", "trained")
    recording = ROOT / "results" / "recordings" / "lightweight-offline"
    serve = [sys.executable, "-u", "-m", "harness", "serve", "--router", "words", "--port", "0"]
    serve += ["--checkpoint", "words.safetensors", "--recording", str(recording)]
    with subprocess.Popen(serve, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            # What it learnt from, or loads, is told before.
            address = next(found for line in server.stdout if (found := re.search(r"http://\S+/v1", line)))
            with urlopen(f"{address[0]}/models", timeout=30) as reply:
                assert json.load(reply)["data"][0]["id"] == "words"
        finally:
            server.terminate()


def test_a_router_in_a_file_goes_by_its_registered_name(
    page: list[str], small_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (registered,) = re.findall(r'@register\("(.*)"\)', page[1])
    monkeypatch.chdir(tmp_path)
    asked = ("--recording", small_recording, "--router", "word_router.py", "single:reader")

    def harness(*arguments: object) -> str:
        assert call(monkeypatch, *arguments) == 0, capsys.readouterr().err
        return str(capsys.readouterr().out)

    options = ("--router-args", "word_router.py:smoothing=5", "--baselines", "no")
    assert "word_router.py" not in harness("run", *asked, *options, "--out", "run")
    found = load_run(tmp_path / "run")
    assert found.asked == [registered, "single:reader"] and list(found.routers) == found.asked
    assert found.manifest.arguments.router == ("word_router.py", "single:reader")  # by which it is run again
    saved = read_checkpoint(tmp_path / "run" / f"{registered}.safetensors")
    assert (saved.header.router, saved.header.options["smoothing"]) == (registered, 5)
    harness("check", "--update", "--baseline", "b.json", "--run", "run")
    assert list(json.loads((tmp_path / "b.json").read_text())["routers"]) == found.asked
    assert "check passed" in harness("check", "--baseline", "b.json")
    assert "check passed" in harness("check", "--baseline", "b.json", "--run", "run")
    harness("stress", *asked[:4], "--only", "retired", "--processes", 1, "--out", "card")
    assert registered in json.loads((tmp_path / "card" / "stress.json").read_text())["routers"]
