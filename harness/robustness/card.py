"""The typed result of `stress`, from trials to cells with intervals and a line of words for each router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.evaluation.metrics import NOISE, SMALLEST_GAP, Bootstrap, told_apart
from harness.evaluation.summary import Interval
from harness.robustness.scenarios import AS_TRAINED, Scenario
from harness.robustness.trial import Trial
from harness.runs.manifest import Provenance
from pools.errors import UserError
from pools.files import finish_moving
from pools.schema import Schema, parse_json

FORMAT = 1
RESULT = "stress.json"
"""Its file in a folder."""
TOLD, NOT_TOLD = ", told", ", not told"
"""How the names of the columns of a price end."""
FloatArray = NDArray[np.float64]
LISTED = 3
"""Of the tasks that it loses on, so many are told one by one."""
ENOUGH = 0.9
"""Of the lead with all train items; the least share of them that keeps it is told in words."""


class Cell(Schema):
    """A router in one column: in one scenario, or in several of one kind, whose items are pooled."""

    question: str
    """Which question it belongs to."""
    name: str
    """Its column."""
    parts: tuple[str, ...]
    """What was left out, retired or repriced, each in turn; or which draw of items."""
    items: Annotated[int, Field(gt=0)]
    """Test items; an item that several scenarios have counts once, with its mean."""
    value: float
    """quality - cost_weight * cost."""
    ahead: float
    """`value` minus that of the single model that is best on what was known."""
    ahead_interval: Interval
    """95%, paired over items."""
    lost: float | None
    """The value on the same items of the router as trained minus `value`; of a price that is not told, that of the
    router that was told it. Null of a price that was told, where value means something else."""
    lost_interval: Interval | None
    """95%, paired over items."""
    flips: float | None
    """Share of items whose first decision changes; of wordings, and null of a vote."""
    worst: str | None
    """Of several parts the one with the least lead."""
    worst_ahead: float | None
    """The lead there."""
    how: tuple[str, ...]
    """Whether the router was trained anew, goes on without the model that is gone, or is as it is."""
    cannot: tuple[str, ...] = ()
    """The parts in which it cannot be had; they are left out of the figures."""


class RouterCard(Schema):
    """One router."""

    cells: tuple[Cell, ...]
    """In the order of the columns."""
    cannot: dict[str, str]
    """Scenarios in which it cannot be had, and why."""
    words: tuple[str, ...]
    """What it comes to, a clause for each question."""


class Card(Schema):
    """What `python -m harness stress` found; `stress.json` is this."""

    format: int
    """Of this file."""
    title: str
    """Which recording, how many items."""
    cost_unit: str
    """Of costs; empty if none were recorded."""
    cost_weight: float
    """The lambda of the reward."""
    seed: int
    """Of training, of what is drawn, and of the bootstrap."""
    omitted: tuple[str, ...] = ()
    """What cannot be asked of this recording, and why: a line for each."""
    asked: dict[str, Any] = Field(default_factory=dict)
    """The options that decide the figures."""
    routers: dict[str, RouterCard]
    """By name."""
    provenance: Provenance
    """How it was made."""


def read_card(folder: Path) -> Card:
    """The card in a folder. Raises UserError if it is damaged."""
    finish_moving(folder, RESULT)
    try:
        return parse_json(Card, (folder / RESULT).read_bytes())
    except ValueError as error:
        raise UserError(f"{folder / RESULT} is not what python -m harness stress writes: {error}") from None


def router_card(
    trials: Mapping[str, Trial], cannot: Mapping[str, str], made: Sequence[Scenario], items: int, seed: int
) -> RouterCard:
    """One router's cells. trials, cannot: by the scenario's key. items: number of test items in all."""
    if AS_TRAINED not in trials:
        return RouterCard(cells=(), cannot=dict(cannot), words=(f"cannot be had: {cannot[AS_TRAINED]}",))
    columns: dict[tuple[str, str], list[Scenario]] = {}
    for scenario in made:
        columns.setdefault((scenario.question, scenario.name), []).append(scenario)
    bootstraps: dict[int, Bootstrap] = {}
    cells = []
    for (question, name), every in columns.items():
        pooled = [scenario for scenario in every if scenario.key in trials]
        if not pooled:
            continue
        value, tested = _pooled(trials, pooled, "value", items)
        single, _ = _pooled(trials, pooled, "single", items)
        count = int(tested.sum())
        draws = bootstraps.setdefault(count, Bootstrap.draw(count, seed))
        ahead = draws.mean((value - single)[tested])
        before = _before(trials, pooled[0])
        lost = None if before is None else draws.mean((before - value)[tested])
        flips = None
        if question == "wording" and (trials[AS_TRAINED].first >= 0).all():
            flips = float((trials[AS_TRAINED].first != trials[pooled[0].key].first).mean())
        leads = {s.part: float((trials[s.key].value - trials[s.key].single).mean()) for s in pooled}
        worst = min(leads, key=leads.__getitem__) if len(pooled) > 1 else None
        cells.append(
            Cell(
                question=question, name=name, parts=tuple(s.part for s in pooled if s.part), items=count,
                value=float(value[tested].mean()), ahead=ahead.mean, ahead_interval=(ahead.low, ahead.high),
                lost=None if lost is None else lost.mean,
                lost_interval=None if lost is None else (lost.low, lost.high),
                flips=flips,
                worst=worst, worst_ahead=None if worst is None else leads[worst],
                how=tuple(dict.fromkeys(trials[s.key].how for s in pooled)),
                cannot=tuple(s.part for s in every if s.key not in trials),
            )
        )  # fmt: skip
    return RouterCard(cells=tuple(cells), cannot=dict(cannot), words=tuple(words(cells)))


def _pooled(
    trials: Mapping[str, Trial], pooled: Sequence[Scenario], figure: str, items: int
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """`[I]` the mean of a figure over the scenarios that test an item, and `[I]` whether any does."""
    total, count = np.zeros(items), np.zeros(items)
    for scenario in pooled:
        tested = np.arange(items) if scenario.tested is None else scenario.tested
        total[tested] += getattr(trials[scenario.key], figure)
        count[tested] += 1
    return total / np.maximum(count, 1), count > 0


def _before(trials: Mapping[str, Trial], scenario: Scenario) -> FloatArray | None:
    """`[I]` the value that a column's losses are from; None if they would be from another value."""
    if scenario.question == AS_TRAINED:
        return None
    if scenario.question != "prices":
        return trials[AS_TRAINED].value
    if not scenario.name.endswith(NOT_TOLD):
        return None
    told = trials.get(scenario.key.replace(NOT_TOLD, TOLD))
    return None if told is None else told.value


def words(cells: Sequence[Cell]) -> list[str]:
    """What the cells come to, a clause for each question that was asked."""
    of: dict[str, list[Cell]] = {}
    for cell in cells:
        of.setdefault(cell.question, []).append(cell)
    found = [f"as trained {_lead(of[AS_TRAINED][0])}"]
    if all(cell.ahead == 0 for cell in cells):
        needed = [model for cell in cells if cell.question == "retired" for model in cell.cannot]
        return ["one model, whatever changes", *([f"cannot be had without {_names(needed)}"] if needed else [])]
    if tasks := of.get("tasks"):
        behind = [cell.name for cell in tasks if cell.ahead_interval[1] < -NOISE and cell.ahead < -SMALLEST_GAP]
        ahead = [cell.name for cell in tasks if cell.ahead_interval[0] > NOISE and cell.ahead > SMALLEST_GAP]
        found.append(
            f"on a task that it never saw: ahead on {_names(ahead)}, behind on {_names(behind)}, of {len(tasks)}; "
            f"{_lost_on(tasks)}"
        )
    if kinds := of.get("kinds"):
        found.append(f"on a kind that it never saw {_lead(kinds[0])}")
    if shares := of.get("items"):
        whole = of[AS_TRAINED][0].ahead
        enough = next((cell.name for cell in shares if cell.ahead >= ENOUGH * whole > 0), None)
        found.append(
            f"{enough} of the train items keep {ENOUGH:.0%} of its lead"
            if enough
            else f"needs more than {shares[-1].name} of the train items for {ENOUGH:.0%} of its lead"
            if whole > 0
            else "has no lead that few items could keep"
        )
    if retired := of.get("retired"):
        how = "goes on" if "goes on" in retired[0].how else "is trained or chosen anew"
        gone, models = len(retired[0].cannot), len(retired[0].cannot) + len(retired[0].parts)
        without = f"; cannot be had without {gone} of {models} models" if gone else ""
        found.append(
            f"{how} if a model is retired: {_loss(retired[0])} on average beside itself as trained, and is "
            f"{_lead(retired[0])} that is left{without}"
        )
    if new := of.get("new"):
        found.append(f"a new model: {'; '.join(f'{cell.name} leave it {_lead(cell)}' for cell in new)}")
    if untold := [cell for cell in of.get("prices", []) if cell.name.endswith(NOT_TOLD) and cell.lost is not None]:
        worst = max(untold, key=lambda cell: cell.lost or 0.0)
        found.append(f"a price that it is not told: {_at_worst(worst, worst.name.removesuffix(NOT_TOLD))}")
    if wording := of.get("wording"):
        worst, flips = max(wording, key=lambda cell: cell.lost or 0.0), max(cell.flips or 0.0 for cell in wording)
        found.append(f"other words: {_at_worst(worst, worst.name)}, up to {flips:.0%} of first decisions flip")
    if seeds := of.get("seeds"):
        values = [of[AS_TRAINED][0].value, *(cell.value for cell in seeds)]
        found.append(f"{len(values)} seeds: {min(values):.3f} to {max(values):.3f}")
    return found


def _lead(cell: Cell) -> str:
    found = told_apart(cell.ahead, cell.ahead_interval)
    if found == "no":
        return "not told apart from the best single model"
    return f"{abs(cell.ahead):.3f} {'ahead of' if found == 'better' else 'behind'} the best single model"


def _loss(cell: Cell) -> str:
    """What is lost; said to be lost only if its interval says so."""
    found = told_apart(cell.lost, cell.lost_interval)
    if found == "no":
        return "no loss told apart"
    return f"{'loses' if found == 'better' else 'gains'} {abs(cell.lost or 0.0):.3f}"


def _lost_on(tasks: Sequence[Cell]) -> str:
    """The tasks that it loses the most on if it never saw them, beside what it attains as trained."""
    lost = [cell for cell in tasks if told_apart(cell.lost, cell.lost_interval) == "better"]
    lost.sort(key=lambda cell: cell.lost or 0.0, reverse=True)
    said = [f"{cell.lost:.3f} on {cell.name}" for cell in lost[:LISTED]]
    more = [f"less on {len(lost) - LISTED} more"] if len(lost) > LISTED else []
    return f"beside what it attains as trained it loses {_names([*said, *more])}" if lost else "loses on none"


def _at_worst(cell: Cell, name: str) -> str:
    said = _loss(cell)
    return f"{said} at most ({name})" if said.startswith("loses") else "no loss told apart"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
