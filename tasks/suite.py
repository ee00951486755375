"""A suite: tasks that are run together, declared in a YAML file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pools.errors import UserError
from pools.names import check_distinct, check_name
from pools.schema import WRITTEN, from_plain
from pools.yaml_file import read_yaml
from tasks import registry
from tasks.task import Task

FOLDER = Path(__file__).parent / "suites"
Domain = Literal["qa", "code", "math"]


@dataclass(frozen=True, config=WRITTEN)
class SuiteTask:
    """One task of a suite.

    domain: which of the paper's three kinds of question. metric, filter: what counts as the score, by default the
    task's first of each. limit: only the first so many documents.
    """

    name: str
    domain: Domain
    metric: str | None = None
    filter: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None

    def load(self) -> Task:
        """The task itself; raises UserError if its data or a package it needs cannot be had."""
        return registry.get(self.name, self.metric, self.filter, self.limit)


@dataclass(frozen=True, config=WRITTEN)
class Suite:
    """Tasks that are run together, in the order of the file. version: goes up if its tasks change."""

    name: str
    tasks: Annotated[tuple[SuiteTask, ...], Field(min_length=1)]
    description: str = ""
    version: Annotated[int, Field(ge=1)] = 1


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
    where = f"suite file {path}"
    suite = from_plain(Suite, read_yaml(path, "suite"), where)
    check_name(suite.name, f"{where}: name")
    check_distinct([task.name for task in suite.tasks], f"{where}: task")
    for task in suite.tasks:
        try:
            registry.check(task.name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    return suite
