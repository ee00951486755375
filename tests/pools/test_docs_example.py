"""The pool of docs/guides/pools.md, used as the page says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.invented import records

ROOT = Path(__file__).parents[2]


def test_a_pool_is_a_short_file(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "guides" / "pools.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    command = re.search(r"^    python (-m harness run (?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert found is not None and command is not None
    assert found[1].count("\n") < 15
    (tmp_path / "two-registries.yaml").write_text(found[1], encoding="utf-8")
    (tmp_path / "results").symlink_to(ROOT / "results")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [*shlex.split(command[1].replace("\\\n", " ")), "--split", "all", "--out", "run", "--store", "s.sqlite"]
    subprocess.run([sys.executable, *words], env=environment, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    rows = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["routers"]
    # It knows the people of its registry, and nobody else.
    known = np.mean([person.registry == "east" for person in records.people()[:20]])
    assert rows["single:east"]["overall"]["quality"] == pytest.approx(known, abs=0.1)
    assert set(rows) >= {"single:east", "random"}
