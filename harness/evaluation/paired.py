"""How routers differ, item by item: the arithmetic that `compare` and `check` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.evaluate import Outcome
from harness.evaluation.metrics import NOISE, Bootstrap, FloatArray, sign_flip_p
from pools.errors import UserError
from pools.mdp.tree import Tree

ItemKey = tuple[str, int]


@dataclass(frozen=True)
class Figures:
    """What a router attained. quality: `[I]` in [0, 1]. cost: `[I]` in the cost unit; None if none was recorded."""

    quality: FloatArray
    cost: FloatArray | None


@dataclass(frozen=True)
class Results:
    """What routers attained on the same items. items: `I` pairs of task and document."""

    items: tuple[ItemKey, ...]
    routers: Mapping[str, Figures]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of the items."""
        return tuple(dict.fromkeys(task for task, _ in self.items))

    def on(self, items: Sequence[ItemKey]) -> Results:
        """The same for some of the items, in the order given."""
        place = {item: index for index, item in enumerate(self.items)}
        index = np.array([place[item] for item in items], np.int64)
        chosen = {
            name: Figures(f.quality[index], None if f.cost is None else f.cost[index])
            for name, f in self.routers.items()
        }
        return Results(tuple(items), chosen)


@dataclass(frozen=True)
class Change:
    """The means of two routers over the same items, and the 95% interval of their difference, paired.

    p: two-sided, of the sign-flip test.
    """

    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float

    @property
    def risen(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > NOISE

    @property
    def fallen(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.high < -NOISE

    @property
    def same(self) -> bool:
        """Whether nothing differs but the last bits."""
        return max(abs(self.low), abs(self.high), abs(self.difference)) <= NOISE


@dataclass(frozen=True)
class Comparison:
    """A router against its reference, over all items (task None) or over those of a task."""

    router: str
    reference: str
    task: str | None
    items: int
    quality: Change
    cost: Change | None

    @property
    def same(self) -> bool:
        """Whether neither differs but in the last bits."""
        return self.quality.same and (self.cost is None or self.cost.same)


def results_of(outcomes: Mapping[str, Outcome], tree: Tree, costs: bool) -> Results:
    """The outcomes of a run as results; `costs` says whether any were recorded."""
    return Results(
        tuple((item.task, item.doc_id) for item in tree.items),
        {name: Figures(o.quality, o.cost if costs else None) for name, o in outcomes.items()},
    )


def checked_results(results: Results, where: str) -> Results:
    """The results themselves. Raises UserError if an item comes twice."""
    twice = len(results.items) - len(set(results.items))
    if twice:
        raise UserError(f"{where} has {twice} items more than once, expected each once; make it again")
    return results


def compare_routers(
    before: Results, after: Results, pairs: Sequence[tuple[str, str]], costs: bool, seed: int
) -> list[Comparison]:
    """Each pair of a reference of `before` and a router of `after`, on the same items: overall, then per task."""
    assert before.items == after.items
    bootstrap = Bootstrap.draw(len(before.items), seed)
    task_of = np.array([task for task, _ in before.items])
    made = []
    for reference, router in pairs:
        old, new = before.routers[reference], after.routers[router]
        for task in (None, *before.tasks):
            chosen = np.ones(len(task_of), bool) if task is None else task_of == task
            cost = None
            if costs and old.cost is not None and new.cost is not None:
                cost = paired_change(old.cost, new.cost, bootstrap, seed, chosen)
            quality = paired_change(old.quality, new.quality, bootstrap, seed, chosen)
            made.append(Comparison(router, reference, task, int(chosen.sum()), quality, cost))
    return made


def paired_change(
    old: FloatArray, new: FloatArray, bootstrap: Bootstrap, seed: int, chosen: NDArray[np.bool_] | None = None
) -> Change:
    """From `old` to `new`, each `[I]`, over all items or the chosen ones."""
    of = slice(None) if chosen is None else chosen
    estimate = bootstrap.mean(new - old, chosen)
    means = float(old[of].mean()), float(new[of].mean())
    return Change(*means, estimate.mean, estimate.low, estimate.high, sign_flip_p((new - old)[of], seed))
