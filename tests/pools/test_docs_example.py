"""The pool of docs/guides/pools.md, used as the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_pool_is_a_short_file(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "guides" / "pools.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    command = re.search(r"^    python (-m harness run .*)$", text, re.MULTILINE)
    assert found is not None and command is not None
    assert found[1].count("\n") < 15
    (tmp_path / "two-specialists.yaml").write_text(found[1], encoding="utf-8")
    (tmp_path / "results").symlink_to(ROOT / "results")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [*command[1].split(), "--split", "all", "--out", "run", "--store", "s.sqlite"]
    subprocess.run([sys.executable, *words], env=environment, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    rows = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["routers"]
    assert rows["single:qa"]["overall"]["quality"] > 0.9
    assert rows["random"]["overall"]["quality"] < rows["single:qa"]["overall"]["quality"]
