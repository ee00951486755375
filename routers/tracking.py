"""Where wandb keeps a run, and how one is begun and given a checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from pools.errors import UserError, shown
from pools.secrets import clean

PROJECT = "hierrouter-harness"
LOG_IN = "wandb login, or WANDB_MODE=offline"
LONGEST = 128  # characters that wandb takes of a name, of a project's, of a group's and of an artifact's
LONGEST_TAG = 64
NOT_IN_PROJECTS = "/\\#?%:"


@dataclass(frozen=True)
class Tracking:
    """Where a run is logged. entity: the team. group, name: by default what the command calls it."""

    project: str = PROJECT
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()


class Asked(Protocol):
    """The options that say whether and where to log: `--track` and `--wandb-...`."""

    @property
    def track(self) -> bool:
        """Whether to log."""
        ...


def tracking_asked(options: Asked) -> Tracking | None:
    """Where to log, if it is asked for.

    Raises UserError if only where is said, for what wandb does not take, and if there is no login.
    """
    given = {field.name: getattr(options, f"wandb_{field.name}") for field in fields(Tracking)}
    given = {name: value for name, value in given.items() if value not in (None, ())}
    if options.track:
        tracking = Tracking(**given)
        _check_names(tracking)
        if not way_to_wandb():
            raise UserError(f"--track: wandb has no login here; {LOG_IN}")
        return tracking
    if given:
        raise UserError(f"--wandb-{next(iter(given))} says where --track logs to; add --track, or leave it out")
    return None


def way_to_wandb() -> str:
    """What `--track` goes by, WANDB_MODE or a login; empty without either. No server is asked."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        return f"WANDB_MODE={mode}"
    import wandb

    try:
        if (mode := wandb.setup().settings.mode) != "online":  # of its file of settings: `wandb offline`
            return f"its mode {mode}"
        return "a login" if wandb.login(prompt=False, verify=False) else ""
    except wandb.errors.Error:  # a key that can be none
        return ""


def _check_names(tracking: Tracking) -> None:
    """Raise UserError for a project or a tag at which wandb would fail, after all the work."""
    project = tracking.project
    if not 0 < len(project) <= LONGEST or set(project) & set(NOT_IN_PROJECTS):
        raise UserError(
            f"--wandb-project {shown(project)}: expected 1 to {LONGEST} characters, none of {NOT_IN_PROJECTS}; "
            "the team is --wandb-entity"
        )
    wrong = next((tag for tag in tracking.tags if not 0 < len(tag) <= LONGEST_TAG), None)
    if wrong is not None:
        raise UserError(f"--wandb-tags: {shown(wrong)} has {len(wrong)} characters; expected 1 to {LONGEST_TAG}")


@contextmanager
def tracked(tracking: Tracking, kind: str, name: str, group: str | None, config: Mapping[str, Any]) -> Iterator[Any]:
    """A run of wandb, online, or offline with WANDB_MODE=offline; it ends with the block.

    kind: wandb's job type. name, group: unless the user gives others. config: its settings,
    which the UI filters and groups by.
    Raises UserError if wandb takes no run or not what is logged, for want of a login or a connection.
    """
    import wandb

    try:
        try:
            run = wandb.init(
                project=tracking.project,
                entity=tracking.entity,
                job_type=kind,
                group=tracking.group or (group and group[-LONGEST:]),
                name=tracking.name or name[:LONGEST],
                tags=tracking.tags or None,
                config=dict(flat(config)),
            )
        except ValueError as error:  # a setting that it does not take
            raise wandb.errors.UsageError(str(error)) from error
        try:
            yield run
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish()
    except wandb.errors.Error as error:
        said = clean(" ".join(str(error).split()))[:200].rstrip(".")
        raise UserError(f"wandb did not take it: {said}; log in (wandb login), or set WANDB_MODE=offline") from None


def flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted keys, which the UI can filter and group by.

    A list of plain values is one text; a list of mappings goes by their `name`, if they have one, or number.
    """
    for key, value in tree.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}.")
        elif isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
            yield from flat({str(part.get("name", n)): part for n, part in enumerate(value)}, f"{path}.")
        else:
            yield path, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def log_checkpoint(run: Any, path: Path, name: str, about: Mapping[str, Any]) -> None:
    """Log a checkpoint as an artifact of type `model`; its versions are those of the same name."""
    import wandb

    artifact = wandb.Artifact(artifact_name(name), type="model", metadata=dict(about))
    artifact.add_file(str(path))
    run.log_artifact(artifact)


def artifact_name(text: str) -> str:
    """The text in the letters that wandb allows in an artifact's name."""
    return re.sub(r"[^\w.-]+", "-", text)[-LONGEST:]
