"""The main result of a run, in words, from its figures alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.metrics import Bootstrap
from harness.evaluation.paired import Change, paired_change
from harness.runs.folder import RunFolder

WHAT_BARS_ARE = {
    "best-pipeline": "the same pipeline for every item",
    "best-pipeline-per-task": "which is told the task and looks at no item",
    "best-pipeline-per-kind": "which is told task and kind and looks at no item",
    "query-only": "which reads the query and no answer",
}


def main_result(run: RunFolder) -> list[str]:
    """Sentences on the first router that the run was asked for: what it attains, and how surely."""
    name = run.asked[0]
    overall, unit = run.routers[name].overall, run.summary.cost_unit
    rival = run.summary.best_single
    attained = f"{name} attains a quality of {overall.quality:.3f} (95% interval {_scores(overall.quality_interval)})"
    if overall.cost_interval is not None:
        low, high = overall.cost_interval
        attained += f" at a cost of {overall.cost:.3g} {unit} per item ({low:.3g} to {high:.3g})"
    said = _within_limits(run, name)
    said.append(f"{'Without these limits' if said else f'On {run.summary.items} items'}, {attained}.")
    if rival is not None and rival != name:
        theirs = run.routers[rival].overall
        sentence = f"The best single model, {rival.removeprefix('single:')}, attains {theirs.quality:.3f}"
        sentence += f" ({_scores(theirs.quality_interval)})" + (f" at {theirs.cost:.3g}" if unit else "")
        said.append(f"{sentence}; {_verdict(run, name, rival, 'that model')}.")
    if overall.gap_closed is not None and rival != name and not overall.bound:
        said.append(
            f"In value {name} is {overall.gap_closed:z.0%} of the way from there to the exact optimum, "
            "which has seen every outcome and is a bound."
        )
    bar = run.summary.best_bar
    if bar is not None and bar not in (name, rival) and not overall.bound:
        theirs = run.routers[bar].overall
        what = WHAT_BARS_ARE.get(bar.partition(":")[0], "")
        said.append(
            f"The best bar, {bar}, {what}, attains {theirs.quality:.3f} "
            f"({_scores(theirs.quality_interval)}); {_verdict(run, name, bar, bar)}."
        )
    if overall.collapsed_to:
        said.append(f"It sends almost every call to {overall.collapsed_to}: it does not route.")
    if run.routers[name].seeds is not None:
        said.append("It is a mean over several trainings; these intervals are over items alone (the table has both).")
    if not overall.exact:
        said.append("Its choices were drawn once per item, so chance has a part in these figures.")
    return said


def _within_limits(run: RunFolder, name: str) -> list[str]:
    """What the router attains as it is set to the budget and the cap that the run was asked for."""
    within, unit = run.summary.budget, run.summary.cost_unit
    if within is None or (found := within.routers.get(name)) is None:
        return []
    limits = {"a budget": within.budget, "a cap": within.cap}
    of = f" {unit}" if within.resource == "cost" else " s"
    kept_to = " and ".join(f"{what} of {limit:g}{of} per item" for what, limit in limits.items() if limit is not None)
    spent = f" at a cost of {found.cost:.3g} {unit} per item" if unit else ""
    spent += "" if found.seconds is None else f" in {found.seconds:.3g} s per item"
    sentence = f"Within {kept_to}, on {run.summary.items} items, {name} attains a quality of {found.quality:.3f}"
    sentence += f" (95% interval {_scores(found.quality_interval)}){spent}"
    if found.met is not None:
        sentence += ", which meets the budget" if found.met else ", which is over the budget"
    if not found.meets_on_validation:
        sentence += " (no setting of it is within the budget on validation items)"
    if found.over_cap:
        sentence += f"; {found.over_cap:.1%} of the items are over the cap"
    compared = f"The exact optimum within the same limits attains {within.optimum.quality:.3f}"
    compared += f", the single models mixed with no skill {within.zero_router.quality:.3f}"
    return [f"{sentence}.", f"{compared}."]


def paired_value(run: RunFolder, one: str, other: str) -> Change:
    """Value of one router against that of another, paired over items."""
    of_cost, of_second = run.summary.cost_weight, run.summary.latency_weight

    def value(name: str) -> NDArray[np.float64]:
        rows = run.rows[name]
        return np.array([row.quality - of_cost * (row.cost or 0.0) - of_second * (row.seconds or 0.0) for row in rows])

    seed = run.manifest.seed
    return paired_change(value(other), value(one), Bootstrap.draw(run.summary.items, seed), seed)


def _verdict(run: RunFolder, name: str, other: str, called: str) -> str:
    """One clause on whether a router is ahead of another: interval and test both have to tell them apart."""
    found, summary = paired_value(run, name, other), run.summary
    formula = summary.value_formula.replace("-", "−").replace(" x ", " × ")
    what = "quality" if formula == "quality" else f"value ({formula})"
    interval = f"95% interval {_signed(found.low)} to {_signed(found.high)}, paired over items"
    if (found.risen or found.fallen) and found.p <= 0.05:
        where = "ahead of" if found.risen else "behind"
        return f"{name} is {where} {called} by {abs(found.difference):.3f} in {what} ({interval})"
    return (
        f"{summary.items} items do not tell {name} and {called} apart: "
        f"the difference in {what} is {_signed(found.difference)} ({interval}; sign-flip p = {found.p:.2f})"
    )


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def _scores(interval: tuple[float, float]) -> str:
    return "{:.3f} to {:.3f}".format(*interval)
