"""The main result of a run, in words, from its figures alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.metrics import Bootstrap, Estimate, sign_flip_p
from harness.runs.folder import RunFolder

PER_TASK = "best-pipeline-per-task"


def main_result(run: RunFolder) -> list[str]:
    """Sentences on the first router that the run was asked for: what it attains, and how surely."""
    name = run.asked[0]
    overall, weight, unit = run.routers[name].overall, run.summary.cost_weight, run.summary.cost_unit
    rival = run.summary.best_single
    attained = f"{name} attains a quality of {overall.quality:.3f} (95% interval {_scores(overall.quality_interval)})"
    if overall.cost_interval is not None:
        attained += f" at a cost of {overall.cost:.3g} {unit} per item ({_costs(overall.cost_interval)})"
    said = [f"On {run.summary.items} items, {attained}."]
    verdict = _Verdict(name, weight if unit else 0.0, run.summary.items)
    if rival is not None and rival != name:
        theirs = run.routers[rival].overall
        sentence = f"The best single model, {rival.removeprefix('single:')}, attains {theirs.quality:.3f}"
        sentence += f" ({_scores(theirs.quality_interval)})" + (f" at {theirs.cost:.3g}" if unit else "")
        said.append(f"{sentence}; {verdict.on('that model', paired_value(run, name, rival))}.")
    if overall.gap_closed is not None and rival != name and not overall.bound:
        said.append(
            f"In value {name} is {overall.gap_closed:z.0%} of the way from there to the exact optimum, "
            "which has seen every outcome and is a bound."
        )
    if PER_TASK in run.routers and name != PER_TASK and not overall.bound:
        theirs = run.routers[PER_TASK].overall
        said.append(
            f"{PER_TASK}, which is told the task and looks at no item, attains {theirs.quality:.3f} "
            f"({_scores(theirs.quality_interval)}); {verdict.on(PER_TASK, paired_value(run, name, PER_TASK))}."
        )
    if overall.collapsed_to:
        said.append(f"It sends almost every call to {overall.collapsed_to}: it does not route.")
    if not overall.exact:
        said.append("Its choices were drawn once per item, so chance has a part in these figures.")
    return said


@dataclass(frozen=True)
class Ahead:
    """How far one router's value is ahead of another's, paired over items. p: of the sign-flip test."""

    value: Estimate
    p: float


def paired_value(run: RunFolder, one: str, other: str) -> Ahead:
    """Value of one router minus that of another, with its 95% bootstrap interval and its p."""
    weight = run.summary.cost_weight

    def value(name: str) -> NDArray[np.float64]:
        rows = run.rows[name]
        return np.array([row.quality - weight * (row.cost or 0.0) for row in rows])

    difference, seed = value(one) - value(other), run.manifest.seed
    return Ahead(Bootstrap.draw(run.summary.items, seed).mean(difference), sign_flip_p(difference, seed))


@dataclass(frozen=True)
class _Verdict:
    """Says whether a router is ahead of another, or whether the items cannot tell."""

    name: str
    weight: float
    items: int

    def on(self, other: str, ahead: Ahead) -> str:
        """One clause from the paired difference in value, its interval and its p: both have to tell the two apart."""
        what = f"value (quality − {self.weight:g} × cost)" if self.weight else "quality"
        found = ahead.value
        interval = f"95% interval {_signed(found.low)} to {_signed(found.high)}, paired over items"
        if not found.low <= 0 <= found.high and ahead.p <= 0.05:
            where = "ahead of" if found.mean > 0 else "behind"
            return f"{self.name} is {where} {other} by {abs(found.mean):.3f} in {what} ({interval})"
        return (
            f"{self.items} items do not tell {self.name} and {other} apart: "
            f"the difference in {what} is {_signed(found.mean)} ({interval}; sign-flip p = {ahead.p:.2f})"
        )


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def _scores(interval: tuple[float, float]) -> str:
    return "{:.3f} to {:.3f}".format(*interval)


def _costs(interval: tuple[float, float]) -> str:
    return "{:.3g} to {:.3g}".format(*interval)
