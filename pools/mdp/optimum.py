"""The exact optimum of a recorded tree by backward induction, and the cheapest way to each item's best score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.mdp.tree import Tree


@dataclass(frozen=True)
class Solution:
    """An optimal policy of `I` items and what it attains.

    value: `[I]` quality - cost_weight * cost. quality, cost: `[I]`. action: `[I, decision_nodes]`, `M` means STOP.
    """

    value: NDArray[np.float64]
    quality: NDArray[np.float64]
    cost: NDArray[np.float64]
    action: NDArray[np.int64]


def path_costs(tree: Tree) -> NDArray[np.float64]:
    """`[I, N]` cost of the whole pipeline that leads to each node."""
    costs = tree.cost.copy()
    for depth in range(1, tree.max_hops + 1):
        nodes = tree.level(depth)
        costs[:, nodes] += costs[:, tree.parent(nodes)]
    return costs


def solve(tree: Tree, cost_weight: float, allow_stop: bool) -> Solution:
    """Backward induction from the leaves: `V(n) = max_a [-cost_weight * d(n, a) + V(child)]`, at a leaf its score.

    With `allow_stop` every node below the root also offers its own score for nothing more: some model must answer. Of
    equally good actions the one with the least cost to come is taken. The optimum is clairvoyant: it has seen this
    item's responses.

    Every node must be known (`tree.require`).
    """
    models, width = len(tree.models), len(tree.models) + int(allow_stop)
    quality, cost = tree.score.astype(np.float64), np.zeros(tree.known.shape)
    chosen = np.zeros((len(tree.items), tree.decision_nodes), np.int64)
    for depth in reversed(range(tree.max_hops)):
        nodes = tree.level(depth)
        children = tree.child(nodes[:, None], np.arange(models))  # [n, M]
        option_quality = np.empty((len(tree.items), len(nodes), width))
        option_cost = np.empty_like(option_quality)
        option_quality[..., :models] = quality[:, children]
        option_cost[..., :models] = cost[:, children] + tree.cost[:, children]
        if allow_stop:
            option_quality[..., models] = tree.score[:, nodes] if depth else -np.inf
            option_cost[..., models] = 0.0
        value = option_quality - cost_weight * option_cost
        # Equal up to rounding counts as equal: a tie must not be decided by the order of additions.
        best = value >= value.max(axis=-1, keepdims=True) - 1e-12
        action = np.where(best, option_cost, np.inf).argmin(axis=-1)
        chosen[:, nodes] = action
        quality[:, nodes] = np.take_along_axis(option_quality, action[..., None], -1)[..., 0]
        cost[:, nodes] = np.take_along_axis(option_cost, action[..., None], -1)[..., 0]
    return Solution(quality[:, 0] - cost_weight * cost[:, 0], quality[:, 0], cost[:, 0], chosen)
