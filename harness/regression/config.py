"""What `compare` and `check` take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Compare:
    """Compare finished runs item by item: quality and cost with paired 95% intervals, overall and per task."""

    runs: tuple[Path, ...]
    """Folders that run wrote. Each is compared with the first; with --against, the routers inside each."""
    router: tuple[str, ...] = ()
    """Only these routers; by default all that both runs have."""
    against: str | None = None
    """Compare every router with this one of the same run."""
    out: Path | None = None
    """File to write to: Markdown (.md), CSV (.csv) or JSON (.json)."""
    force: bool = False
    """Replace the file of --out."""
    seed: int = 1
    """Seed of the bootstrap and of the sign-flip test."""


@dataclass(frozen=True)
class Check:
    """Fail if routers have become worse than a baseline: quality fell, or cost or p95 rose, overall or on a task.

    What to run is in the baseline. The exit code is 1 if a paired 95% interval excludes that nothing is worse, and 2
    if there is nothing to compare. With --update the baseline is made, or made again.
    """

    baseline: Path | None = None
    """Baseline file; by default the shipped one, of pool lightweight and suite offline."""
    run: Path | None = None
    """Check this finished run instead of running. With --update: run again what it was asked for."""
    junit: Path | None = None
    """Also write a report as JUnit XML."""
    tolerance_quality: float = 0.0
    """Fall in quality that is tolerated, in [0, 1]."""
    tolerance_cost: float = 0.0
    """Rise in cost that is tolerated, as a share of the baseline's: 0.05 is 5%."""
    tolerance_latency: float = 0.0
    """Rise in the p95 of seconds that is tolerated, as a share of the baseline's; where the recording holds latency."""
    correction: Literal["none", "holm"] = "none"
    """holm: call worse only what stays so if all figures are allowed for (Holm, 1979), so that a false alarm has a
    probability of at most 2.5% whatever their number."""
    update: bool = False
    """Run and write the baseline. The flags below say what it runs; what is not given stays as it is in the file."""
    router_args: tuple[str, ...] = ()
    """With --update: options of the routers, as run takes them."""
    router: tuple[str, ...] = ()
    """With --update: the routers. The defaults of a new file are those of run, without run's own baselines."""
    pool: str | None = None
    """With --update: the pool."""
    suite: str | None = None
    """With --update: the suite."""
    task: tuple[str, ...] = ()
    """With --update: only these tasks."""
    recording: Path | None = None
    """The recording to replay, in place of the baseline's; with --update it is kept."""
    limit: int | None = None
    """With --update: only the first so many documents of each task."""
    split: Literal["train", "validation", "test", "all"] | None = None
    """With --update: which items."""
    max_hops: int | None = None
    """With --update: horizon L."""
    allow_stop: bool | None = None
    """With --update: False is run's --no-allow-stop, True its --allow-stop."""
    preset: Literal["default", "paper"] | None = None
    """With --update: paper, HierRouter as the paper has it."""
    cost: str | None = None
    """With --update: the cost model."""
    cost_weight: tuple[float, ...] = ()
    """With --update: the lambda, or several as run takes them; figures are checked at the first."""
    latency_weight: float | None = None
    """With --update: the latency weight."""
    encoder: str | None = None
    """With --update: the encoder of the routers that learn."""
    checkpoint: Path | None = None
    """A trained router, in place of the baseline's; with --update it is kept."""
    seed: int | None = None
    """With --update: the seed."""
    weights: Path | None = None
    """Folder of model weights, for the sentence encoder."""
