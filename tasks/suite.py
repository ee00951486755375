"""A suite: tasks that are run together, declared in a YAML file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from pools.errors import UserError
from pools.names import check_distinct, check_name
from pools.schema import WRITTEN, from_plain
from pools.yaml_file import read_yaml
from tasks import registry
from tasks.task import Task

FOLDER = Path(__file__).parent / "suites"
DEFAULT_SUITE = "offline"
LONGEST = 100
"""Characters of the name of a suite that is called after its tasks."""


@dataclass(frozen=True, config=WRITTEN)
class SuiteTask:
    """One task of a suite.

    name: of the registry, or of a task file of lm-eval. domain: what it is about, for readers. metric, filter: what
    counts as the score, by default the task's first of each. limit: only the first so many documents.
    """

    name: str
    domain: str | None = None
    metric: str | None = None
    filter: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, config=WRITTEN)
class Suite:
    """Tasks that are run together, in the order of the file.

    version: goes up if its tasks change. include_path: folder of further task files, whose tasks can be named.
    """

    name: str
    tasks: Annotated[tuple[SuiteTask, ...], Field(min_length=1)]
    description: str = ""
    version: Annotated[int, Field(ge=1)] = 1
    include_path: Path | None = None

    def load(self) -> list[Task]:
        """The tasks themselves; raises UserError if data or a package that they need cannot be had."""
        loaded = [registry.get(t.name, t.metric, t.filter, t.limit, self.include_path) for t in self.tasks]
        check_distinct([task.name for task in loaded], f"suite {self.name}: task")
        return loaded


def suite_names() -> list[str]:
    """The suites of this project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_suite(name_or_path: str, include_path: Path | None = None) -> Suite:
    """The suite of that name, or in that YAML file. Loads no task, but every task it names exists.

    Task files and `include_path` are relative to the suite's file; an `include_path` that is given here goes before it.
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
    beside = None if suite.include_path is None else path.parent / suite.include_path
    tasks = [
        replace(task, name=str(path.parent / task.name)) if registry.is_file(task.name) else task
        for task in suite.tasks
    ]
    suite = replace(suite, tasks=tuple(tasks), include_path=include_path or beside)
    try:
        for task in suite.tasks:
            registry.check(task.name, suite.include_path)
        check_distinct([registry.name_of(task.name) for task in suite.tasks], "task")
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return suite


def chosen_suite(suite: str | None, tasks: Sequence[str] = (), include_path: Path | None = None) -> Suite:
    """What is asked for: a suite, some tasks of it, or tasks without a suite.

    suite: by default `offline`; if `tasks` has one that is not in that, or another of the same name, the suite is the
    tasks alone and called after them. tasks: each by name or as a task file of lm-eval; by default all of the suite.
    Raises UserError for what is not there.
    """
    if suite is not None or not tasks:
        whole = load_suite(suite or DEFAULT_SUITE, include_path)
        of_suite = {registry.name_of(entry.name): entry for entry in whole.tasks}
        asked = [registry.name_of(task) for task in tasks] or [*of_suite]
        unknown = [name for name in asked if name not in of_suite]
        if unknown:
            raise UserError(
                f"unknown task {unknown[0]!r}: suite {whole.name} has {', '.join(of_suite)}; omit --suite to name any "
                "task"
            )
        return replace(whole, tasks=tuple(entry for name, entry in of_suite.items() if name in asked))
    files = [registry.check(task, include_path) for task in tasks]
    usual = load_suite(DEFAULT_SUITE)
    of_usual = {registry.check(entry.name): entry for entry in usual.tasks}
    if all(file in of_usual for file in files):
        return replace(usual, tasks=tuple(entry for file, entry in of_usual.items() if file in files))
    asked = [registry.name_of(task) for task in tasks]
    check_distinct(asked, "task")
    name = "+".join(asked)
    name = name if len(name) <= LONGEST else f"{asked[0]}+{len(asked) - 1}"
    return Suite(name, tuple(map(SuiteTask, tasks)), include_path=include_path)
