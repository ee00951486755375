"""One episode per item: the router acts, the chosen models answer, nothing else is generated."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.evaluation import router_output
from pools.mdp.tree import IntArray, Tree
from routers.router import Router, RoutingStates, StochasticRouter

ALONE = nullcontext()  # one thread decides
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Episodes:
    """How each item's episode went.

    node: `[I]` where it ended. cost: `[I]` of the hops made. routing_cost: `[I]` of the router's own model.
    pending: `[I]` the model chosen at the last hop but not asked, if `answer_last=False`; else -1.
    chance: `[I]` the probability of all actions that were taken; 1 if nothing was left to chance.
    """

    node: IntArray
    cost: FloatArray
    routing_cost: FloatArray
    pending: IntArray
    chance: FloatArray


def rollout(
    router: Router,
    tree: Tree,
    seed: int = 0,
    answer_last: bool = True,
    deciding: AbstractContextManager[Any] = ALONE,
) -> Episodes:
    """Run one episode on every item; hops are batched over items, and a stochastic router draws with `seed`.

    With `answer_last=False` the model chosen at hop `L` is not asked: multiple-choice tasks ask it for likelihoods.
    deciding: is entered while the router decides, and not while models answer: a lock, where several threads use it.
    """
    generator = np.random.default_rng(seed)
    items, models = len(tree.items), len(tree.models)
    node, pending = np.zeros(items, np.int64), np.full(items, -1, np.int64)
    cost, own, chance = np.zeros(items), np.zeros(items), np.ones(items)
    pipelines = tree.pipelines()
    going = np.arange(items)
    for depth in range(tree.max_hops):
        states = states_at(tree, going, node[going], cost[going], pipelines)
        with deciding:
            own[going] += router_output.own_cost(router, states)
            action, chance_of = draw_actions(router, states, models, generator)
        chance[going] *= chance_of
        asked = action < models
        if depth == 0 and not asked.all():
            raise router_output.stopped_at_once(router)
        going, action = going[asked], action[asked]
        if not len(going):
            break
        if depth == tree.max_hops - 1 and not answer_last:
            pending[going] = action
            break
        child = tree.child(node[going], action)
        tree.require(going, child)
        cost[going] += tree.cost[going, child]
        node[going] = child
    return Episodes(node, cost, own, pending, chance)


def states_at(tree: Tree, items: IntArray, nodes: IntArray, cost: FloatArray, pipelines: IntArray) -> RoutingStates:
    """What a router sees at nodes `(items[k], nodes[k])` after spending `cost[k]`."""
    return RoutingStates(
        contexts=[tree.contexts[context] for context in tree.context_ids(items, nodes).tolist()],
        hop=tree.depth[nodes],
        cost=cost,
        actions=pipelines[nodes],
        seconds=tree.path_seconds(items, nodes) if tree.latency else None,
    )


def draw_actions(
    router: Router, states: RoutingStates, models: int, generator: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """One action per state and its probability: a stochastic router's are drawn."""
    if not isinstance(router, StochasticRouter):
        return router_output.actions(router, states, models), np.ones(len(states.contexts))
    chance = router_output.probabilities(router, states, models)
    drawn = generator.random((len(chance), 1)) > chance.cumsum(axis=1)
    action = drawn.sum(axis=1).clip(max=chance.shape[1] - 1)
    return action, chance[np.arange(len(chance)), action]
