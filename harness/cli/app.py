"""The command line. Nothing heavy is imported before a command is known, so that `--help` answers at once."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Literal

import tyro

from harness.recorder.config import Import, Record, Verify
from harness.regression.config import Check, Compare
from harness.report.config import Report
from harness.runs.config import Run, Train
from harness.serving.config import Serve
from pools.errors import UserError
from pools.numbers import number_arguments


@dataclass(frozen=True)
class List:
    """List what can be named on the command line."""

    what: Annotated[Literal["routers", "models", "tasks", "suites", "pools"], tyro.conf.Positional]
    """What to list."""
    name: Annotated[str | None, tyro.conf.Positional] = None
    """With routers: one of them, whose options are listed."""
    pool: str = "lightweight"
    """The pool whose models are listed."""


Command = (
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Record, tyro.conf.subcommand("record")]
    | Annotated[Import, tyro.conf.subcommand("import"), tyro.conf.PositionalRequiredArgs]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Compare, tyro.conf.subcommand("compare"), tyro.conf.PositionalRequiredArgs]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Report, tyro.conf.subcommand("report"), tyro.conf.PositionalRequiredArgs]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[List, tyro.conf.subcommand("list")]
)


def parse(arguments: list[str]) -> Command:
    """The command that the arguments ask for; exits with code 2 on arguments that make none."""
    if arguments == ["--version"]:
        print(f"harness {version('hierrouter-harness')}")
        sys.exit(0)
    named = [argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")]
    if twice := next((name for name in named if named.count(name) > 1), None):
        # Of two, the parser would take the last.
        raise UserError(f"{twice} is given twice; give it once, where it takes several with all of them behind it")
    _check_not_empty(arguments)
    command = tyro.cli(
        Command,
        prog="harness",
        description="Train, replay and compare routers of language models.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
        registry=number_arguments(),
    )
    for name, given in vars(command).items():
        flag = f"--{name.replace('_', '-')}"
        if given == () and flag in named:
            raise UserError(f"{flag} is given without a value; give at least one, or omit it to use the default")
    return command


def _check_not_empty(arguments: list[str]) -> None:
    """Raise UserError for an empty argument: a variable that is not set in a script, and no default that is meant."""
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        of_flag = flag.startswith("--") and equals
        if not (value if of_flag else argument).strip():
            before = [flag] if of_flag else [word for word in arguments[:place] if word.startswith("--")]
            name = before[-1] if before else "an argument"
            raise UserError(f"{name} is given an empty value; give it one, or omit it to use the default")


def execute(command: Command) -> None:
    """Run the command."""
    from rich.console import Console

    # A pipe or a log has no width of its own; the tables need this much.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    if isinstance(command, List):
        from harness.cli.listing import show

        show(command.what, command.name, command.pool, console)
    elif isinstance(command, Record):
        from harness.recorder.record import record_command

        console.print(f"recording written to {record_command(command, console)}", highlight=False)
    elif isinstance(command, Import):
        from harness.recorder.import_table import import_outcomes

        console.print(f"recording written to {import_outcomes(command, console)}", highlight=False)
    elif isinstance(command, Verify):
        from harness.recorder.verify import verify

        if not verify(command, console):
            sys.exit(1)
    elif isinstance(command, Compare):
        from harness.regression.compare import compare_command

        compare_command(command, console)
    elif isinstance(command, Check):
        from harness.regression.check import check

        if not check(command, console):
            sys.exit(1)
    elif isinstance(command, Report):
        from harness.report.page import report

        report(command, console)
    elif isinstance(command, Serve):
        from harness.serving.server import serve

        serve(command, console)
    elif isinstance(command, Train):
        from harness.runs.train import train_command

        console.print(f"checkpoint written to {train_command(command, console)}", highlight=False)
    else:
        from harness.runs.run import run

        run(command, console)
