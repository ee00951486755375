"""Learnt one-hop baselines: predict each model's score and cost from the query, call the best, stop.

`knn`, `ridge`, `logistic`, `extra-trees`, `mlp` and `matrix-factorisation` differ in how a score is predicted from the
embedding of a query. A candidate for each setting is fitted on train items; the one with the best value on validation
items, over a range of cost weights, is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.types import Context
from routers._threads import one_library_thread, one_thread
from routers.encoders.base import ContextEncoder, build_encoder, load_encoder, save_encoder
from routers.forest import check_forest, fit_forest, forest_mean
from routers.options import NonNegative, Positive
from routers.registry import register
from routers.router import Learnt, RouterRequest, RoutingStates

SHARES = (0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Cost weights, as the score that the mean cost of the most expensive model is worth."""
FloatArray = NDArray[np.float64]
Vectors = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts each model's score: a function of `FORMS` with the arrays that were fitted, which a checkpoint keeps."""

    form: str
    arrays: Mapping[str, NDArray[Any]]

    def __call__(self, queries: Vectors) -> FloatArray:
        """`[n, M]` scores from embeddings of queries `[n, d]`."""
        with one_library_thread():  # of neighbours that are equally near, the number of threads would choose
            return np.asarray(FORMS[self.form](queries, **self.arrays), np.float64)


@dataclass(frozen=True)
class Examples:
    """Queries with every model's outcome at the first hop. vectors: `[n, d]`. score, cost: `[n, M]`."""

    vectors: Vectors
    score: FloatArray
    cost: FloatArray


@dataclass(frozen=True, eq=False)
class OneHopRouter:
    """Calls the model with the best `predicted score - cost_weight * mean cost`, then stops.

    cost: `[M]` mean cost of each model on train items; what a query costs is known before only in part.
    """

    embed: ContextEncoder
    predict: Predictor
    cost: FloatArray
    cost_weight: float

    def at(self, cost_weight: float) -> OneHopRouter:
        """The same predictions, weighed against costs anew."""
        return replace(self, cost_weight=cost_weight)

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the best model at hop 0, STOP from then on."""
        return np.asarray(self.ranking(states).argmax(axis=1), np.int64)

    def ranking(self, states: RoutingStates) -> FloatArray:
        """`[B, M + 1]` the predicted value of each model at hop 0, STOP alone from then on."""
        value = np.full((len(states.contexts), len(self.cost) + 1), -np.inf)
        start = np.flatnonzero(states.hop == 0).tolist()
        if len(start):
            queries = self.embed([states.contexts[n] for n in start])
            value[start, :-1] = self.predict(queries) - self.cost_weight * self.cost
        value[states.hop > 0, -1] = 0.0
        return value

    def routing_cost(self, states: RoutingStates) -> FloatArray:
        """`[B]` cost of the encoder: it reads the query, once."""
        return self.embed.cost(states.contexts)

    def save(self) -> Learnt:
        """The predictor's arrays, the mean costs and the encoder."""
        arrays = {f"predictor.{name}": array for name, array in self.predict.arrays.items()}
        return {"predictor": self.predict.form, **arrays, "cost": self.cost, **save_encoder(self.embed.encoder)}


class OneHopLearner(Protocol):
    """What differs between the learners below; their `fit` and `load` are the two functions after this."""

    @property
    def encoder(self) -> str:
        """Encoder of the query."""
        ...

    def candidates(self, learnt: Examples, seed: int) -> Iterator[Predictor]:
        """One predictor for each setting, fitted on the examples."""
        ...


def fit_one_hop(self: OneHopLearner, train: Tree, validation: Tree, request: RouterRequest) -> OneHopRouter:
    """Fit candidates on train items; keep the one with the best value on validation items, at `weights_to_judge`."""
    queries = [Context(item.query) for item in train.items]
    embed = ContextEncoder(build_encoder(self.encoder, queries, request.seed, request.weights), ("query",))
    learnt = examples(train, embed)
    held_out = examples(validation, embed)
    cost, rows = learnt.cost.mean(axis=0), np.arange(len(held_out.score))
    weights = weights_to_judge(cost, request)

    def value(predict: Predictor) -> float:
        predicted = predict(held_out.vectors)
        chosen = [(weight, (predicted - weight * cost).argmax(axis=1)) for weight in weights]
        values = [held_out.score[rows, models] - weight * held_out.cost[rows, models] for weight, models in chosen]
        return float(np.mean(values))

    best = max(self.candidates(learnt, request.seed), key=value)  # of equals the first
    return OneHopRouter(embed, best, cost, request.cost_weight)


def weights_to_judge(cost: FloatArray, request: RouterRequest) -> list[float]:
    """Cost weights to choose settings at: the request's, and where the most expensive of models `[M]` costs `SHARES`.

    The router is used at others, too, and at a single one the few items of a small table would choose by chance.
    """
    most = float(cost.max())
    return [request.cost_weight, *(share / most for share in SHARES if most > 0)]


def load_one_hop(self: OneHopLearner, learnt: Learnt, request: RouterRequest) -> OneHopRouter:
    """The router that was saved."""
    embed = ContextEncoder(load_encoder(learnt, request.weights), ("query",))
    arrays = {n.removeprefix("predictor."): np.asarray(a) for n, a in learnt.items() if n.startswith("predictor.")}
    predict = Predictor(str(learnt["predictor"]), arrays)
    if predict.form == "Forest":
        check_forest(embed.dimension, arrays)
    cost = np.asarray(learnt["cost"], np.float64)
    width = predict(np.zeros((1, embed.dimension), np.float32)).shape
    if cost.shape != (len(request.models),) or width != (1, len(request.models)):
        raise ValueError(f"it predicts {width[1]} scores and {cost.shape} costs for {len(request.models)} models")
    return OneHopRouter(embed, predict, cost, request.cost_weight)


def examples(tree: Tree, embed: ContextEncoder) -> Examples:
    """The first hop of a tree's items."""
    nodes = tree.level(1)
    cost = tree.cost[:, nodes]
    return Examples(embed([Context(item.query) for item in tree.items]), tree.score[:, nodes].astype(np.float64), cost)


# --- k nearest neighbours ---------------------------------------------------------------------------------------------


@register("knn")
@dataclass(frozen=True)
class KNN:
    """One hop: mean score on the k nearest train queries (cosine); k is chosen on validation items."""

    encoder: str = "hashing"
    """Encoder of the query."""
    neighbours: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 3, 5, 10, 20, 40, 80)
    """The values of k to choose from."""

    fit, load = fit_one_hop, load_one_hop

    def candidates(self, learnt: Examples, seed: int) -> Iterator[Predictor]:
        """One for each k. Raises UserError if every k is above the number of items."""
        items = len(learnt.vectors)
        if min(self.neighbours) > items:
            raise UserError(f"router knn: neighbours are at least {min(self.neighbours)}, but there are {items} items")
        for k in self.neighbours:
            if k <= items:
                arrays = {"k": np.array(k), "vectors": learnt.vectors, "score": learnt.score}
                yield Predictor("Neighbours", arrays)


def mean_of_nearest(queries: Vectors, /, k: NDArray[np.int64], vectors: Vectors, score: FloatArray) -> FloatArray:
    """The mean score of the k nearest. k: `[]`. vectors: `[n, d]` of unit length. score: `[n, M]`."""
    from sklearn.neighbors import KNeighborsRegressor

    # Vectors have unit length, so the nearest are the most similar.
    predicted: FloatArray = KNeighborsRegressor(int(k)).fit(vectors, score).predict(queries)
    return predicted.reshape(len(queries), -1)


# --- linear and logistic regression -----------------------------------------------------------------------------------


@register("ridge")
@dataclass(frozen=True)
class Ridge:
    """One hop: ridge regression of each model's score on the query's embedding; penalty chosen on validation items."""

    encoder: str = "hashing"
    """Encoder of the query."""
    penalties: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """The L2 penalties to choose from."""

    fit, load = fit_one_hop, load_one_hop

    def candidates(self, learnt: Examples, seed: int) -> Iterator[Predictor]:
        """One for each penalty."""
        from sklearn import linear_model

        for penalty in self.penalties:
            model = linear_model.Ridge(penalty).fit(learnt.vectors, learnt.score)
            arrays = {"weights": np.atleast_2d(model.coef_), "bias": np.atleast_1d(model.intercept_)}
            yield Predictor("Linear", arrays)


def linear(queries: Vectors, /, weights: Vectors, bias: Vectors) -> Vectors:
    """Scores that are linear in the embedding. weights: `[M, d]`. bias: `[M]`."""
    return queries @ weights.T + bias


@register("logistic")
@dataclass(frozen=True)
class Logistic:
    """One hop: logistic regression of each model's score on the query's embedding; strength by validation items."""

    encoder: str = "hashing"
    """Encoder of the query."""
    strengths: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.1, 1.0, 10.0, 100.0)
    """The inverse L2 penalties to choose from."""

    fit, load = fit_one_hop, load_one_hop

    def candidates(self, learnt: Examples, seed: int) -> Iterator[Predictor]:
        """One for each strength."""
        for strength in self.strengths:
            yield fit_chances(learnt.vectors, learnt.score, strength)


def fit_chances(vectors: Vectors, score: FloatArray, strength: float = 1.0) -> Predictor:
    """Logistic regression on scores `[n, M]` in [0, 1]; one between 0 and 1 counts as right and wrong in proportion."""
    from sklearn.linear_model import LogisticRegression

    weights, bias = np.zeros((score.shape[1], vectors.shape[1]), vectors.dtype), np.zeros(score.shape[1])
    constant = np.full(score.shape[1], -1.0)
    for model, of_model in enumerate(score.T):
        share = np.concatenate([of_model, 1 - of_model])
        used, right = share > 0, np.repeat([1, 0], len(of_model))
        if len(set(right[used].tolist())) < 2:
            constant[model] = of_model.mean()
            continue
        fitted = LogisticRegression(C=strength, max_iter=1000)
        fitted.fit(np.concatenate([vectors, vectors])[used], right[used], share[used])
        weights[model], bias[model] = fitted.coef_[0], fitted.intercept_[0]
    return Predictor("Chances", {"weights": weights, "bias": bias, "constant": constant})


def chances(queries: Vectors, /, weights: Vectors, bias: Vectors, constant: FloatArray) -> Vectors:
    """Chances of being right. weights: `[M, d]`. bias: `[M]`.

    constant: `[M]` the chance of a model that was always right, or always wrong; else -1.
    """
    from scipy.special import expit

    return np.where(constant >= 0, constant, expit(linear(queries, weights, bias)))


# --- trees ------------------------------------------------------------------------------------------------------------


@register("extra-trees")
@dataclass(frozen=True)
class ExtraTrees:
    """One hop: extremely randomised trees predict each model's score from the query's embedding.

    The size of their leaves is chosen on validation items.
    """

    encoder: str = "hashing"
    """Encoder of the query."""
    trees: PositiveInt = 200
    """How many there are."""
    leaves: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 5, 10, 20, 40)
    """The fewest train items of a leaf: the values to choose from."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Of the embedding's columns, that are tried at each split."""

    fit, load = fit_one_hop, load_one_hop

    def candidates(self, learnt: Examples, seed: int) -> Iterator[Predictor]:
        """One for each size of a leaf."""
        for leaf in self.leaves:
            grown = fit_forest(learnt.vectors, learnt.score, trees=self.trees, leaf=leaf, share=self.share, seed=seed)
            yield Predictor("Forest", grown)


# --- networks ---------------------------------------------------------------------------------------------------------


@register("mlp")
@dataclass(frozen=True)
class MLP:
    """One hop: a network with one hidden layer predicts each model's score from the query's embedding."""

    encoder: str = "hashing"
    """Encoder of the query."""
    hidden: PositiveInt = 64
    """Width of the hidden layer."""
    penalties: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.01, 1.0)
    """The L2 penalties to choose from."""

    fit, load = fit_one_hop, load_one_hop

    def candidates(self, learnt: Examples, seed: int) -> Iterator[Predictor]:
        """One for each penalty."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        for penalty in self.penalties:
            model = MLPRegressor(
                hidden_layer_sizes=(self.hidden,), alpha=penalty, solver="lbfgs", max_iter=500, random_state=seed
            )
            # Hundreds of steps make of the last bit, which the number of threads decides, another network.
            with one_library_thread(), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a bounded number of steps is meant
                # A single column must be given flat.
                model.fit(learnt.vectors, learnt.score if learnt.score.shape[1] > 1 else learnt.score.ravel())
            (inner, outer), (inner_bias, outer_bias) = model.coefs_, model.intercepts_
            arrays = {"inner": inner, "inner_bias": inner_bias, "outer": outer, "outer_bias": outer_bias}
            yield Predictor("Network", arrays)


def network(queries: Vectors, /, inner: Vectors, inner_bias: Vectors, outer: Vectors, outer_bias: Vectors) -> Vectors:
    """One hidden layer of rectified units. inner: `[d, h]`. inner_bias: `[h]`. outer: `[h, M]`. outer_bias: `[M]`."""
    return np.maximum(queries @ inner + inner_bias, 0) @ outer + outer_bias


@register("matrix-factorisation")
@dataclass(frozen=True)
class MatrixFactorisation:
    """One hop: the bilinear form of RouteLLM (arXiv 2406.18665) between a model's vector and the query's embedding.

    `sigmoid(v_m . (W v_q) + b_m)` is fitted to each model's score. RouteLLM fits the difference of two models to
    preferences; if every model's score is known, each can be fitted to its own. The penalty on both factors is one on
    the rank and size of what they make (Srebro et al. 2004), so the more of it, the nearer to each model's mean score.
    """

    encoder: str = "hashing"
    """Encoder of the query."""
    dimension: PositiveInt = 32
    """Of the vectors that are matched."""
    steps: PositiveInt = 200
    """Steps of Adam over all train items."""
    learning_rate: Positive = 0.02
    """Its step size."""
    penalties: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    """The L2 penalties to choose from."""

    fit, load = fit_one_hop, load_one_hop

    def candidates(self, learnt: Examples, seed: int) -> Iterator[Predictor]:
        """One for each penalty."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        vectors = torch.from_numpy(np.asarray(learnt.vectors, np.float32))
        target = torch.from_numpy(learnt.score.astype(np.float32))
        often = target.mean(dim=0).clamp(0.01, 0.99)
        for penalty in self.penalties:
            drawn = torch.Generator().manual_seed(seed)
            project = torch.randn(self.dimension, vectors.shape[1], generator=drawn) / vectors.shape[1] ** 0.5
            models = torch.randn(target.shape[1], self.dimension, generator=drawn) / 10
            parameters = [project, models, torch.logit(often)]
            with one_thread():
                optimizer = torch.optim.Adam([part.requires_grad_() for part in parameters], lr=self.learning_rate)
                for _ in range(self.steps):
                    logits = vectors @ project.T @ models.T + parameters[2]
                    size = (project.square().sum() + models.square().sum()) / len(models)
                    loss = binary_cross_entropy_with_logits(logits, target) + penalty * size
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            project, models, offset = (part.detach().numpy() for part in parameters)
            yield Predictor("Factors", {"project": project, "models": models, "offset": offset})


def factors(queries: Vectors, /, project: Vectors, models: Vectors, offset: Vectors) -> Vectors:
    """`sigmoid(v_m . (project v_q) + offset_m)`. project: `[k, d]`. models: `[M, k]`. offset: `[M]`."""
    from scipy.special import expit

    return np.asarray(expit(queries @ project.T @ models.T + offset))


FORMS: Mapping[str, Any] = {
    "Neighbours": mean_of_nearest,
    "Linear": linear,
    "Chances": chances,
    "Forest": forest_mean,
    "Network": network,
    "Factors": factors,
}
