"""Backward induction over a recorded tree, with a regression of what is to come at each hop; cross-validation of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pools.mdp.optimum import path_costs
from pools.mdp.tree import IntArray, Tree
from pools.types import Context
from routers.forest import fit_forest, forest_mean
from routers.router import RouterRequest
from routers.states import StateFeatures

FloatArray = NDArray[np.float64]
Columns = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
"""A regression of `K` outputs: `weights` `[d, K]` and `bias` `[K]`, or a forest (`routers.forest`)."""

FOLDS = 5  # of cross-validation; a validation set of 200 items alone chose by chance
CONSTANT = 1e9
"""A penalty that leaves nothing of a column."""
PENALTIES = (1.0, 0.1, 0.01)
TEXT_PENALTIES = (10.0, 1.0)
"""What `texts_pay` compares: L2 penalties, and how many times as much columns of texts are penalised."""
COMPARED = 5
"""At how many cost weights at most."""
MAX_STATES = 200_000
"""On how many states at most."""
UNPENALISED = 1e-5  # not 0: some columns are sums of others
FOREST_CELLS = 200_000  # of the targets that a forest is fitted to; of more a sample is taken
TIE = 1e-6
"""Values that are closer than this are equal, and the cheaper action is taken."""
_AT_ONCE = 1 << 14  # states whose columns are made at once


# --- what a regression sees -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """Turns states of one hop into columns of six kinds: who spoke, texts, all others, and products of each.

    Products are pairs of models, and surface and agreement once more for each model that may have spoken last: a long
    answer, or a query with digits in it, means another thing of another model. Only linear regressions need them.
    """

    features: StateFeatures

    def __call__(self, hop: int, contexts: Sequence[Context], actions: IntArray, cost: FloatArray) -> list[FloatArray]:
        """`[n, ...]` of each kind, of contexts with `hop` responses.

        actions: `[n, L]` who spoke, padded with -1. cost: `[n]` what was spent.
        """
        blocks = self.features.blocks(contexts, np.full(len(contexts), hop), cost, actions)
        nothing = np.zeros((len(contexts), 0))

        def named(*names: str) -> FloatArray:
            return np.concatenate([nothing, *(blocks[name] for name in names if name in blocks)], axis=1)

        last, models = named("last"), self.features.models
        earlier = named("spoke")[:, : max(self.features.max_hops - 2, 0) * models].copy()
        earlier[:, max(hop - 1, 0) * models :] = 0
        texts, agrees = named("query surface", "response surface"), named("agrees", "agrees with")
        plain = [np.concatenate(pair, axis=1) for pair in ((earlier, last), (texts, named("embedding")))]
        others = np.concatenate([agrees, named("cost")], axis=1)
        return [*plain, others, *(_products(each, last) for each in (earlier, texts, agrees))]

    @property
    def kinds(self) -> IntArray:
        """`[d]` of each column its place in what is returned; there are the same at every hop."""
        start = [Context("")], np.full((1, self.features.max_hops), -1), np.zeros(1)
        widths = [kind.shape[1] for kind in self(0, *start)]
        return np.repeat(np.arange(len(widths)), widths)


def _products(one: FloatArray, other: FloatArray) -> FloatArray:
    """`[n, a * b]` every column of one times every column of the other."""
    return (one[:, :, None] * other[:, None, :]).reshape(len(one), -1)


# --- the states that are learnt from ----------------------------------------------------------------------------------


def at_most(states: int, parts: Sequence[Tree], seed: int) -> list[Tree]:
    """Trees of as many items as have so many decision nodes together: all of them, or a sample."""
    shared = sum(len(part.items) for part in parts) * parts[0].decision_nodes / states
    if shared <= 1:
        return list(parts)
    drawn = [np.random.default_rng(seed).permutation(len(part.items)) for part in parts]
    kept = [np.sort(items[: max(1, int(len(items) / shared))]) for items in drawn]
    return [part.subset(items) for part, items in zip(parts, kept, strict=True)]


@dataclass(frozen=True, eq=False)
class Level:
    """The `n` states of one hop, item by item.

    columns: `[n, d]`, standardised by mean and scale `[d]`. fold: `[n]` in which each is held out. counts, sums,
    squares: `[FOLDS, ...]` how many there are in each fold, their sum `[d]` and that of their outer products `[d, d]`.
    """

    columns: Columns
    mean: FloatArray
    scale: FloatArray
    fold: IntArray
    counts: FloatArray
    sums: FloatArray
    squares: FloatArray


@dataclass(frozen=True, eq=False)
class Examples:
    """All states of `I` items and what every action there leads to.

    tree: of which the shape is used. fold: `[I]` in which each item is held out. score, cost: `[I, N]`, costs in units
    of `cost_scale`. kinds: `[d]` of each column its place in what `Seen` returns.
    """

    tree: Tree
    allow_stop: bool
    fold: IntArray
    score: FloatArray
    cost: FloatArray
    levels: Sequence[Level]
    kinds: IntArray


def examples_of(parts: Sequence[Tree], see: Seen, request: RouterRequest) -> Examples:
    """All states of all items of trees of one shape."""
    tree = parts[0]
    score = np.concatenate([part.score for part in parts]).astype(np.float64)
    cost = np.concatenate([part.cost for part in parts]) / see.features.cost_scale
    fold = np.random.default_rng(request.seed).permutation(len(score)) % FOLDS
    levels = []
    for hop in range(tree.max_hops):
        columns = np.concatenate([_columns(part, see, hop) for part in parts])
        levels.append(_level(columns, np.repeat(fold, len(tree.level(hop)))))
    return Examples(tree, request.allow_stop, fold, score, cost, levels, see.kinds)


def _columns(tree: Tree, see: Seen, hop: int) -> Columns:
    """`[I * nodes, d]` the columns of all states of a hop, item by item."""
    nodes, spent = tree.level(hop), path_costs(tree)
    pipelines, found = tree.pipelines()[nodes], []
    at_once = max(1, _AT_ONCE // len(nodes))
    for start in range(0, len(tree.items), at_once):
        items = slice(start, start + at_once)
        contexts = [tree.contexts[c] for c in tree.context_id[items, nodes].ravel().tolist()]
        actions = np.tile(pipelines, (len(contexts) // len(nodes), 1))
        kinds = see(hop, contexts, actions, spent[items, nodes].ravel())
        found.append(np.concatenate(kinds, axis=1, dtype=np.float32))
    return np.concatenate(found)


def _level(columns: Columns, fold: IntArray) -> Level:
    mean, spread = columns.mean(axis=0, dtype=np.float64), columns.std(axis=0, dtype=np.float64)
    scale = np.where(spread > np.maximum(1e-6 * np.abs(columns).max(axis=0), 1e-12), spread, 1.0)
    columns -= mean.astype(np.float32)
    columns /= scale.astype(np.float32)
    by_fold = [columns[fold == number] for number in range(FOLDS)]
    counts, sums = (np.array([of(each) for each in by_fold], np.float64) for of in (len, lambda each: each.sum(axis=0)))
    squares = np.array([each.T @ each for each in by_fold], np.float64)
    return Level(columns, mean, scale, fold, counts, sums, squares)


# --- what is learnt of them -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class HopRegression:
    """Score and cost to come at one hop, for each of `W` cost weights, or of the last hop for all of them alike.

    mean, scale: `[d]` that columns are standardised by. arrays: a regression of `W * 2A` outputs; for each cost weight
    the score to come of each of the `A` actions, then the cost to come.
    """

    mean: FloatArray
    scale: FloatArray
    arrays: Arrays

    def __call__(self, columns: FloatArray, outputs: slice) -> FloatArray:
        """`[k, n]` some of the outputs at states with these columns `[n, d]`."""
        return predict(((columns - self.mean) / self.scale).astype(np.float32), self.arrays, outputs)


def predict(columns: Columns, arrays: Arrays, outputs: slice = slice(None)) -> FloatArray:
    """`[k, n]` outputs of a regression at standardised columns `[n, d]`."""
    if "roots" in arrays:
        chosen = {**arrays, "value": arrays["value"][:, outputs]}
        return forest_mean(columns, **chosen).T
    return np.asarray(arrays["weights"][:, outputs].T @ columns.T + arrays["bias"][outputs, None])


def best_action(predicted: FloatArray, cost_weight: float) -> IntArray:
    """`[n]` the best action by scores and costs to come `[2A, n]`; of equally good ones the cheapest."""
    score, cost = np.split(predicted, 2)
    value = score - cost_weight * cost
    best = value >= value.max(axis=0) - TIE
    return np.asarray(np.where(best, cost, np.inf).argmin(axis=0), np.int64)


Regress = Callable[[Level, FloatArray, int], Arrays]
"""Fits outputs `[n, K]` to the states of a level that are not in a fold, which is held out."""


@dataclass(frozen=True)
class RidgeRegression:
    """Linear in standardised columns. penalties: `[d]` of each column, per state."""

    penalties: FloatArray

    def __call__(self, level: Level, target: FloatArray, held_out: int) -> Arrays:
        """Weights and bias."""
        others = np.arange(FOLDS) != held_out
        states = level.counts[others].sum()
        mean, middle = level.sums[others].sum(axis=0) / states, target[level.fold != held_out].mean(axis=0)
        # What is held out is 0, which adds nothing to the sum.
        centred = np.where((level.fold != held_out)[:, None], target - middle, 0).astype(np.float32)
        together = (level.columns.T @ centred).astype(np.float64) / states
        spread = level.squares[others].sum(axis=0) / states - np.outer(mean, mean)
        weights = np.linalg.solve(spread + np.diag(self.penalties), together)
        return {"weights": weights.astype(np.float32), "bias": (middle - mean @ weights).astype(np.float32)}


@dataclass(frozen=True, eq=False)
class ForestRegression:
    """A forest of extremely randomised trees, on some of the columns; of very many states on a sample."""

    columns: IntArray
    trees: int
    leaf: int
    seed: int

    def __call__(self, level: Level, target: FloatArray, held_out: int) -> Arrays:
        """The arrays of a forest."""
        rows, most = np.flatnonzero(level.fold != held_out), max(1, FOREST_CELLS // target.shape[1])
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(self.seed).permutation(rows)[:most])
        seen, target = level.columns[np.ix_(rows, self.columns)], target[rows]
        spread = target.std(axis=0)
        spread = np.where(spread > 1e-9, spread, 1.0)  # so that all outputs count alike
        leaf = min(self.leaf, len(rows))
        arrays = fit_forest(seen, target / spread, trees=self.trees, leaf=leaf, seed=self.seed)
        feature = self.columns[arrays["feature"]].astype(np.int32)
        return {**arrays, "feature": feature, "value": arrays["value"] * spread}


def ridges(kinds: IntArray, penalties: Iterable[float], text_penalties: Iterable[float]) -> list[RidgeRegression]:
    """Ridge regressions of all pairs of an L2 penalty and of how many times that is the penalty of texts' columns.

    Those that learn least come first. Who spoke is not penalised.
    """
    pairs = sorted(product(penalties, text_penalties), reverse=True)
    of_kinds = [np.tile([UNPENALISED, each * times, each], 2) for each, times in pairs]
    return [RidgeRegression(penalty[kinds]) for penalty in of_kinds]


def cross_validated(examples: Examples, settings: Sequence[Regress], cost_weights: FloatArray) -> FloatArray:
    """`[settings, I]` value of items held out in turn: a mean over cost weights, each divided by what is at stake."""
    stakes = 1 + cost_weights * examples.cost[:, examples.tree.level(1)].mean(axis=0).max()
    attained = np.zeros((len(settings), len(examples.score)))
    for fold in range(FOLDS if len(examples.score) >= FOLDS else 0):
        held_out = examples.fold == fold
        for number, regress in enumerate(settings):
            _, score, cost = induce(examples, regress, fold, cost_weights)
            value = (score - cost_weights[:, None] * cost) / stakes[:, None]
            attained[number, held_out] = value[:, held_out].mean(axis=0)
    return attained


def texts_pay(parts: Sequence[Tree], features: StateFeatures, request: RouterRequest) -> bool:
    """Whether a policy should read texts, their surface and embeddings, or only see who spoke and what agrees.

    Texts have to be better by more than one standard error, in cross-validation of ridge regressions over the items of
    `parts`, which are train and validation items: of a few hundred validation items alone chance would choose. Of
    fewer items than folds nothing is known, and everything is seen.
    """
    parts = at_most(MAX_STATES, parts, request.seed)
    examples = examples_of(parts, Seen(features), request)
    if len(examples.score) < FOLDS:
        return True
    cost_weights = np.array(request.cost_weights or (request.cost_weight,)) * features.cost_scale
    cost_weights = cost_weights[:: -(-len(cost_weights) // COMPARED)]
    with_texts, without = (
        cross_validated(examples, ridges(examples.kinds, PENALTIES, times), cost_weights)
        for times in (TEXT_PENALTIES, (CONSTANT,))
    )
    gain = with_texts[with_texts.mean(axis=1).argmax()] - without[without.mean(axis=1).argmax()]
    return bool(gain.mean() > gain.std() / math.sqrt(len(gain)))


def induce(
    examples: Examples, regress: Regress, held_out: int, cost_weights: FloatArray
) -> tuple[tuple[HopRegression, ...], FloatArray, FloatArray]:
    """Backward induction for all cost weights at once: the regressions, and of each item `[W, I]` score and cost.

    What is to come at the last hop depends on no policy, so its regression serves all cost weights.
    """
    found: list[HopRegression] = []
    leaves = examples.tree.level(examples.tree.max_hops)
    score = examples.score[None, :, leaves]  # [W, I, nodes] to come, W = 1 if it is the same for all cost weights
    cost = np.zeros(score.shape)
    for hop, level in reversed(list(enumerate(examples.levels))):
        scores, costs = _options(examples, hop, score, cost)
        target = np.stack([scores, costs], axis=3).transpose(1, 2, 0, 3, 4).reshape(len(level.columns), -1)
        arrays = regress(level, target, held_out)
        found.insert(0, HopRegression(level.mean, level.scale, arrays))
        predicted = predict(level.columns, arrays).reshape(len(scores), -1, len(level.columns))
        of_weight = [predicted[number * (len(scores) > 1)] for number in range(len(cost_weights))]
        chosen = [best_action(each, weight) for each, weight in zip(of_weight, cost_weights.tolist(), strict=True)]
        action = np.array(chosen).reshape(-1, *scores.shape[1:3], 1)
        score, cost = (_taken(each, action) for each in (scores, costs))
    return tuple(found), score[..., 0], cost[..., 0]


def _options(examples: Examples, hop: int, score: FloatArray, cost: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`[W, I, nodes, A]` scores and costs to come of each action at a hop, from those `[W, I, nodes * M]` after it."""
    tree, nodes = examples.tree, examples.tree.level(hop)
    form = (
        *score.shape[:2],
        len(nodes),
        len(tree.models),
    )  # the children of a hop's nodes are the next hop's, in order
    scores, costs = score.reshape(form), (cost + examples.cost[:, tree.level(hop + 1)]).reshape(form)
    if examples.allow_stop and hop:
        own = np.broadcast_to(examples.score[:, nodes], form[:3])[..., None]
        scores, costs = (np.concatenate(pair, axis=3) for pair in ((scores, own), (costs, np.zeros(own.shape))))
    return scores, costs


def _taken(each: FloatArray, action: IntArray) -> FloatArray:
    """`[W, I, nodes]` of `[W or 1, I, nodes, A]` what the actions `[W, I, nodes, 1]` lead to."""
    return np.take_along_axis(np.broadcast_to(each, (*action.shape[:3], each.shape[3])), action, axis=3)[..., 0]
