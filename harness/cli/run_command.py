"""The command `run`: a run, and what `--track` logs of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.runs.run import run as run_alone
from routers.tracking import tracking_asked

if TYPE_CHECKING:
    from harness.runs.config import Run


def run(options: Run, console: Console) -> Path:
    """Evaluate, print, write the run's folder, and log it if that is asked for; where the folder is."""
    tracking = tracking_asked(options)
    if tracking is None:
        return run_alone(options, console)
    curves: dict[str, list[tuple[int, Mapping[str, float]]]] = defaultdict(list)
    out = run_alone(options, console, lambda name, step, figures: curves[name].append((step, figures)))
    from harness.report.wandb_run import track
    from harness.runs.folder import load_run

    track(load_run(out), tracking, curves)
    return out
