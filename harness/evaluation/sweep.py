"""A router at cost weights from none to any: as many as it takes to find the ends and the bends of its curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.evaluate import Outcome
from harness.evaluation.frontier import Points
from pools.cost import MAX_RATE
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree

FloatArray = NDArray[np.float64]
START = 9
"""So many cost weights above 0 are tried before any that lies between two others."""
MOST = 64
"""At most so many are tried."""
FINE = 5e-4
"""Two neighbours are near enough if half the box between them, in costs over the range of costs and in quality, has no
larger area: the hull cannot gain more between them, unless quality goes up and down again."""
SLACK = 0.02
"""What quality may do between two neighbours of equal quality."""
NEAREST = 1.01
"""Between weights of a smaller ratio none is tried: there the router jumps."""
FARTHEST = 1e4
"""If the router has not come to rest at the upper end, weights are tried up to so many times as large."""


@dataclass(frozen=True)
class Sweep:
    """A router at `P` cost weights.

    points: cost and quality `[P, I]`. called: `[P, I, M]` chance that a model is called for an item, once or more.
    found: whether the ends and bends were found before `MOST` weights were tried.
    """

    cost_weights: FloatArray
    points: Points
    called: FloatArray
    found: bool = True


Seen = tuple[FloatArray, FloatArray, FloatArray]
"""Of a router at one cost weight: cost and quality `[I]`, and `called` `[I, M]`."""


def sweep(at: Callable[[float], Outcome], tree: Tree) -> Sweep:
    """Evaluate a router, whose outcome on the tree `at` gives for a cost weight, at the weights that its curve needs.

    First at 0, where costs rule, and between. If that makes a difference, at `START` weights, and then in the middle of
    the two neighbours that have most room between them, until none has more than `FINE` or `MOST` weights were tried.
    Nothing here knows which weights a run is for, so they change nothing. The tree is complete, its models' costs
    differ.
    """
    first_hop = tree.cost[:, tree.level(1)].mean(axis=0)
    bounds = float(first_hop.min()), float(first_hop.max())
    grid = np.geomspace(*_extremes(tree), START).tolist()
    seen: dict[float, Seen] = {}

    def look(*weights: float) -> None:
        seen.update({weight: seen_of(at(weight), tree) for weight in weights})

    look(0.0, grid[START // 2], grid[-1])
    if all(_same(each, seen[0.0]) for each in seen.values()):
        return collect({0.0: seen[0.0]})
    look(*(weight for weight in grid if weight not in seen))
    top = grid[-1]
    while top < FARTHEST * grid[-1] and 10 * top <= MAX_RATE and not _same(*(seen[w] for w in sorted(seen)[-2:])):
        look(top := 10 * top)
    while True:
        pairs = [(a, b) for a, b in pairwise(sorted(seen)) if (b > a * NEAREST if a else b > grid[0] / 1000)]
        room, a, b = max(((_room(seen[a], seen[b], bounds), a, b) for a, b in pairs), default=(0.0, 0.0, 0.0))
        if room <= FINE or len(seen) >= MOST:
            return collect(dict(sorted(seen.items())), room <= FINE)
        look(float(np.sqrt(a * b)) if a else b / 10)


def sweepable(tree: Tree) -> bool:
    """Whether the costs of the single models differ, so that there is something to weigh."""
    first_hop = tree.cost[:, tree.level(1)].mean(axis=0)
    return bool(first_hop.max() > first_hop.min())


def seen_of(outcome: Outcome, tree: Tree) -> Seen:
    """What a curve is made of; the rest of an outcome takes much room."""
    return outcome.cost, outcome.quality, calls_at_least_once(outcome, tree)


def collect(seen: Mapping[float, Seen], found: bool = True) -> Sweep:
    """The curve of a router of which this is known, by cost weight."""
    cost, quality, called = (np.stack([each[part] for each in seen.values()]) for part in range(3))
    return Sweep(np.array(list(seen)), Points(cost, quality), called, found)


def calls_at_least_once(outcome: Outcome, tree: Tree) -> FloatArray:
    """`[I, M]` chance that each model is called for an item, once or more."""
    if tree.max_hops == 1:
        return outcome.calls.clip(0, 1)
    pipelines = tree.pipelines()
    includes = np.stack([(pipelines == model).any(axis=1) for model in range(len(tree.models))], axis=1)
    # A vote calls models that are in no pipeline.
    voted = outcome.hops > outcome.end @ tree.depth + 1e-6
    return np.where(voted[:, None], outcome.calls.clip(0, 1), (outcome.end @ includes).clip(0, 1))


def _extremes(tree: Tree) -> tuple[float, float]:
    """Cost weights at which the most expensive pipeline costs a thousandth of the best score, and the cheapest ten."""
    cost = path_costs(tree).mean(axis=0)[1:]
    low, high = 1e-3 / cost.max(), 10 / cost[cost > 0].min()
    return min(low, MAX_RATE / 10), min(high, MAX_RATE)


def _same(one: Seen, other: Seen) -> bool:
    return all(np.allclose(a, b, rtol=1e-9) for a, b in zip(one[:2], other[:2], strict=True))


def _room(one: Seen, other: Seen, bounds: tuple[float, float]) -> float:
    low, high = bounds
    costs = np.clip([one[0].mean(), other[0].mean()], low, high)
    across = abs(costs[1] - costs[0]) / (high - low)
    return float(across * (abs(one[1].mean() - other[1].mean()) + SLACK) / 2)
