"""lm-eval's own command line, with the model `routed`."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pools.errors import UserError
from tasks import registry

if TYPE_CHECKING:
    from harness.serving.config import LmEval

_OPTIONS = ("evaluate_config.py", "evaluator.py", "registry.py")
"""Files of lm-eval whose errors are of what was asked for: options, names of tasks and models."""
_MISSING = "Tasks not found: "


def lm_eval_command(options: LmEval, console: Console) -> None:
    """Run lm-eval. Raises UserError for what it says of its options; it prints and exits as it does by itself."""
    from lm_eval.__main__ import cli_evaluate

    import harness.serving.lm  # noqa: F401, registers the model

    given, sys.argv = sys.argv, ["lm-eval", *options.arguments]
    try:
        cli_evaluate()
    except ValueError as error:
        if Path(traceback.extract_tb(error.__traceback__)[-1].filename).name in _OPTIONS:
            raise UserError(f"lm-eval: {error}{_where_ours_are(str(error))}") from None
        raise
    finally:
        sys.argv = given


def _where_ours_are(error: str) -> str:
    """The end of an error on tasks that lm-eval does not know, if some of them are this project's."""
    missing = error.removeprefix(_MISSING).split(", ") if error.startswith(_MISSING) else []
    ours = [task for task in missing if task in registry.names()]
    return f"; this project has {', '.join(ours)}: add --include_path {registry.FOLDER}" if ours else ""
