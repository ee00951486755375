"""The router of docs/routers.md, installed as a package of its own: what an installer leaves, no more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def installed(site: Path) -> None:
    """Put the page's module and its entry points into a folder for packages."""
    text = (ROOT / "docs" / "routers.md").read_text(encoding="utf-8")
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
