"""`cascade`: cheap models first, and a learned judge that says when an answer is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from pools.mdp.optimum import path_costs
from pools.mdp.tree import IntArray, Tree
from pools.types import Context
from routers.encoders.base import ContextEncoder, build_encoder, load_encoder, save_encoder
from routers.one_hop import Predictor, fit_chances
from routers.registry import register
from routers.router import Learnt, RouterRequest, RoutingStates

FloatArray = NDArray[np.float64]
THRESHOLDS = tuple(np.linspace(0.0, 1.0, 21).tolist())


@dataclass(frozen=True)
class Judge:
    """The chance that the last response is right, by logistic regression on query, response and who gave it."""

    embed: ContextEncoder
    models: int
    predict: Predictor

    def __call__(self, contexts: Sequence[Context], last: IntArray) -> FloatArray:
        """`[n]` for contexts with a response of the models `last`."""
        return self.predict(judged_features(self.embed, self.models, contexts, last))[:, 0]


@dataclass(frozen=True, eq=False)
class Cascades:
    """Cascades of which no other was better for less, or as good, on validation items.

    chains: `[K, L]` models in order, padded with -1. thresholds: `[K]`. score, cost: `[K]` means on validation items.
    """

    chains: IntArray
    thresholds: FloatArray
    score: FloatArray
    cost: FloatArray

    def best(self, cost_weight: float) -> tuple[tuple[int, ...], float]:
        """Chain and threshold of the best value, of equals the first."""
        at = int((self.score - cost_weight * self.cost).argmax())
        return tuple(model for model in self.chains[at].tolist() if model >= 0), float(self.thresholds[at])


@dataclass(frozen=True)
class CascadeRouter:
    """Calls the models of `chain` in order until the judge gives a response at least `threshold`, or the chain ends.

    known: what chain and threshold are chosen from, for another cost weight.
    """

    chain: tuple[int, ...]
    threshold: float
    judge: Judge
    known: Cascades

    def at(self, cost_weight: float) -> CascadeRouter:
        """The cascade that was best on validation items at another cost weight; the judge is the same."""
        chain, threshold = self.known.best(cost_weight)
        return replace(self, chain=chain, threshold=threshold)

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the chain's next model, or STOP."""
        actions = np.array([*self.chain, self.judge.models], np.int64)[np.minimum(states.hop, len(self.chain))]
        asked = np.flatnonzero((states.hop > 0) & (states.hop < len(self.chain)))
        if len(asked):
            last = states.actions[asked, states.hop[asked] - 1]
            good = self.judge([states.contexts[n] for n in asked.tolist()], last) >= self.threshold
            actions[asked[good]] = self.judge.models
        return actions

    def callable_models(self) -> frozenset[int]:
        """Those of the chain."""
        return frozenset(self.chain)

    def routing_cost(self, states: RoutingStates) -> FloatArray:
        """`[B]` cost of the judge's encoder: it reads the query and each response but the chain's last."""
        judged = (states.hop > 0) & (states.hop < len(self.chain))
        queries = [Context(context.query) for context in states.contexts]
        own = self.judge.embed.cost(states.contexts) + (states.hop == 1) * self.judge.embed.cost(queries)
        return np.where(judged, own, 0.0)

    def save(self) -> Learnt:
        """Chain, threshold and what they were chosen from, judge and encoder."""
        judge = {f"judge.{name}": array for name, array in self.judge.predict.arrays.items()}
        chosen = {"chain": np.array(self.chain), "threshold": np.array(self.threshold)}
        known = {f"known.{name}": array for name, array in vars(self.known).items()}
        return {**judge, **chosen, **known, **save_encoder(self.judge.embed.encoder)}


@register("cascade")
@dataclass(frozen=True)
class Cascade:
    """A cascade as FrugalGPT's (arXiv 2305.05176): chain and threshold by validation items, the judge by train items.

    Here every model of the chain also reads the earlier responses, unless answers are independent (`import --hops`).
    """

    encoder: str = "hashing"
    """Encoder of query and response."""

    def fit(self, train: Tree, validation: Tree, request: RouterRequest) -> CascadeRouter:
        """Fit the judge, then choose chain and threshold."""
        encoder = build_encoder(self.encoder, train.contexts, request.seed, request.weights)
        judge = _learn(train, ContextEncoder(encoder))
        known = _cascades(validation, judge)
        return CascadeRouter(*known.best(request.cost_weight), judge, known)

    def load(self, learnt: Learnt, request: RouterRequest) -> CascadeRouter:
        """The router that was saved."""
        arrays = {n.removeprefix("judge."): np.asarray(a) for n, a in learnt.items() if n.startswith("judge.")}
        embed = ContextEncoder(load_encoder(learnt, request.weights))
        judge = Judge(embed, len(request.models), Predictor("Chances", arrays))
        known = Cascades(**{name: np.asarray(learnt[f"known.{name}"]) for name in Cascades.__dataclass_fields__})
        return CascadeRouter(tuple(np.asarray(learnt["chain"]).tolist()), float(learnt["threshold"]), judge, known)


def judged_features(embed: ContextEncoder, models: int, contexts: Sequence[Context], last: IntArray) -> FloatArray:
    """`[n, d + M]` what a judge sees of contexts with a response of the models `last`."""
    return np.concatenate([embed(contexts), np.eye(models)[last]], axis=1)


def _learn(tree: Tree, embed: ContextEncoder) -> Judge:
    # A judge sees query and last response; if no model reads earlier ones, later hops show it the first hop again.
    judged = tree.level(1) if tree.independent else np.arange(1, tree.nodes)
    items, nodes = (grid.ravel() for grid in np.meshgrid(np.arange(len(tree.items)), judged, indexing="ij"))
    contexts = [tree.contexts[c] for c in tree.context_ids(items, nodes).tolist()]
    seen = judged_features(embed, len(tree.models), contexts, tree.action(nodes))
    return Judge(embed, len(tree.models), fit_chances(seen, tree.score[items, nodes].astype(np.float64)[:, None]))


def _cascades(tree: Tree, judge: Judge) -> Cascades:
    """The cascades of different models, the shortest first, that no other beats on the tree's items."""
    spent = path_costs(tree)
    rows = np.arange(len(tree.items))
    believed: dict[int, FloatArray] = {}
    for node in range(1, tree.decision_nodes):
        contexts = [tree.contexts[c] for c in tree.context_id[:, node].tolist()]
        believed[node] = judge(contexts, np.full(len(rows), int(tree.action(node))))
    chains, found = [], []
    for length in range(1, tree.max_hops + 1):
        for chain in permutations(range(len(tree.models)), length):
            nodes = [tree.node(chain[: hop + 1]) for hop in range(length)]
            for threshold in THRESHOLDS if length > 1 else THRESHOLDS[:1]:
                at = np.full(len(rows), nodes[-1])
                for node in reversed(nodes[:-1]):
                    at = np.where(believed[node] >= threshold, node, at)
                chains.append([*chain, *[-1] * (tree.max_hops - length)])
                found.append((threshold, float(tree.score[rows, at].mean(dtype=np.float64)), spent[rows, at].mean()))
    thresholds, score, cost = np.array(found).T
    cheapest_first = np.lexsort((-score, cost))
    best_for_less = np.maximum.accumulate(np.append(-np.inf, score[cheapest_first]))[:-1]
    kept = np.sort(cheapest_first[score[cheapest_first] > best_for_less])
    return Cascades(np.array(chains)[kept], thresholds[kept], score[kept], cost[kept])
