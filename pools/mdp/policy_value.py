"""Exact expectations of a stochastic policy on a complete tree, with no sampling noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.mdp.tree import IntArray, Tree

FloatArray = NDArray[np.float64]
# From items [K], nodes [K] and the cost spent there [K] to probabilities [K, M + 1], the last of them of STOP.
Choose = Callable[[IntArray, IntArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class Expectation:
    """Per item, in expectation over the policy's actions.

    quality, cost, hops: `[I]`; cost is what the reward charges. calls: `[I, M]` how often each model is called.
    reach, end: `[I, N]` probability that the episode comes through a node, and that it ends there.
    """

    quality: FloatArray
    cost: FloatArray
    hops: FloatArray
    calls: FloatArray
    reach: FloatArray
    end: FloatArray

    def billed(self, tree: Tree) -> FloatArray:
        """`[I]` what the hops cost, where the reward charges for more than that (`Tree.charged`)."""
        return self.cost if tree.billed is tree.cost else (self.reach * tree.billed).sum(axis=1)


def expectation(tree: Tree, choose: Choose) -> Expectation:
    """Follow a policy along every pipeline that it may choose, each weighted by its probability.

    `choose` is called once for each hop, with all nodes of that depth that the policy can reach.
    """
    items, models = len(tree.items), len(tree.models)
    reach, spent, end = (np.zeros((items, tree.nodes)) for _ in range(3))
    reach[:, 0] = 1.0
    quality, cost, calls = np.zeros(items), np.zeros(items), np.zeros((items, models))
    for depth in range(tree.max_hops):
        level = tree.level(depth)
        rows, columns = np.nonzero(reach[:, level])
        columns = level[columns]
        if not len(rows):
            break
        chance = choose(rows, columns, spent[rows, columns])
        end[rows, columns] = reach[rows, columns] * chance[:, models]
        np.add.at(quality, rows, end[rows, columns] * tree.score[rows, columns])
        at, action = np.nonzero(chance[:, :models])
        rows, columns = rows[at], columns[at]
        child = tree.child(columns, action)
        hop_cost = tree.cost[rows, child]
        reach[rows, child] = reach[rows, columns] * chance[at, action]
        spent[rows, child] = spent[rows, columns] + hop_cost
        np.add.at(cost, rows, reach[rows, child] * hop_cost)
        np.add.at(calls, (rows, action), reach[rows, child])
    leaves = tree.level(tree.max_hops)
    end[:, leaves] = reach[:, leaves]
    quality += (reach[:, leaves] * tree.score[:, leaves]).sum(axis=1)
    return Expectation(quality, cost, calls.sum(axis=1), calls, reach, end)


def action_values(
    tree: Tree, items: IntArray, chance: FloatArray, cost_weight: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What each action is worth at each decision node if the policy goes on from there; and how often it comes there.

    items: `[B]`. chance: `[B, D, A]` probability of each action at the `D` decision nodes; action `M`, if there is one,
    is STOP, which must have none at the root. cost_weight: `[B]`.
    Returns `Q [B, D, A]` with `Q(n, a) = -cost_weight * d(n, a) + V(child)`, the node's own score for STOP, where `V`
    is `sum_a chance * Q`, at a leaf its score; and `[B, D]` the probability that an episode comes through the node.
    """
    models, actions = len(tree.models), chance.shape[2]
    score, hop_cost = tree.score[items].astype(np.float64), tree.cost[items] * cost_weight[:, None]
    values, worth = score.copy(), np.zeros(chance.shape)
    for depth in reversed(range(tree.max_hops)):
        nodes = tree.level(depth)
        children = tree.child(nodes[:, None], np.arange(models))
        worth[:, nodes, :models] = values[:, children] - hop_cost[:, children]
        if actions > models:
            worth[:, nodes, models] = score[:, nodes]
        values[:, nodes] = (chance[:, nodes] * worth[:, nodes]).sum(axis=2)
    reach = np.zeros(score.shape)
    reach[:, 0] = 1.0
    for depth in range(tree.max_hops - 1):
        nodes = tree.level(depth)
        children = tree.child(nodes[:, None], np.arange(models))
        reach[:, children] = reach[:, nodes, None] * chance[:, nodes, :models]
    return worth, reach[:, : tree.decision_nodes]
