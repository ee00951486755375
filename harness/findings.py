"""The main result of a run, in words, from its figures alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics import Bootstrap, Estimate
from harness.run_folder import RunFolder

PER_TASK = "best-pipeline-per-task"


def main_result(run: RunFolder) -> list[str]:
    """Sentences on the first router that the run was asked for: what it attains, and how surely."""
    name = run.asked[0]
    overall, weight, unit = run.routers[name]["overall"], run.summary["cost_weight"], run.summary["cost_unit"]
    rival = run.best_single
    attained = f"{name} attains a quality of {overall['quality']:.3f} (95% interval {_range(overall)})"
    if unit:
        attained += f" at a cost of {overall['cost']:.3g} {unit} per item ({_range(overall, 'cost')})"
    said = [f"On {run.summary['items']} items, {attained}."]
    verdict = _Verdict(name, weight if unit else 0.0, run.summary["items"])
    if rival is not None and rival != name:
        theirs = run.routers[rival]["overall"]
        sentence = f"The best single model, {rival.removeprefix('single:')}, attains {theirs['quality']:.3f}"
        sentence += f" ({_range(theirs)})" + (f" at {theirs['cost']:.3g}" if unit else "")
        low, high = overall["value_ahead_interval"]
        ahead = Estimate(overall["value_ahead"], low, high)
        said.append(f"{sentence}; {verdict.on('that model', ahead)}.")
    if overall["gap_closed"] is not None and rival != name and not overall["bound"]:
        said.append(
            f"In value {name} is {overall['gap_closed']:z.0%} of the way from there to the exact optimum, "
            "which has seen every outcome and is a bound."
        )
    if PER_TASK in run.routers and name != PER_TASK and not overall["bound"]:
        theirs = run.routers[PER_TASK]["overall"]
        ahead = paired_value(run, name, PER_TASK)
        said.append(
            f"{PER_TASK}, which is told the task and looks at no item, attains {theirs['quality']:.3f} "
            f"({_range(theirs)}); {verdict.on(PER_TASK, ahead)}."
        )
    if overall["collapsed_to"]:
        said.append(f"It sends almost every call to {overall['collapsed_to']}: it does not route.")
    if not overall["exact"]:
        said.append("Its choices were drawn once per item, so chance has a part in these figures.")
    return said


def paired_value(run: RunFolder, one: str, other: str) -> Estimate:
    """Value of one router minus that of another, paired over items, with its 95% bootstrap interval."""
    weight, costs = run.summary["cost_weight"], bool(run.summary["cost_unit"])

    def value(name: str) -> NDArray[np.float64]:
        rows = run.items[name]
        return np.array([row["quality"] - (weight * row["cost"] if costs else 0.0) for row in rows])

    return Bootstrap.draw(run.summary["items"], run.manifest["seed"]).mean(value(one) - value(other))


@dataclass(frozen=True)
class _Verdict:
    """Says whether a router is ahead of another, or whether the items cannot tell."""

    name: str
    weight: float
    items: int

    def on(self, other: str, ahead: Estimate) -> str:
        """One clause from the paired difference in value and its interval."""
        what = f"value (quality − {self.weight:g} × cost)" if self.weight else "quality"
        interval = f"95% interval {_signed(ahead.low)} to {_signed(ahead.high)}, paired over items"
        if ahead.low > 0:
            return f"{self.name} is ahead of {other} by {ahead.mean:.3f} in {what} ({interval})"
        if ahead.high < 0:
            return f"{self.name} is behind {other} by {-ahead.mean:.3f} in {what} ({interval})"
        return (
            f"{self.items} items do not tell {self.name} and {other} apart: "
            f"the difference in {what} is {_signed(ahead.mean)} ({interval})"
        )


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def _range(figures: dict[str, Any], key: str = "quality") -> str:
    low, high = figures[f"{key}_interval"]
    return f"{low:.3f} to {high:.3f}" if key == "quality" else f"{low:.3g} to {high:.3g}"
