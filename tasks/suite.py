"""A suite: tasks that are run together, declared in a YAML file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pools.errors import UserError, shown
from pools.names import check_distinct, check_name
from pools.yaml_file import read_yaml
from tasks import registry
from tasks.task import Task

FOLDER = Path(__file__).parent / "suites"
Domain = Literal["qa", "code", "math"]


@dataclass(frozen=True)
class SuiteTask:
    """One task of a suite.

    domain: which of the paper's three kinds of question. metric, filter: what counts as the score, by default the
    task's first of each. limit: only the first so many documents.
    """

    name: str
    domain: Domain
    metric: str | None = None
    filter: str | None = None
    limit: int | None = None

    def load(self) -> Task:
        """The task itself; raises UserError where its data or a package it needs cannot be had."""
        return registry.get(self.name, self.metric, self.filter, self.limit)


@dataclass(frozen=True)
class Suite:
    """Tasks that are run together, in the order of the file."""

    name: str
    description: str
    tasks: tuple[SuiteTask, ...]


def suite_names() -> list[str]:
    """The suites of this project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_suite(name_or_path: str) -> Suite:
    """The suite of that name, or in that YAML file. Loads no task, but every task it names exists.

    Raises UserError, in one line: the file, what is wrong in it, what was expected.
    """
    path = FOLDER / f"{name_or_path}.yaml"
    if name_or_path not in suite_names():
        path = Path(name_or_path)
        if path.suffix not in (".yaml", ".yml"):
            close = difflib.get_close_matches(name_or_path, suite_names(), n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(
                f"unknown suite '{name_or_path}': {hint}expected {', '.join(suite_names())} or a path to a .yaml file"
            )
    return _parse(path)


def _parse(path: Path) -> Suite:
    declared = read_yaml(path, "suite")
    where = f"suite file {path}"
    fields = _fields(declared, {"name": str, "tasks": list}, {"description": str}, where)
    check_name(fields["name"], f"{where}: name")
    tasks = []
    for number, entry in enumerate(fields["tasks"], start=1):
        here = f"{where}: task {number}"
        task = _fields(entry, {"name": str, "domain": str}, {"metric": str, "filter": str, "limit": int}, here)
        if task["domain"] not in get_args(Domain):
            raise UserError(f"{here}: domain {shown(task['domain'])}, expected one of {', '.join(get_args(Domain))}")
        if task.get("limit", 1) < 1:
            raise UserError(f"{here}: limit {task['limit']}, expected at least 1")
        try:
            registry.check(task["name"])
        except UserError as error:
            raise UserError(f"{here}: {error}") from error
        tasks.append(SuiteTask(**task))
    if not tasks:
        raise UserError(f"{where}: no tasks, expected at least one")
    check_distinct([task.name for task in tasks], f"{where}: task")
    return Suite(fields["name"], fields.get("description", "").strip(), tuple(tasks))


def _fields(given: Any, needed: dict[str, type], optional: dict[str, type], where: str) -> dict[str, Any]:
    """The mapping itself, once its keys and the types of its values are known to be as expected."""
    known = needed | optional
    if not isinstance(given, dict):
        raise UserError(f"{where}: {type(given).__name__} {shown(given)}, expected the keys {', '.join(known)}")
    if unknown := [str(key) for key in given if key not in known]:
        raise UserError(f"{where}: unknown key {shown(unknown[0])}, expected {', '.join(known)}")
    if missing := [key for key in needed if key not in given]:
        raise UserError(f"{where}: no '{missing[0]}', expected {', '.join(needed)}")
    for key, value in given.items():
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise UserError(f"{where}: {key} is {shown(value)}, expected {known[key].__name__}")
    return given
