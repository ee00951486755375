"""Quality, cost and regret of an outcome, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.evaluate import Outcome

FloatArray = NDArray[np.float64]
# A router that sends at least this share of its calls to one model is flagged in its table row.
COLLAPSED = 0.99
# Of a smaller gap in value a share says nothing.
SMALLEST_GAP = 0.005
# Differences up to this size are of floating-point arithmetic.
NOISE = 1e-9
# What is smaller is 0.000 in print: it has no mark, and nothing is said of it.
SHOWN = 0.0005


@dataclass(frozen=True)
class Estimate:
    """A mean over items with its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """`R` resamples of the items, the same for every router, so that differences between routers are paired.

    weights: `[R, I]` how often each item was drawn, divided by `I`.
    """

    weights: FloatArray

    @staticmethod
    def draw(items: int, seed: int, resamples: int = 2000) -> Bootstrap:
        """Resample `items` items with replacement (the percentile bootstrap of Efron, 1979)."""
        generator = np.random.default_rng(seed)
        counts = generator.multinomial(items, np.full(items, 1 / items), size=resamples)
        return Bootstrap(counts / items)

    def mean(self, values: FloatArray, chosen: NDArray[np.bool_] | None = None) -> Estimate:
        """Mean of `[I]` values over all items, or over the chosen ones `[I]`, with its 95% percentile interval."""
        weights, of_chosen = (self.weights, values) if chosen is None else (self.weights[:, chosen], values[chosen])
        drawn = weights @ np.ones_like(of_chosen)  # not .sum(): so the mean of equal values is that value
        # A resample that drew none of the chosen items says nothing of them.
        means = (weights @ of_chosen)[drawn > 0] / drawn[drawn > 0]
        return Estimate(float(of_chosen.mean()), *np.percentile(means, [2.5, 97.5]).tolist())


@dataclass(frozen=True)
class TaskBootstrap:
    """`R` resamples of each task's items among themselves, the same for every router: for means over tasks.

    weights: `[R, I]`, a task's sum to `1 / T` in each resample. shares: `[I]` of each item in the mean over tasks.
    """

    weights: FloatArray
    shares: FloatArray

    @staticmethod
    def draw(tasks: NDArray[np.str_], seed: int, resamples: int = 2000) -> TaskBootstrap:
        """Resample within the tasks `[I]`: which tasks a suite has is no chance (a stratified percentile bootstrap)."""
        generator = np.random.default_rng(seed)
        names, of_item, sizes = np.unique(tasks, return_inverse=True, return_counts=True)
        shares = 1 / (len(names) * sizes[of_item])
        counts = np.zeros((resamples, len(tasks)))
        for index, size in enumerate(sizes.tolist()):
            counts[:, of_item == index] = generator.multinomial(size, np.full(size, 1 / size), size=resamples)
        counts *= shares
        return TaskBootstrap(counts, shares)

    def mean(self, values: FloatArray) -> Estimate:
        """Mean over tasks of the tasks' means of `[I]` values, with its 95% percentile interval."""
        return Estimate(float(self.shares @ values), *np.percentile(self.weights @ values, [2.5, 97.5]).tolist())


@dataclass(frozen=True)
class SeedSpread:
    """How far trainings with other seeds lie apart in the mean of a figure over items.

    deviation: their standard deviation. low, high: 95% interval over trainings, the items as they are. both: 95%
    interval over items and trainings.
    """

    deviation: float
    low: float
    high: float
    both: tuple[float, float]


def seed_spread(values: FloatArray) -> SeedSpread:
    """The spread of `K` trainings, at least 2, with values `[K, I]` on the same items.

    Over trainings: m +- t(K - 1) s / sqrt(K), with s the standard deviation of the trainings' means (Student, 1908).
    Over both: items and trainings are crossed, each training meets each item, and their variances add up (the two-way
    random effects of Owen, The pigeonhole bootstrap, 2007): V = v + s^2 / K, with v the variance of the mean over items
    of what the trainings attain on average, and m +- t(f) sqrt(V) with Satterthwaite's (1946) degrees of freedom,
    f = V^2 / (v^2 / (I - 1) + (s^2 / K)^2 / (K - 1)). It is no bootstrap, as so few trainings as one has are too few to
    draw from: of three, it would give intervals four fifths as wide.
    """
    from scipy.special import stdtrit

    trainings, items = values.shape
    means, mean = values.mean(axis=1), float(values.mean())
    deviation = float(means.std(ddof=1))
    of_trainings = deviation**2 / trainings
    of_items = float(values.mean(axis=0).var(ddof=1)) / items if items > 1 else 0.0
    half = both = float(stdtrit(trainings - 1, 0.975)) * math.sqrt(of_trainings)
    if of_items > 0:
        total = of_items + of_trainings
        freedom = total**2 / (of_items**2 / (items - 1) + of_trainings**2 / (trainings - 1))
        both = float(stdtrit(freedom, 0.975)) * math.sqrt(total)
    return SeedSpread(deviation, mean - half, mean + half, (mean - both, mean + both))


def verdict(interval: Sequence[float] | None) -> str:
    """`better` or `worse` if the interval `[low, high]` of a difference excludes 0, else `no`; empty without one."""
    if interval is None:
        return ""
    low, high = interval
    return "better" if low > NOISE else "worse" if high < -NOISE else "no"


def told_apart(mean: float | None, interval: Sequence[float] | None) -> str:
    """`better` or `worse` if a difference is told apart from 0 and does not print as 0.000; else `no`."""
    return "no" if abs(mean or 0.0) < SHOWN else verdict(interval) or "no"


def sign_flip_p(differences: FloatArray, seed: int, draws: int = 4999, one_sided: bool = False) -> float:
    """p-value of paired differences `[I]`: how often random signs bring their sum as far from 0.

    Fisher's randomisation test (The Design of Experiments, 1935): p = mean(|sum(s * d)| >= |sum(d)|) over all signs s
    where at most 12 differences are not 0; else over `draws` of them, p = (1 + hits) / (1 + draws) (Phipson and Smyth,
    2010). 1 if no item differs. one_sided: of sums above 0 alone, p = mean(sum(s * d) >= sum(d)).
    """
    distance: Callable[[FloatArray], FloatArray] = np.asarray if one_sided else np.abs
    moved = differences[differences != 0]
    count = len(moved)
    # Sums that are equal may differ in their last bits.
    observed = distance(moved.sum()) - NOISE * np.abs(moved).sum()
    if count <= 12:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float((distance(signs @ moved) >= observed).mean())
    generator, hits, left = np.random.default_rng(seed), 0, draws
    while left:
        block = min(left, max(1, 1_000_000 // count))
        signs = generator.integers(0, 2, (block, count), np.int8) * 2 - 1
        hits += int((distance(signs @ moved) >= observed).sum())
        left -= block
    return (1 + hits) / (1 + draws)


def relative(attained: float, of_model: float) -> float | None:
    """A mean relative to a single model's over the same items; None if the model's is 0.

    HierRouter's (arXiv 2511.09873) improvement is `quality(router) / quality(model)`, and its added cost
    `cost(router) / cost(model)`.
    """
    return attained / of_model if of_model > 0 else None


def value(outcome: Outcome, cost_weight: float, latency_weight: float = 0.0) -> FloatArray:
    """`[I]` the MDP's return: quality - cost_weight * cost - latency_weight * seconds; the last needs latency."""
    of_both = outcome.quality - cost_weight * outcome.cost
    if not latency_weight:
        return of_both
    assert outcome.waits is not None
    return of_both - latency_weight * outcome.waits.mean


def regret(outcome: Outcome, optimum: Outcome, cost_weight: float, latency_weight: float = 0.0) -> FloatArray:
    """`[I]` value of the exact optimum minus the router's, at the same weights; never negative in the same MDP."""
    return value(optimum, cost_weight, latency_weight) - value(outcome, cost_weight, latency_weight)


def gap_closed(
    outcome: Outcome, floor_of: Outcome, optimum: Outcome, cost_weight: float, latency_weight: float = 0.0
) -> float | None:
    """Share of the way from the mean value of one (the best single model) to the optimum's; None if under 0.005."""
    at, floor, top = (value(of, cost_weight, latency_weight).mean() for of in (outcome, floor_of, optimum))
    if top - floor < SMALLEST_GAP:
        return None
    return float((at - floor) / (top - floor))


def collapsed_to(outcome: Outcome, models: tuple[str, ...]) -> str | None:
    """The model that gets (almost) every call, if there is one and more than one could be called."""
    calls = outcome.calls.sum(axis=0)
    if len(models) < 2 or calls.sum() == 0 or calls.max() < COLLAPSED * calls.sum():
        return None
    return models[int(calls.argmax())]
