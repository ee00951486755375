"""What a router attains on a tree: exact expectations where the tree is complete, one episode per item otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.rollout import pipeline_table, rollout, states_at
from pools.cost import CostModel
from pools.tree import Tree
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

    A complete tree gives exact expectations. On one that is not (live models) a single episode per item is run, with
    actions drawn with `seed`, so that only what the router chooses is generated.
    """
    return expectation(router, tree, cost_model) if tree.complete else sample(router, tree, cost_model, seed)


def expectation(router: Router, tree: Tree, cost_model: CostModel) -> Outcome:
    """Follow the router along every pipeline it may choose, each weighted by its probability: no sampling noise."""
    items, models = len(tree.items), len(tree.models)
    reach, spent = np.zeros((items, tree.nodes)), np.zeros((items, tree.nodes))
    reach[:, 0] = 1.0
    quality, cost, own, hops = (np.zeros(items) for _ in range(4))
    calls = np.zeros((items, models))
    pipelines = pipeline_table(tree)
    for depth in range(tree.max_hops):
        rows, columns = np.nonzero(reach * (tree.depth == depth))
        states = states_at(tree, rows, columns, spent[rows, columns], pipelines)
        np.add.at(own, rows, reach[rows, columns] * routing_cost(router, states))
        chance = action_probabilities(router, states, models)
        np.add.at(quality, rows, reach[rows, columns] * chance[:, models] * tree.score[rows, columns])
        at, action = np.nonzero(chance[:, :models])
        rows, columns, chosen = rows[at], columns[at], chance[at, action]
        child = tree.child(columns, action)
        hop_cost = cost_model.hop_cost(action, tree.tokens_in[rows, child], tree.tokens_out[rows, child])
        reach[rows, child] = reach[rows, columns] * chosen
        spent[rows, child] = spent[rows, columns] + hop_cost
        np.add.at(cost, rows, reach[rows, child] * hop_cost)
        np.add.at(hops, rows, reach[rows, child])
        np.add.at(calls, (rows, action), reach[rows, child])
    leaves = tree.level(tree.max_hops)
    quality += (reach[:, leaves] * tree.score[:, leaves]).sum(axis=1)
    return Outcome(quality, cost, own, hops, calls, exact=True)


def sample(router: Router, tree: Tree, cost_model: CostModel, seed: int) -> Outcome:
    """One episode per item."""
    episodes = rollout(router, tree, cost_model, seed)
    items = np.arange(len(tree.items))
    calls = np.zeros((len(items), len(tree.models)))
    for item, node in zip(items, episodes.node.tolist(), strict=True):
        np.add.at(calls[item], list(tree.pipeline(node)), 1.0)
    return Outcome(
        quality=tree.score[items, episodes.node].astype(np.float64),
        cost=episodes.cost,
        routing_cost=episodes.routing_cost,
        hops=tree.depth[episodes.node].astype(np.float64),
        calls=calls,
        exact=not isinstance(router, StochasticRouter),
    )


def action_probabilities(router: Router, states: RoutingStates, models: int) -> FloatArray:
    """`[B, M + 1]` probabilities of the router's actions, the last of them STOP."""
    chance = np.zeros((len(states.contexts), models + 1))
    if not len(chance):
        return chance
    if isinstance(router, StochasticRouter):
        given = np.asarray(router.probabilities(states), np.float64)
        chance[:, : given.shape[1]] = given
    else:
        chance[np.arange(len(chance)), np.asarray(router.act(states), np.int64)] = 1.0
    return chance
