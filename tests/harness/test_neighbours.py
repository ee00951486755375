"""Another package of the name of one of ours, in the way: one line that says where it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["tasks.py", "pools/__init__.py"])
def other(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's own module or package, in the current folder."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / str(request.param)
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine = 1\n", encoding="utf-8")
    return path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)


def test_a_command_ends_with_one_line(other: Path, tmp_path: Path) -> None:
    done = python(tmp_path, "-m", "harness", "list", "pools")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("harness: `import ") and done.stderr.count("\n") == 1
    assert f"finds {other} and not {ROOT}" in done.stderr


def test_the_api_says_it_in_the_last_line(other: Path, tmp_path: Path) -> None:
    done = python(tmp_path, "-c", "import harness; harness.evaluate")
    assert done.returncode == 1 and f"finds {other}" in done.stderr.splitlines()[-1]


def test_a_folder_without_an_init_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "tasks").mkdir()
    assert python(tmp_path, "-m", "harness", "list", "suites").returncode == 0
