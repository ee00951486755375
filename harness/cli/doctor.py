"""What is installed and works here, what would fail, and the command that fixes it."""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import platform
import re
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from packaging.requirements import Requirement
from rich.console import Console

from pools.errors import UserError
from pools.numbers import counted

if TYPE_CHECKING:
    from harness.cli.app import Doctor

ROOT = Path(__file__).parents[2]
NAME = "hierrouter-harness"
INSTALL = "pip install -c constraints.txt -e"
EXTRAS = {
    "serve": ("python -m harness serve", INSTALL),
    "ray": ("record --engine ray", INSTALL),
    "workspaces": ("report --wandb", INSTALL),
    "math": ("minerva_math500 of the suite paper", INSTALL),
    "vllm": ("models of lm-eval's type vllm", "pip install -e"),
}
"""The extras of the commands: what each is for, and how it is installed. vLLM names a version of torch of its own."""
SHOWN = ("lm-eval", "torch", "transformers", "numpy", "scikit-learn")
State = Literal["ok", "missing", "fails"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and how to fix it.

    missing: only what it is for fails. fails: `python -m harness run` fails, too, or whatever uses it.
    needed: whether `run` without options takes it.
    """

    what: str
    state: State
    said: str
    fix: str = ""
    needed: bool = False


def doctor(options: Doctor, console: Console) -> bool:
    """Print what was found, a line each; whether `python -m harness run` works."""
    if not 0 <= options.patience <= 600:
        raise UserError(f"--patience {options.patience:g}: expected seconds from 0, which asks no hub, to 600")
    found = list(examine(options.weights, options.patience))
    for f in found:  # no table: a command has to stay whole
        line = f"{f.state:7}  {f.what}: {f.said}" + (f"; {f.fix}" if f.fix else "")
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    broken = [f.what for f in found if f.needed and f.state != "ok"]
    verdict = f"python -m harness run fails: see {', '.join(broken)}" if broken else "python -m harness run works"
    console.print(verdict, highlight=False, markup=False, soft_wrap=True)
    return not broken


def examine(weights: Path | None, patience: float) -> Iterator[Finding]:
    """Everything that is looked at. Without the packages that are needed only these are."""
    yield Finding("Python", "ok", platform.python_version(), needed=True)
    packages = installed()
    yield packages
    yield from extras()
    if packages.state != "ok":
        return
    yield sandbox()
    yield hub(patience)
    yield tracking()
    yield folder()
    yield from recordings()
    yield from policies()
    yield from models(weights)


def installed() -> Finding:
    """The packages that the project depends on, in the versions that it takes."""
    needed, _ = requirements()
    lacking = sorted({text for one in needed if _applies(one, "") for text in missing(one)})
    if lacking:
        return Finding("packages", "fails", f"not installed: {', '.join(lacking)}", f"{INSTALL} .", needed=True)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN)
    return Finding("packages", "ok", f"all {len(needed)}, {versions}", needed=True)


def extras() -> Iterator[Finding]:
    """The packages that only some commands take."""
    _, optional = requirements()
    for name, (purpose, install) in EXTRAS.items():
        lacking = sorted({text for one in optional.get(name, []) for text in missing(one)})
        if lacking:
            said = f"for {purpose}; not installed: {', '.join(lacking)}"
            yield Finding(f"extra {name}", "missing", said, f"{install} '.[{name}]'")
        else:
            yield Finding(f"extra {name}", "ok", f"for {purpose}")


def requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What the project needs, and what its extras do: by this checkout, or as it was installed."""
    path = ROOT / "pyproject.toml"
    if path.is_file():
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        optional = project.get("optional-dependencies", {})
        return [*map(Requirement, project["dependencies"])], {e: [*map(Requirement, optional[e])] for e in optional}
    asked = [*map(Requirement, importlib.metadata.requires(NAME) or ())]
    needed = [one for one in asked if _applies(one, "")]
    return needed, {e: [one for one in asked if one not in needed and _applies(one, e)] for e in EXTRAS}


def _applies(requirement: Requirement, extra: str) -> bool:
    """Whether a package's requirement holds here, with one of its extras or with none."""
    return requirement.marker is None or bool(requirement.marker.evaluate({"extra": extra}))


def missing(requirement: Requirement) -> Iterator[str]:
    """What is not installed of a package and of its extras, or in another version than is asked for."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        yield requirement.name
        return
    if not requirement.specifier.contains(version, prereleases=True):
        yield f"{requirement.name}{requirement.specifier} (here is {version})"
    for extra in requirement.extras:
        for other in map(Requirement, importlib.metadata.requires(requirement.name) or ()):
            if _applies(other, extra) and not _applies(other, ""):
                yield from missing(other)


def sandbox() -> Finding:
    """The isolation of programs that models write."""
    from tasks.code.sandbox.session import ISOLATION_VARIABLE, Isolation, SandboxUnavailable, Session

    wanted = os.environ.get(ISOLATION_VARIABLE, "auto")
    tried = get_args(Isolation) if wanted == "auto" else (wanted,)
    if not set(tried) <= set(get_args(Isolation)):
        said = f"{ISOLATION_VARIABLE}={wanted}: expected auto, {', '.join(get_args(Isolation))}"
        return Finding("sandbox", "fails", said, f"unset {ISOLATION_VARIABLE}")
    reasons = []
    for isolation in tried:
        try:
            Session(isolation=isolation).close()
        except SandboxUnavailable as error:
            reasons.append(str(error))
            continue
        by = "" if wanted == "auto" else f", as {ISOLATION_VARIABLE} asks"
        if isolation != "rlimits" or wanted == "rlimits":
            return Finding("sandbox", "ok", f"{isolation}{by}")
        said = f"rlimits alone, for models that you trust ({'; '.join(reasons)})"
        return Finding("sandbox", "missing", said, "docs/reference/sandbox.md; apt install bubblewrap")
    fix = f"unset {ISOLATION_VARIABLE}" if wanted != "auto" else "docs/reference/sandbox.md"
    return Finding("sandbox", "fails", "; ".join(reasons), fix)


def hub(patience: float) -> Finding:
    """Whether the Hugging Face hub answers within so many seconds."""
    if offline := next((n for n in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE") if _set(n)), None):
        said = f"not asked, {offline} is set; what is in the cache is used"
        return Finding("hub", "missing", said, f"unset {offline} to download models and data")
    if not patience:
        return Finding("hub", "missing", "not asked", "--patience 3 asks it")
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    answers: list[int | str] = []  # a status, or why there is none

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=patience) as reply:
                answers.append(reply.status)
        except urllib.error.HTTPError as error:
            answers.append(error.code)
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.append(str(getattr(error, "reason", error)))

    # In a thread: looking up a name has no limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    answer = answers[0] if answers else f"no answer within {patience:g} seconds"
    if isinstance(answer, int) and 200 <= answer < 400:
        return Finding("hub", "ok", f"{address} answers")
    said = f"HTTP {answer}" if isinstance(answer, int) else answer
    return Finding("hub", "missing", f"{address}: {said}", "check the network, HF_ENDPOINT and the proxy's variables")


def _set(name: str) -> bool:
    """As huggingface_hub reads a variable."""
    return os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}


def tracking() -> Finding:
    """Whether `--track` finds a login of wandb."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        return Finding("wandb", "ok", f"WANDB_MODE={mode}")
    host = re.sub("^https?://|/.*", "", os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    try:
        known = host in netrc().hosts
    except (OSError, NetrcParseError):
        known = False
    if known or os.environ.get("WANDB_API_KEY"):
        return Finding("wandb", "ok", f"a login for {host}")
    return Finding("wandb", "missing", "no login, for --track", "wandb login, or WANDB_MODE=offline")


def folder() -> Finding:
    """Whether a run can be written where it is by default."""
    runs = Path("runs")
    place = runs if runs.exists() else Path.cwd()
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("runs/", "ok", "can be written", needed=True)
    return Finding("runs/", "fails", f"{place} cannot be written", "cd to another folder, or --out DIR", needed=True)


def recordings() -> Iterator[Finding]:
    """The recordings that ship, by their checksums."""
    from harness.runs import source
    from pools.data.recording import check_recording

    usual = source.recording_folder(source.DEFAULT_POOL, source.DEFAULT_SUITE)
    others = (source.RESULTS / "recordings").glob("*")
    for path in dict.fromkeys([usual, *sorted(others)]):
        what, needed = f"recording {path.name}", path == usual
        try:
            pool = check_recording(path).pool
        except UserError as error:
            yield Finding(what, "fails", str(error), _restoring(path), needed)
            continue
        said = f"whole, {counted(len(pool['models']), 'model')}"
        yield Finding(what, "ok", said, needed=needed)


def policies() -> Iterator[Finding]:
    """The trained routers that ship, by their checksums, and whether they are of the recordings that do."""
    from harness.runs import source
    from harness.runs.checkpoints import FOLDER
    from pools.data.recording import check_recording
    from routers.checkpoint import read_checkpoint

    for path in sorted(FOLDER.glob("*/*.safetensors")):
        what, recording = f"policy {path.stem}", path.parent.name
        # Of the policies, `run` takes this one.
        needed = (recording, path.stem) == (f"{source.DEFAULT_POOL}-{source.DEFAULT_SUITE}", "hierrouter-1")
        try:
            learnt_from = read_checkpoint(path).header.training.get("source", {})
        except UserError as error:
            yield Finding(what, "fails", str(error), _restoring(path), needed)
            continue
        try:
            same = learnt_from.get("sha256") == check_recording(source.RESULTS / "recordings" / recording).sha256
        except UserError:
            same = False
        if same:
            yield Finding(what, "ok", f"whole, of {recording}", needed=needed)
        else:
            said = f"was not trained on the recording {recording} that is here, so run trains one"
            yield Finding(what, "missing", said, _restoring(path))


def models(weights: Path | None) -> Iterator[Finding]:
    """The weights of the models of the usual pool, which `--live`, `record`, `verify` and `serve` load."""
    from harness.runs.source import DEFAULT_POOL
    from pools.pool import load_pool
    from pools.weights import check_recipe, fetching, find_here

    pool = load_pool(DEFAULT_POOL)
    whole: list[str] = []
    for model in pool.models:
        assert model.weights is not None
        path = find_here(model.weights, pool.folder, weights)
        if path is None:
            said = "its weights are not here, for --live, record, verify and serve"
            yield Finding(f"model {model.name}", "missing", said, fetching(model.weights))
            continue
        try:
            check_recipe(path, f"model {model.name}")
        except UserError as error:
            yield Finding(f"model {model.name}", "fails", str(error), _restoring(path))
            continue
        whole.append(model.name)
    yield Finding(f"models of {pool.name}", "ok", f"here: {', '.join(whole) or 'none'}")


def _restoring(path: Path) -> str:
    """How to get back what ships."""
    if (ROOT / ".git").exists() and path.is_relative_to(ROOT):
        return f"git checkout -- {path.relative_to(ROOT)}"
    return "install the project again"
