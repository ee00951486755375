"""`query-only`: picks a whole pipeline by the query alone; the bar for a router that reads the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from pools.mdp.optimum import path_costs
from pools.mdp.tree import IntArray, Tree
from pools.types import Context
from routers.encoders.base import ContextEncoder, build_encoder, load_encoder, save_encoder
from routers.one_hop import KNN, Examples, FloatArray, Predictor, Ridge, weights_to_judge
from routers.options import NonNegative
from routers.registry import register
from routers.router import Learnt, RouterRequest, RoutingStates

# Of cross-validation. On 200 validation items alone noise chose: on RouterBench's ARC a router below the best model.
FOLDS = 5


@dataclass(frozen=True, eq=False)
class QueryOnlyRouter:
    """Follows the pipeline with the best `predicted score - cost_weight * predicted cost`, whatever is answered.

    predict: from embeddings of queries `[n, d]` the scores of the `K` pipelines and then their costs, `[n, 2K]`.
    actions: `[K, L + 1]` the models of each pipeline in order, then STOP.
    """

    embed: ContextEncoder
    predict: Predictor
    actions: IntArray
    cost_weight: float

    def at(self, cost_weight: float) -> QueryOnlyRouter:
        """The same predictions, weighed against costs anew."""
        return replace(self, cost_weight=cost_weight)

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the next model of the query's pipeline, or STOP after its last."""
        chosen = best_pipelines(self.predict(self.embed(states.contexts)), self.cost_weight)
        return np.asarray(self.actions[chosen, states.hop])

    def callable_models(self) -> frozenset[int]:
        """Those of the pipelines that there are to choose from."""
        return frozenset(self.actions.ravel().tolist()) - {int(self.actions[0, -1])}

    def routing_cost(self, states: RoutingStates) -> FloatArray:
        """`[B]` cost of the encoder: it reads the query, once."""
        return self.embed.cost(states.contexts)

    def save(self) -> Learnt:
        """The predictor's arrays, the pipelines and the encoder."""
        arrays = {f"predictor.{name}": array for name, array in self.predict.arrays.items()}
        return {"predictor": self.predict.form, **arrays, "actions": self.actions, **save_encoder(self.embed.encoder)}


def best_pipelines(predicted: FloatArray, cost_weight: float) -> IntArray:
    """`[n]` the pipeline with the best value, by scores and then costs `[n, 2K]`; of equals the first."""
    score, cost = np.split(predicted, 2, axis=1)
    return np.asarray((score - cost_weight * cost).argmax(axis=1), np.int64)


@register("query-only")
@dataclass(frozen=True)
class QueryOnly:
    """Multi-hop: a pipeline chosen by the query alone, by ridge regression or nearest neighbours; reads no answer.

    For each pipeline its score and its cost are regressed on the embedding of the query. Which regression is taken,
    and with which setting, is chosen by value in cross-validation over train and validation items; it is then fitted on
    all of these.
    """

    encoder: str = "hashing"
    """Encoder of the query."""
    penalties: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (*Ridge.penalties, 1e3, 1e4)
    """The L2 penalties of the ridge regression to choose from; the highest leaves one pipeline for all queries."""
    neighbours: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = KNN.neighbours
    """The numbers of nearest train queries to choose from."""
    most: PositiveInt = 50
    """How many pipelines there are to choose from at most."""

    def fit(self, train: Tree, validation: Tree, request: RouterRequest) -> QueryOnlyRouter:
        """Fit the regression that cross-validation finds best."""
        parts = [train] if validation is train else [train, validation]  # of very few items none are held out
        queries = [Context(item.query) for part in parts for item in part.items]
        embed = ContextEncoder(build_encoder(self.encoder, queries, request.seed, request.weights), ("query",))
        nodes = useful_pipelines(train, sorted({0.0, request.cost_weight, *request.cost_weights}), self.most)
        score = np.concatenate([part.score[:, nodes] for part in parts]).astype(np.float64)
        cost = np.concatenate([path_costs(part)[:, nodes] for part in parts])
        learnt = Examples(embed(queries), np.concatenate([score, cost], axis=1), cost)
        weights = weights_to_judge(train.cost[:, train.level(1)].mean(axis=0), request)
        predict = self._best(learnt, np.array(weights), request.seed)
        stop, pipelines = len(train.models), train.pipelines()[nodes]
        actions = np.pad(np.where(pipelines < 0, stop, pipelines), ((0, 0), (0, 1)), constant_values=stop)
        return QueryOnlyRouter(embed, predict, actions, request.cost_weight)

    def _best(self, learnt: Examples, cost_weights: FloatArray, seed: int) -> Predictor:
        """The regression with the best value, a mean over cost weights; of equals that of the highest penalty."""
        items = len(learnt.vectors)
        fold_of = np.random.default_rng(seed).permutation(items) % FOLDS
        fewest = items - int((fold_of == 0).sum())  # that are fitted on while a fold is held out
        attained = np.zeros((len(self.penalties) + len(self.neighbours), items))
        for fold in range(FOLDS if items >= FOLDS else 0):
            others, held_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            part = Examples(learnt.vectors[others], learnt.score[others], learnt.cost[others])
            score, _ = np.split(learnt.score[held_out], 2, axis=1)
            value = score - cost_weights[:, None, None] * learnt.cost[held_out]
            for number, predict in enumerate(self._candidates(part, fewest, seed)):
                predicted = predict(learnt.vectors[held_out])
                chosen = np.array([best_pipelines(predicted, weight) for weight in cost_weights.tolist()])
                attained[number, held_out] = np.take_along_axis(value, chosen[:, :, None], axis=2).mean(axis=(0, 2))
        fitted = self._candidates(learnt, fewest, seed)
        return fitted[int(attained[: len(fitted)].mean(axis=1).argmax())]

    def _candidates(self, learnt: Examples, fewest: int, seed: int) -> list[Predictor]:
        """A regression for each setting, of neighbours those that are there among `fewest` items."""
        found = list(Ridge(penalties=tuple(sorted(self.penalties, reverse=True))).candidates(learnt, seed))
        if few := tuple(k for k in self.neighbours if k <= fewest):
            found += KNN(neighbours=few).candidates(learnt, seed)
        return found

    def load(self, learnt: Learnt, request: RouterRequest) -> QueryOnlyRouter:
        """The router that was saved."""
        embed = ContextEncoder(load_encoder(learnt, request.weights), ("query",))
        arrays = {n.removeprefix("predictor."): np.asarray(a) for n, a in learnt.items() if n.startswith("predictor.")}
        predict, actions = Predictor(str(learnt["predictor"]), arrays), np.asarray(learnt["actions"], np.int64)
        stop, width = len(request.models), predict(np.zeros((1, embed.dimension), np.float32)).shape
        if actions.shape != (width[1] // 2, request.max_hops + 1) or width[1] % 2:
            raise ValueError(f"it predicts {width[1]} figures for pipelines of the form {actions.shape}")
        if (actions < 0).any() or (actions > stop).any() or (actions[:, 0] == stop).any():
            raise ValueError(f"a pipeline has an action that is none of {stop} models")
        return QueryOnlyRouter(embed, predict, actions, request.cost_weight)


def useful_pipelines(tree: Tree, cost_weights: Sequence[float], most: int) -> IntArray:
    """The nodes of at most `most` pipelines, in order.

    If models do not read earlier answers, a pipeline is worth no more than its last model, and those of one hop are
    enough. Of too many those are taken, one after another, that add most to the best value of each item, at the cost
    weights in turn.
    """
    nodes = tree.level(1) if tree.independent else np.arange(1, tree.nodes)
    if len(nodes) <= most:
        return nodes
    score, cost = tree.score[:, nodes].astype(np.float64), path_costs(tree)[:, nodes]
    taken: list[int] = []
    for number in range(most):
        value = score - cost_weights[number % len(cost_weights)] * cost
        so_far = value[:, taken].max(axis=1, keepdims=True) if taken else np.full((len(value), 1), -np.inf)
        total = np.maximum(value, so_far).sum(axis=0)
        total[taken] = -np.inf
        taken.append(int(total.argmax()))
    return nodes[sorted(taken)]
