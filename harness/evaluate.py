"""What a router attains on a tree: exact expectations where the tree is complete, one episode per item otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.cost import CostModel
from pools.tree import IntArray, Tree
from routers.router import Router, RoutingStates, StochasticRouter, routing_cost

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Per item, in expectation over the router's own randomness.

    quality, cost, hops: `[I]`; cost is of the models called, in the cost model's unit.
    routing_cost: `[I]` of the router's own model, the encoder; a line of its own in the ledger.
    calls: `[I, M]` how often each model was called. exact: whether expectations were computed, not sampled.
    """

    quality: FloatArray
    cost: FloatArray
    routing_cost: FloatArray
    hops: FloatArray
    calls: FloatArray
    exact: bool


def evaluate(router: Router, tree: Tree, cost_model: CostModel, seed: int = 0) -> Outcome:
    """Run a router on every item of a tree.

    A stochastic router on a complete tree is followed along every pipeline it may choose, each weighted by its
    probability, so there is no sampling noise. On a tree that is not complete (live models) its actions are drawn
    with `seed`, so that only what it chooses is generated.
    """
    sample = None if tree.complete else np.random.default_rng(seed)
    items, models = len(tree.items), len(tree.models)
    reach = np.zeros((items, tree.nodes))
    reach[:, 0] = 1.0
    spent = np.zeros((items, tree.nodes))
    quality, cost, own, hops = (np.zeros(items) for _ in range(4))
    calls = np.zeros((items, models))
    pipelines = _pipelines(tree)
    for depth in range(tree.max_hops):
        nodes = tree.level(depth)
        rows, columns = np.nonzero(reach[:, nodes])
        if not len(rows):
            break
        columns = nodes[columns]
        states = RoutingStates(
            contexts=[tree.context(row, column) for row, column in zip(rows, columns, strict=True)],
            hop=np.full(len(rows), depth),
            cost=spent[rows, columns],
            actions=pipelines[columns],
        )
        np.add.at(own, rows, reach[rows, columns] * routing_cost(router, states))
        chance = action_probabilities(router, states, models, sample)
        stop = chance[:, models]
        np.add.at(quality, rows, reach[rows, columns] * stop * tree.score[rows, columns])
        at, action = np.nonzero(chance[:, :models])
        child = tree.child(columns[at], action)
        tree.require(rows[at], child)
        place = rows[at], child
        weight = reach[rows[at], columns[at]] * chance[at, action]
        hop_cost = cost_model.hop_cost(action, tree.tokens_in[place], tree.tokens_out[place])
        reach[place] = weight
        spent[place] = spent[rows[at], columns[at]] + hop_cost
        np.add.at(cost, rows[at], weight * hop_cost)
        np.add.at(hops, rows[at], weight)
        np.add.at(calls, (rows[at], action), weight)
    leaves = tree.level(tree.max_hops)
    quality += (reach[:, leaves] * tree.score[:, leaves]).sum(axis=1)
    return Outcome(quality, cost, own, hops, calls, exact=sample is None)


def action_probabilities(
    router: Router, states: RoutingStates, models: int, sample: np.random.Generator | None = None
) -> FloatArray:
    """`[B, M + 1]` probabilities of the router's actions, the last of them STOP.

    With `sample`, a stochastic router's action is drawn and has probability one.
    """
    count = len(states.contexts)
    chance = np.zeros((count, models + 1))
    if isinstance(router, StochasticRouter):
        given = np.asarray(router.probabilities(states), np.float64)
        chance[:, : given.shape[1]] = given
        if sample is None:
            return chance
        drawn = (sample.random((count, 1)) > chance.cumsum(axis=1)).sum(axis=1).clip(max=models)
    else:
        drawn = np.asarray(router.act(states), np.int64)
    chance = np.zeros_like(chance)
    chance[np.arange(count), drawn] = 1.0
    return chance


def _pipelines(tree: Tree) -> IntArray:
    """`[N, L]` actions that lead to each node, padded with -1."""
    table = np.full((tree.nodes, tree.max_hops), -1, np.int64)
    for node in range(tree.nodes):
        pipeline = tree.pipeline(node)
        table[node, : len(pipeline)] = pipeline
    return table
