"""Evaluate, train and record routers of language models: the Python API.

    import harness

    evaluation = harness.evaluate(["hierrouter", "knn"])
    print(evaluation.summary.routers["hierrouter"].overall.quality)

Each function takes what its command takes, prints nothing, and raises `harness.UserError` for bad input.
`RoutedLM` is a model of lm-eval (docs/guides/lm-eval.md).
docs/guides/python.md shows them at work, and names the command of each.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - pip looks at it, a checkout on the path does not
    _said = f"harness needs Python 3.11 or later, and this is {sys.version.split()[0]}"
    if sys.argv[0] != "-m":
        raise ImportError(_said)
    print(f"harness: {_said}", file=sys.stderr)  # of `python -m harness`, which passes here first
    sys.exit(2)

if TYPE_CHECKING:
    from harness.recorder.import_table import import_table
    from harness.recorder.record import record
    from harness.regression.compare import compare
    from harness.report.page import plot, write_report
    from harness.robustness.stress import stress
    from harness.runs.folder import load_run
    from harness.runs.run import Evaluation, evaluate
    from harness.runs.source import load_recording
    from harness.runs.train import train
    from harness.serving.lm import RoutedLM
    from harness.tables.tree_text import tree_text
    from harness.traffic.estimate import estimate
    from pools.errors import UserError

__all__ = [
    "Evaluation",
    "RoutedLM",
    "UserError",
    "compare",
    "estimate",
    "evaluate",
    "import_table",
    "load_recording",
    "load_run",
    "plot",
    "record",
    "stress",
    "train",
    "tree_text",
    "write_report",
]

# Imported when they are first asked for: `python -m harness --help` passes here, too.
_FROM = {
    "Evaluation": "harness.runs.run",
    "RoutedLM": "harness.serving.lm",
    "UserError": "pools.errors",
    "compare": "harness.regression.compare",
    "estimate": "harness.traffic.estimate",
    "evaluate": "harness.runs.run",
    "import_table": "harness.recorder.import_table",
    "load_recording": "harness.runs.source",
    "load_run": "harness.runs.folder",
    "plot": "harness.report.page",
    "record": "harness.recorder.record",
    "stress": "harness.robustness.stress",
    "train": "harness.runs.train",
    "tree_text": "harness.tables.tree_text",
    "write_report": "harness.report.page",
}

NEIGHBOURS = ("pools", "routers", "tasks")
"""The packages that are installed beside this one, whose names others may use, too."""


def check_neighbours() -> None:
    """Raise ImportError, whose text is one line, if Python finds others of these names before ours.

    Imports nothing of theirs: what an error says of a name that is missing in a strange `tasks` helps nobody.
    """
    here = Path(__file__).resolve().parents[1]
    for name in NEIGHBOURS:
        spec = find_spec(name)
        places = [] if spec is None else [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
        if here / name / "__init__.py" not in [Path(place).resolve() for place in places if place]:
            found = f"finds {places[0]}" if places else "finds nothing"
            raise ImportError(
                f"`import {name}` {found} and not {here / name}, which belongs to harness: go to a folder without it "
                "(python -m looks in the current one first, the command `harness` does not), or rename or uninstall it"
            )


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_neighbours()
    return getattr(import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return __all__
