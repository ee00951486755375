"""Every script in benchmarks/ can at least be started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# As where what the benchmarks compare to is not installed; the script is the first argument.
START = """
import runpy, sys
sys.modules["stable_baselines3"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# Those with options; the others take the names of files, and one of them needs a fuzzer that is not installed.
SCRIPTS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if "import tyro" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_is_answered(script: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-c", START, str(script), "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout and "--help" in done.stdout
