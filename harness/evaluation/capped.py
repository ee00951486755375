"""A router under a cap on what an item may spend: what a call spends at most is told before it is made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.evaluate import action_probabilities
from pools.mdp.constrained import ROUNDING
from pools.mdp.tree import Tree
from pools.types import Context
from routers.router import Router, RoutingStates, routing_cost

FloatArray = NDArray[np.float64]
CLASSES, ITEMS_OF_A_CLASS = 10, 20
"""Lengths of text are told apart in so many classes, fewer if a class would have fewer items than that."""


@dataclass(frozen=True)
class CallBounds:
    """The most that a call cost on the items it was learnt from: by hop, length of the text that is read, and model.

    edges: `[L, C - 1]` lengths at which the next class begins. most: `[L, C, M]`.
    """

    edges: FloatArray
    most: FloatArray

    @staticmethod
    def learn(tree: Tree) -> CallBounds:
        """From a complete tree with items. Classes hold equal numbers of a hop's states.

        The most of `n` calls is exceeded by another call of the same class with probability `1 / (n + 1)` at most, if
        they are exchangeable (as in split conformal prediction, Vovk et al. 2005).
        """
        classes = max(1, min(CLASSES, len(tree.items) // ITEMS_OF_A_CLASS))
        length = np.array([_length(context) for context in tree.contexts])
        edges = np.zeros((tree.max_hops, classes - 1))
        most = np.zeros((tree.max_hops, classes, len(tree.models)))
        for hop in range(tree.max_hops):
            nodes = tree.level(hop)
            of_state = length[tree.context_ids(np.arange(len(tree.items))[:, None], nodes)]
            edges[hop] = np.quantile(of_state, np.arange(1, classes) / classes)
            cost = tree.cost[:, tree.child(nodes[:, None], np.arange(len(tree.models)))]
            np.maximum.at(most[hop], (of_state[..., None] > edges[hop]).sum(axis=-1), cost)
        return CallBounds(edges, most)

    def of(self, states: RoutingStates) -> FloatArray:
        """`[B, M]` for a call of each model at each state."""
        length = np.array([_length(context) for context in states.contexts])
        return np.asarray(self.most[states.hop, (length[:, None] > self.edges[states.hop]).sum(axis=1)])


@dataclass(frozen=True)
class CappedRouter:
    """A router whose calls that could spend more than what is left are not made.

    It stops instead. Before the first answer, when it cannot stop, the first model of `ranking` that fits is called;
    if none fits, the one with the least bound, since some model must answer. cap: on an item. ranking: `[M]`.
    """

    router: Router
    bounds: CallBounds
    cap: float
    ranking: NDArray[np.int64]

    def probabilities(self, states: RoutingStates) -> FloatArray:
        """`[B, M + 1]` probability of each action, the last of them STOP."""
        models, rows = len(self.ranking), np.arange(len(states.contexts))
        chance = action_probabilities(self.router, states, models)
        bound = self.bounds.of(states)
        fits = states.cost[:, None] + bound <= self.cap * (1 + ROUNDING)
        ranked = self.ranking[fits[:, self.ranking].argmax(axis=1)]
        first = np.where(fits.any(axis=1), ranked, bound.argmin(axis=1))
        refused = (chance[:, :models] * ~fits).sum(axis=1)
        chance[:, :models] *= fits
        chance[rows, np.where(states.hop > 0, models, first)] += refused
        return chance

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the likeliest actions."""
        return np.asarray(self.probabilities(states).argmax(axis=1), np.int64)

    def routing_cost(self, states: RoutingStates) -> FloatArray:
        """`[B]` of the router itself."""
        return routing_cost(self.router, states)


def ranking(tree: Tree) -> NDArray[np.int64]:
    """`[M]` the models by the mean score of their first hop, the best first, of equals the cheaper."""
    first = tree.level(1)
    return np.lexsort((tree.cost[:, first].mean(axis=0), -tree.score[:, first].mean(axis=0)))


def _length(context: Context) -> int:
    return len(context.query) + sum(map(len, context.responses))
