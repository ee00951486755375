"""What the learnt one-hop baselines share: predict each model's score and cost from the query, take the best, stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pools.mdp.tree import Tree
from pools.types import Context
from routers._learning import items_to_learn_from
from routers._threads import one_library_thread
from routers.encoders.base import ContextEncoder, build_encoder
from routers.registry import RouterRequest
from routers.router import RoutingStates

FloatArray = NDArray[np.float64]
Predict = Callable[[NDArray[np.float32]], FloatArray]
"""From embeddings of queries `[n, d]` to predicted scores `[n, M]`."""


@dataclass(frozen=True)
class Examples:
    """Queries with every model's outcome at the first hop. vectors: `[n, d]`. score, cost: `[n, M]`."""

    vectors: NDArray[np.float32]
    score: FloatArray
    cost: FloatArray


class OneHopRouter:
    """Calls the model with the best `predicted score - cost_weight * mean cost`, then stops.

    cost: `[M]` mean cost of each model on train items; what a query costs is known before only in part.
    """

    def __init__(self, embed: ContextEncoder, predict: Predict, cost: FloatArray, cost_weight: float) -> None:
        self.embed, self.predict, self.cost, self.cost_weight = embed, predict, cost, cost_weight

    def at(self, cost_weight: float) -> OneHopRouter:
        """The same predictions, weighed against costs anew."""
        return OneHopRouter(self.embed, self.predict, self.cost, cost_weight)

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the best model at hop 0, STOP from then on."""
        actions = np.full(len(states.contexts), len(self.cost), np.int64)
        start = np.flatnonzero(states.hop == 0).tolist()
        if len(start):
            value = self.predict(self.embed([states.contexts[n] for n in start])) - self.cost_weight * self.cost
            actions[start] = value.argmax(axis=1)
        return actions

    def routing_cost(self, states: RoutingStates) -> FloatArray:
        """`[B]` cost of the encoder: it reads the query, once."""
        return self.embed.cost(states.contexts)


def predicted(model: Any, vectors: NDArray[np.float32]) -> FloatArray:
    """What a scikit-learn regressor predicts, `[n, M]` for one model, too."""
    with one_library_thread():  # of neighbours that are equally near, the number of threads would choose
        return np.asarray(model.predict(vectors), np.float64).reshape(len(vectors), -1)


def examples(tree: Tree, request: RouterRequest, embed: ContextEncoder) -> Examples:
    """The first hop of a tree's items."""
    nodes = tree.level(1)
    assert request.cost_model is not None
    cost = tree.hop_cost(request.cost_model, np.arange(len(tree.items))[:, None], nodes)
    return Examples(embed([Context(item.query) for item in tree.items]), tree.score[:, nodes].astype(np.float64), cost)


def fit_one_hop(request: RouterRequest, name: str, candidates: Callable[[Examples], Iterable[Predict]]) -> OneHopRouter:
    """Fit candidates on train items and keep the one with the best value on validation items."""
    tree, held_out_tree = items_to_learn_from(request, name, hops=1)
    queries = [Context(item.query) for item in tree.items]
    encoder = build_encoder(dict(request.options).get("encoder", "hashing"), queries, request.seed, request.weights)
    embed = ContextEncoder(encoder, ("query",))
    learnt = examples(tree, request, embed)
    cost = learnt.cost.mean(axis=0)
    held_out = examples(held_out_tree, request, embed)
    best: OneHopRouter | None = None
    best_value = -np.inf
    for predict in candidates(learnt):
        router = OneHopRouter(embed, predict, cost, request.cost_weight)
        chosen = (predict(held_out.vectors) - request.cost_weight * cost).argmax(axis=1)
        rows = np.arange(len(chosen))
        value = float((held_out.score[rows, chosen] - request.cost_weight * held_out.cost[rows, chosen]).mean())
        if value > best_value:
            best, best_value = router, value
    assert best is not None
    return best
