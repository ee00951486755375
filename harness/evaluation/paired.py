"""How routers differ, item by item: the arithmetic that `compare` and `check` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.evaluate import Outcome
from harness.evaluation.latency import quantile, waits_of_items
from harness.evaluation.metrics import NOISE, Bootstrap, FloatArray, sign_flip_p
from pools.errors import UserError
from pools.mdp.tree import Tree

ItemKey = tuple[str, int]
Measure = Literal["quality", "cost", "latency"]
TAIL = 0.95
"""Of latency, the quantile over items that is compared."""
EXCHANGES = 1999
"""Random exchanges of old and new behind a p-value of latency, unless it takes more."""


@dataclass(frozen=True)
class Figures:
    """What a router attained. quality: `[I]` in [0, 1]. cost: `[I]` in the cost unit; None if none was recorded.

    seconds: `[I]` in expectation; None without latency.
    """

    quality: FloatArray
    cost: FloatArray | None
    seconds: FloatArray | None = None

    def on(self, index: NDArray[np.int64]) -> Figures:
        """The same for the items of these numbers."""
        cost, seconds = (None if of is None else of[index] for of in (self.cost, self.seconds))
        return Figures(self.quality[index], cost, seconds)


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
        return Results(tuple(items), {name: figures.on(index) for name, figures in self.routers.items()})


@dataclass(frozen=True)
class Change:
    """The means of two routers over the same items, and the 95% interval of their difference, paired.

    Of latency not the means: the p95 over items of their expected seconds. p: two-sided, of the sign-flip test.
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
    latency: Change | None = None

    @property
    def same(self) -> bool:
        """Whether none differs but in the last bits."""
        return all(change is None or change.same for change in (self.quality, self.cost, self.latency))


def results_of(outcomes: Mapping[str, Outcome], tree: Tree, costs: bool) -> Results:
    """The outcomes of a run as results; `costs` says whether any were recorded."""
    return Results(
        tuple((item.task, item.doc_id) for item in tree.items),
        {
            name: Figures(o.quality, o.cost if costs else None, None if o.waits is None else o.waits.mean)
            for name, o in outcomes.items()
        },
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
            latency = None
            if old.seconds is not None and new.seconds is not None:
                latency = tail_change(old.seconds, new.seconds, bootstrap, seed, chosen)
            made.append(Comparison(router, reference, task, int(chosen.sum()), quality, cost, latency))
    return made


def paired_change(
    old: FloatArray, new: FloatArray, bootstrap: Bootstrap, seed: int, chosen: NDArray[np.bool_] | None = None
) -> Change:
    """From `old` to `new`, each `[I]`, over all items or the chosen ones."""
    of = slice(None) if chosen is None else chosen
    estimate = bootstrap.mean(new - old, chosen)
    means = float(old[of].mean()), float(new[of].mean())
    return Change(*means, estimate.mean, estimate.low, estimate.high, sign_flip_p((new - old)[of], seed))


def tail_change(old: FloatArray, new: FloatArray, bootstrap: Bootstrap, seed: int, chosen: NDArray[np.bool_]) -> Change:
    """From the p95 of `old` to that of `new`, expected seconds `[I]` of which the chosen items count."""
    old, new = old[chosen], new[chosen]
    before, after = (float(quantile(waits_of_items(of), TAIL)[0]) for of in (old, new))
    weights = bootstrap.weights[:, chosen]
    weights = weights[weights.any(axis=1)]  # a resample that drew none of them says nothing of them
    resampled = quantile(waits_of_items(new), TAIL, weights) - quantile(waits_of_items(old), TAIL, weights)
    low, high = np.percentile(resampled, [2.5, 97.5]).tolist()
    return Change(before, after, after - before, low, high, tail_exchange_p(old, new, seed))


def tail_exchange_p(
    old: FloatArray, new: FloatArray, seed: int, draws: int = EXCHANGES, one_sided: bool = False
) -> float:
    """p-value of the difference between the p95 of `old` and that of `new`, both `[I]`.

    Old and new of each item are exchanged at random, as the sign-flip test does for means. one_sided: whether only a
    rise counts.
    """
    count, both = len(old), waits_of_items(np.concatenate([old, new]))

    def distance(exchanged: FloatArray) -> FloatArray:
        """`[R]` how far the two p95 are apart, for `[R, I]` whether an item's old and new change places."""
        stays = 1 - exchanged
        of_new, of_old = np.hstack([exchanged, stays]), np.hstack([stays, exchanged])
        rise = quantile(both, TAIL, of_new) - quantile(both, TAIL, of_old)
        return rise if one_sided else np.abs(rise)

    observed = float(distance(np.zeros((1, count)))[0]) - NOISE
    generator, hits = np.random.default_rng(seed), 0
    for start in range(0, draws, EXCHANGES):
        block = min(EXCHANGES, draws - start)
        exchanged = generator.integers(0, 2, (block, count)).astype(float)
        hits += int((distance(exchanged) >= observed).sum())
    return (1 + hits) / (1 + draws)


def worse_p(measure: Measure, old: Figures, new: Figures, tolerated: float, seed: int, draws: int = EXCHANGES) -> float:
    """One-sided p-value that a measure is worse by more than is tolerated, in its unit.

    The old figure of each item is moved by what is tolerated; then old and new are exchanged at random: the sign-flip
    test of the mean, for latency `tail_exchange_p`.
    """
    if measure == "quality":
        return sign_flip_p(old.quality - new.quality - tolerated, seed, draws, one_sided=True)
    if measure == "cost":
        assert old.cost is not None and new.cost is not None
        return sign_flip_p(new.cost - old.cost - tolerated, seed, draws, one_sided=True)
    assert old.seconds is not None and new.seconds is not None
    return tail_exchange_p(old.seconds + tolerated, new.seconds, seed, draws, one_sided=True)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, adjusted by Holm (Scandinavian Journal of Statistics 6, 1979), in their order.

    With them in ascending order, `max over i <= j of min(1, (n - i + 1) p_i)`. To reject those that are at most alpha
    rejects any true hypothesis with a probability of at most alpha, however the tests depend on each other.
    """
    ascending = np.argsort(p, kind="stable")
    steps = (len(p) - np.arange(len(p))) * np.asarray(p, np.float64)[ascending]
    adjusted = np.empty(len(p))
    adjusted[ascending] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()
