"""The main result of a run, in words, from its figures alone."""

from __future__ import annotations

import numpy as np

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
        attained += f" at a cost of {overall['cost']:.4g} {unit} per item ({_range(overall, 'cost')})"
    said = [f"On {run.summary['items']} items, {attained}."]
    if rival is not None and rival != name:
        theirs = run.routers[rival]["overall"]
        sentence = f"The best single model, {rival.removeprefix('single:')}, attains {theirs['quality']:.3f}"
        sentence += f" ({_range(theirs)})" + (f" at {theirs['cost']:.4g}" if unit else "")
        low, high = overall["value_ahead_interval"]
        ahead = Estimate(overall["value_ahead"], low, high)
        said.append(f"{sentence}; {_verdict(name, 'it', ahead, weight, unit)}.")
    if overall["gap_closed"] is not None and rival != name and not overall["bound"]:
        said.append(
            f"That is {overall['gap_closed']:.0%} of the way from that model to the exact optimum, "
            "which has seen every outcome and is a bound."
        )
    if PER_TASK in run.routers and name != PER_TASK and not overall["bound"]:
        theirs = run.routers[PER_TASK]["overall"]
        ahead = paired_value(run, name, PER_TASK)
        said.append(
            f"{PER_TASK}, which is told the task and looks at no item, attains {theirs['quality']:.3f} "
            f"({_range(theirs)}); {_verdict(name, PER_TASK, ahead, weight, unit)}."
        )
    if overall["collapsed_to"]:
        said.append(f"It sends almost every call to {overall['collapsed_to']}: it does not route.")
    if not overall["exact"]:
        said.append("Its choices were drawn once per item, so chance has a part in these figures.")
    return said


def paired_value(run: RunFolder, one: str, other: str) -> Estimate:
    """Value of one router minus that of another, paired over items, with its 95% bootstrap interval."""
    weight, costs = run.summary["cost_weight"], bool(run.summary["cost_unit"])

    def value(name: str) -> np.ndarray:
        rows = run.items[name]
        return np.array([row["quality"] - (weight * row["cost"] if costs else 0.0) for row in rows])

    return Bootstrap.draw(run.summary["items"], run.manifest["seed"]).mean(value(one) - value(other))


def _verdict(name: str, other: str, ahead: Estimate, weight: float, unit: str) -> str:
    what = f"value (quality - {weight:g} × cost)" if unit else "quality"
    amount = f"by {abs(ahead.mean):.3f} (95% interval of the difference {ahead.low:.3f} to {ahead.high:.3f}, paired)"
    if ahead.low > 0:
        return f"{name} is ahead of {other} in {what} {amount}"
    if ahead.high < 0:
        return f"{name} is behind {other} in {what} {amount}"
    order = "ahead" if ahead.mean >= 0 else "behind"
    return (
        f"{name} comes out {order} of {other} in {what} {amount}, which holds 0: these items do not tell the two apart"
    )


def _range(figures: dict, key: str = "quality") -> str:  # type: ignore[type-arg]
    low, high = figures[f"{key}_interval"]
    return f"{low:.3f} to {high:.3f}" if key == "quality" else f"{low:.4g} to {high:.4g}"
