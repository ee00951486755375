"""What a router attains on a tree: exact expectations if the tree is complete, one episode per item otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation import router_output
from harness.evaluation.latency import Waits, mean_waits, waits_of
from harness.evaluation.rollout import rollout, states_at
from pools.mdp.policy_value import expectation
from pools.mdp.tree import IntArray, Tree
from routers.router import Router, RoutingStates, StochasticRouter, VotingRouter

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Per item, in expectation over the router's own randomness.

    quality, cost, hops: `[I]`; cost is of the models called, in the cost model's unit.
    routing_cost: `[I]` of the router's own model, the encoder; a line of its own in the ledger.
    calls: `[I, M]` how often each model was called. end: `[I, N]` probability that the episode ended at a node, so that
    its pipeline was the final one. exact: whether expectations were computed, not sampled.
    waits: how long users wait; None where the tree's seconds are no latency.
    """

    quality: FloatArray
    cost: FloatArray
    routing_cost: FloatArray
    hops: FloatArray
    calls: FloatArray
    end: FloatArray
    exact: bool
    waits: Waits | None = None


def evaluate(router: Router, tree: Tree, seed: int = 0) -> Outcome:
    """Run a router on every item of a tree.

    A complete tree gives exact expectations. On one that is not (live models) a single episode per item is run, with
    actions drawn with `seed`, so that only what the router chooses is generated.
    """
    if isinstance(router, VotingRouter):
        return vote(router, tree)
    return exact(router, tree) if tree.complete else sample(router, tree, seed)


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """What one of several routers attains that is drawn with equal chances for each item: the mean of theirs."""
    if len(outcomes) == 1:
        return outcomes[0]

    def mean(name: str) -> FloatArray:
        return np.asarray(np.mean([getattr(outcome, name) for outcome in outcomes], axis=0), np.float64)

    waits = [outcome.waits for outcome in outcomes if outcome.waits is not None]
    return Outcome(
        **{name: mean(name) for name in ("quality", "cost", "routing_cost", "hops", "calls", "end")},
        exact=all(outcome.exact for outcome in outcomes),
        waits=mean_waits(waits) if waits else None,
    )


def exact(router: Router, tree: Tree) -> Outcome:
    """The router's expected outcome, computed over all pipelines that it may choose."""
    pipelines = tree.pipelines()
    billed: list[tuple[IntArray, IntArray, FloatArray]] = []

    def choose(items: IntArray, nodes: IntArray, cost: FloatArray) -> FloatArray:
        states = states_at(tree, items, nodes, cost, pipelines)
        billed.append((items, nodes, router_output.own_cost(router, states)))
        return action_probabilities(router, states, len(tree.models))

    found = expectation(tree, choose)
    own = np.zeros(len(tree.items))
    for items, nodes, bill in billed:
        np.add.at(own, items, found.reach[items, nodes] * bill)
    cost, waits = found.billed(tree), waits_of(tree, found.end) if tree.latency else None
    return Outcome(found.quality, cost, own, found.hops, found.calls, found.end, exact=True, waits=waits)


def sample(router: Router, tree: Tree, seed: int) -> Outcome:
    """One episode per item."""
    episodes = rollout(router, tree, seed)
    items = np.arange(len(tree.items))
    calls = np.zeros((len(items), len(tree.models)))
    for item, node in zip(items, episodes.node.tolist(), strict=True):
        np.add.at(calls[item], list(tree.pipeline(node)), 1.0)
    end = np.zeros((len(items), tree.nodes))
    end[items, episodes.node] = 1.0
    return Outcome(
        quality=tree.score[items, episodes.node].astype(np.float64),
        cost=episodes.cost,
        routing_cost=episodes.routing_cost,
        hops=tree.depth[episodes.node].astype(np.float64),
        calls=calls,
        end=end,
        exact=bool((episodes.chance == 1).all()),
        waits=waits_of(tree, end) if tree.latency else None,
    )


def vote(router: VotingRouter, tree: Tree) -> Outcome:
    """Every model's first hop is paid for, and one of the responses counts."""
    items, nodes = np.arange(len(tree.items)), tree.level(1)
    tree.require(items[:, None], nodes)
    responses = [[tree.generation(i, node).response for node in nodes.tolist()] for i in items.tolist()]
    chosen = router_output.chosen_responses(router, responses, len(nodes))
    calls, end = np.ones((len(items), len(nodes))), np.zeros((len(items), tree.nodes))
    end[items, nodes[chosen]] = 1.0
    hops, longest = calls.sum(axis=1), tree.seconds(items[:, None], nodes).max(axis=1)
    return Outcome(
        quality=tree.score[items, nodes[chosen]].astype(np.float64),
        cost=tree.billed[:, nodes].sum(axis=1),
        routing_cost=np.zeros(len(items)),
        hops=hops,
        calls=calls,
        end=end,
        exact=True,
        waits=Waits(items, longest, hops, calls[:, 0], len(items)) if tree.latency else None,
    )


def action_probabilities(router: Router, states: RoutingStates, models: int) -> FloatArray:
    """`[B, M + 1]` probabilities of the router's actions, the last of them STOP. Raises UserError for others."""
    chance = np.zeros((len(states.contexts), models + 1))
    if isinstance(router, StochasticRouter):
        given = router_output.probabilities(router, states, models)
        chance[:, : given.shape[1]] = given
    else:
        chance[np.arange(len(chance)), router_output.actions(router, states, models)] = 1.0
    if chance[states.hop == 0, models].any():
        raise router_output.stopped_at_once(router)
    return chance
