"""Evaluate, train and record routers of language models: the Python API.

    import harness

    evaluation = harness.evaluate(["hierrouter", "knn"])
    print(evaluation.summary.routers["hierrouter"].overall.quality)

Each function takes what the command of its name takes, prints nothing, and raises `harness.UserError` for bad input.
`RoutedLM` is a model of lm-eval (docs/guides/lm-eval.md).
docs/guides/python.md shows them at work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.neighbours import check_neighbours

if TYPE_CHECKING:
    from harness.recorder.record import record
    from harness.regression.compare import compare
    from harness.report.page import write_report
    from harness.robustness.stress import stress
    from harness.runs.folder import load_run
    from harness.runs.run import Evaluation, evaluate
    from harness.runs.train import train
    from harness.serving.lm import RoutedLM
    from harness.traffic.estimate import estimate
    from pools.errors import UserError

__all__ = [
    "Evaluation",
    "RoutedLM",
    "UserError",
    "compare",
    "estimate",
    "evaluate",
    "load_run",
    "record",
    "stress",
    "train",
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
    "load_run": "harness.runs.folder",
    "record": "harness.recorder.record",
    "stress": "harness.robustness.stress",
    "train": "harness.runs.train",
    "write_report": "harness.report.page",
}


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_neighbours()
    return getattr(import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return __all__
