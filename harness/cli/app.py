"""The command line. Nothing heavy is imported before a command is known, so that `--help` answers at once."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Collection
from contextlib import redirect_stderr
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Annotated, Literal, Union

import tyro

from harness.recorder.config import Import, Record, Verify
from harness.regression.config import Check, Compare
from harness.report.config import Report
from harness.report.leaderboard.config import Leaderboard
from harness.robustness.config import Stress
from harness.runs.config import Run, Train
from harness.serving.config import LmEval, Serve
from harness.traffic.config import Estimate
from pools.errors import UserError, shown
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


@dataclass(frozen=True)
class Doctor:
    """Say what is installed, what works here and what would fail, each with the command that fixes it.

    The exit code is 0 if run works without options, else 1.
    """

    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub."""
    patience: float = 3.0
    """Seconds to wait for the hub; 0: do not ask it."""


# A command is named after what it takes. Of `A | B` tyro would import a type checker, for 40 ms of `--help`.
Command = Union[  # noqa: UP007
    Run,
    Train,
    Record,
    Import,
    Estimate,
    Verify,
    Compare,
    Check,
    Report,
    Leaderboard,
    Stress,
    Serve,
    LmEval,
    List,
    Doctor,
]
# The function that is called with what a command takes, and with a console. If it returns False, the exit
# code is 1.
COMMANDS: dict[type, str] = {
    Run: "harness.cli.run_command:run",
    Train: "harness.runs.train:train_command",
    Record: "harness.recorder.record:record_command",
    Import: "harness.recorder.import_table:import_command",
    Estimate: "harness.traffic.estimate:estimate_command",
    Verify: "harness.recorder.verify:verify",
    Compare: "harness.regression.compare:compare_command",
    Check: "harness.regression.check:check",
    Report: "harness.report.page:report",
    Leaderboard: "harness.report.leaderboard.page:leaderboard",
    Stress: "harness.robustness.stress:stress_command",
    Serve: "harness.serving.server:serve",
    LmEval: "harness.serving.lm_eval_command:lm_eval_command",
    List: "harness.cli.listing:show",
    Doctor: "harness.cli.doctor:doctor",
}
_WRITES = {Train: "checkpoint", Record: "recording", Import: "recording"}


def parse(arguments: list[str]) -> Command:
    """The command that the arguments ask for. Raises UserError for arguments that make none."""
    if arguments == ["--version"]:
        print(f"harness {version('hierrouter-harness')}")
        sys.exit(0)
    if arguments[:1] in (["lm-eval"], ["lm_eval"]):
        return LmEval(tuple(arguments[1:]))
    named = [argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")]
    if twice := next((name for name in named if named.count(name) > 1), None):
        # Of two, the parser would take the last.
        raise UserError(f"{twice} is given twice; give it once; if it takes several, all of them go behind it")
    _check_not_empty(arguments)
    _check_known(arguments)
    try:
        with redirect_stderr(io.StringIO()) as said:
            command: Command = tyro.cli(
                Command,
                prog="harness",
                description="Train, replay and compare routers of language models.",
                args=arguments,
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.PositionalRequiredArgs),
                registry=number_arguments(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_several(_unboxed(said.getvalue()), arguments)}; see {_help(arguments[0])}") from None
    for name, given in vars(command).items():
        flag = f"--{name.replace('_', '-')}"
        if given == () and flag in named:
            raise UserError(f"{flag} is given without a value; give at least one, or omit it to use the default")
    return command


def _check_not_empty(arguments: list[str]) -> None:
    """Raise UserError for an empty argument: a variable that is not set in a script, and no default that is meant."""
    flag = "an argument"
    for argument in arguments:
        name, equals, value = argument.partition("=")
        flag = name if name.startswith("--") else flag
        if not (value if name.startswith("--") and equals else argument).strip():
            raise UserError(f"{flag} is given an empty value; give it one, or omit it to use the default")


def _check_known(arguments: list[str]) -> None:
    """Raise UserError for a command that is none, and for an option that it has not: with the nearest that there is.

    The parser would show what all the other commands have instead.
    """
    commands = {re.sub("(?<!^)(?=[A-Z])", "-", kind.__name__).lower(): kind for kind in COMMANDS}
    name = next(iter(arguments), "")
    if name in ("-h", "--help"):
        return
    if name not in commands:
        nearest = _nearest(name, [*commands, "--help", "--version"])
        given = f"unknown command {shown(name)}{nearest}" if name else "no command"
        raise UserError(f"{given}: expected one of {', '.join(commands)}; see {_help()}")
    options, positional = {"--help"}, set()
    for field in fields(commands[name]):
        flag = field.name.replace("_", "-")
        # The annotation is a text in these modules; what has no default is positional, too.
        if "Positional" in str(field.type) or (field.default is MISSING and field.default_factory is MISSING):
            positional.add(f"--{flag}")
        else:
            options |= {f"--{flag}", f"--no-{flag}"} if isinstance(field.default, bool) else {f"--{flag}"}
    for argument in arguments[1:]:
        given = argument.partition("=")[0].replace("_", "-")
        if given.startswith("--") and given not in options:
            close = get_close_matches(given, options | positional, 1)
            instead = f": give its value without {close[0]}" if positional & {*close} else _nearest(given, options)
            raise UserError(f"{name} has no option {shown(given)}{instead}; see {_help(name)}")


def _nearest(given: str, known: Collection[str]) -> str:
    close = get_close_matches(given, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _help(command: str = "") -> str:
    return " ".join(["python -m harness", *([command] if command else []), "--help"])


def _unboxed(text: str) -> str:
    """What the parser says between a title and the next line across, in a box or without: as one line."""
    lines = [line.strip("\u2502\u2570\u256f ") for line in text.splitlines()[1:]]
    below_title = dropwhile(_across, lines)
    return " ".join(takewhile(lambda line: not _across(line), below_title)).rstrip(".")


def _several(text: str, arguments: list[str]) -> str:
    """What the parser says; of an option that takes several numbers, which it shows otherwise than given, in words."""
    found = re.match(r"Error parsing (--\S+): Could not find valid parse", text)
    if found is None:
        return text
    flag = found[1]
    place = next(n for n, given in enumerate(arguments) if given.replace("_", "-").partition("=")[0] == flag)
    given = [arguments[place], *takewhile(lambda each: not each.startswith("--"), arguments[place + 1 :])]
    return f"{' '.join(given)}: expected numbers in digits, with spaces between, as in 0 0.1 1"


def _across(line: str) -> bool:
    return set(line) <= {"\u2500", "-"}


def execute(command: Command) -> None:
    """Run the command."""
    from rich.console import Console

    # A pipe or a log has no width of its own; the tables need this much.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    module, _, function = COMMANDS[type(command)].partition(":")
    done = getattr(import_module(module), function)(command, console)
    if done is False:
        sys.exit(1)
    if what := _WRITES.get(type(command)):
        console.print(f"{what} written to {done}", highlight=False, markup=False, soft_wrap=True)
