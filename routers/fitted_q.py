"""`fitted-q`: backward induction over the recorded tree, with a regression of what is to come at each hop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from pools.answers import answer_reader
from pools.cost import MAX_COST
from pools.mdp.optimum import path_costs
from pools.mdp.tree import IntArray, Tree
from pools.types import Context
from routers._threads import one_library_thread
from routers.encoders.base import SEEN, ContextEncoder, load_encoder, save_encoder
from routers.forest import check_forest, fit_forest, forest_mean
from routers.options import Positive
from routers.registry import register
from routers.router import Learnt, RouterRequest, RoutingStates
from routers.states import Part, StateFeatures, features_of

FloatArray = NDArray[np.float64]
Columns = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
"""A regression of `K` outputs: `weights` `[d, K]` and `bias` `[K]`, or a forest (`routers.forest`)."""
FOREST = ("roots", "children", "feature", "threshold", "value")

WEIGHTS = 17
"""How many cost weights are fitted at most besides those asked for."""
COMPARED = 9
"""At how many of them settings are compared at most, besides the one asked for."""
FOLDS = 5  # of cross-validation; a validation set of 200 items alone chose by chance
CONSTANT = 1e9
"""A penalty that leaves nothing of a column."""
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


# --- the router -------------------------------------------------------------------------------------------------------


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
        return _predict(((columns - self.mean) / self.scale).astype(np.float32), self.arrays, outputs)


def _predict(columns: Columns, arrays: Arrays, outputs: slice = slice(None)) -> FloatArray:
    """`[k, n]` outputs of a regression at standardised columns `[n, d]`."""
    if "roots" in arrays:
        chosen = {**arrays, "value": arrays["value"][:, outputs]}
        return forest_mean(columns, **chosen).T
    return np.asarray(arrays["weights"][:, outputs].T @ columns.T + arrays["bias"][outputs, None])


def _best(predicted: FloatArray, cost_weight: float) -> IntArray:
    """`[n]` the best action by scores and costs to come `[2A, n]`; of equally good ones the cheapest."""
    score, cost = np.split(predicted, 2)
    value = score - cost_weight * cost
    best = value >= value.max(axis=0) - TIE
    return np.asarray(np.where(best, cost, np.inf).argmin(axis=0), np.int64)


@dataclass(frozen=True, eq=False)
class FittedQRouter:
    """Takes the action with the best `score to come - cost_weight * cost to come`.

    hops: the regressions of each hop. fitted: `[W]` the cost weights that they are fitted for, in order. What is to
    come is that under the policy of the nearest of these; it is weighed by the cost weight itself.
    """

    see: Seen
    hops: tuple[HopRegression, ...]
    fitted: FloatArray
    cost_weight: float
    allow_stop: bool

    def at(self, cost_weight: float) -> FittedQRouter:
        """The policy of another cost weight."""
        return replace(self, cost_weight=cost_weight)

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` actions."""
        features, last = self.see.features, len(self.hops) - 1
        actions = np.full(len(states.contexts), features.models, np.int64)
        nearest = _nearest(self.fitted, self.cost_weight)
        for hop, regression in enumerate(self.hops):
            here = np.flatnonzero(states.hop == hop)
            if len(here):
                contexts = [states.contexts[n] for n in here.tolist()]
                columns = np.concatenate(self.see(hop, contexts, states.actions[here], states.cost[here]), axis=1)
                width, place = 2 * _actions(features.models, hop, self.allow_stop), nearest * (hop < last)
                with one_library_thread():
                    predicted = regression(columns, slice(place * width, (place + 1) * width))
                actions[here] = _best(predicted, self.cost_weight * features.cost_scale)
        return actions

    def routing_cost(self, states: RoutingStates) -> FloatArray:
        """`[B]` cost of the encoder, if one is used: it reads the query and each response that is routed on."""
        return self.see.features.cost(states.contexts)

    def save(self) -> Learnt:
        """The regressions of each hop, their cost weights, how answers and costs are read, the encoder if one is."""
        found: dict[str, NDArray[Any] | str] = {"cost_weights": self.fitted, "answers": self.see.features.answers}
        found["cost_scale"] = np.array(self.see.features.cost_scale)
        for number, hop in enumerate(self.hops):
            arrays = {"mean": hop.mean, "scale": hop.scale, **hop.arrays}
            found |= {f"hop-{number}.{name}": array for name, array in arrays.items()}
        embed = self.see.features.embed
        return {**found, **({} if embed is None else save_encoder(embed.encoder))}


def _actions(models: int, hop: int, allow_stop: bool) -> int:
    return models + int(allow_stop and hop > 0)


def _nearest(fitted: FloatArray, cost_weight: float) -> int:
    """The place of the fitted weight that is nearest by ratio; 0 is far from all others."""
    floor = min((weight for weight in fitted.tolist() if weight > 0), default=1.0) / 100
    logs = np.log(np.maximum([*fitted, cost_weight], floor))
    return int(np.abs(logs[:-1] - logs[-1]).argmin())


# --- how it learns ----------------------------------------------------------------------------------------------------


@register("fitted-q")
@dataclass(frozen=True)
class FittedQ:
    """Multi-hop: fitted Q iteration, backwards from the last hop, by ridge or extra trees; reads the answers.

    At each hop it regresses, for every action, the score of the answer that the policy of the later hops ends with and
    what that policy spends. The tree is complete, so these are known for every action of every state. The policy is
    greedy. Penalties, or the size of leaves, are chosen by value, over a range of cost weights, in cross-validation
    over train and validation items; the regressions are then fitted on all of these. Fitted Q iteration: Ernst, Geurts
    and Wehenkel 2005 (JMLR 6).
    """

    sees: tuple[Part, ...] = ("models", "agreement", "surface", "cost")
    """What the regressions see of a state; query and response are their embeddings."""
    encoder: str = "hashing"
    """Encoder of query and response, if they are seen."""
    regression: Literal["ridge", "extra-trees", "auto"] = "auto"
    """The regression: linear in columns and products of columns, a forest, or what is better in cross-validation."""
    penalties: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 0.1, 0.01, 1e-3)
    """The L2 penalties of a ridge regression to choose from, per state and on standardised columns. Who spoke is
    not penalised, and a regression that sees nothing else is always among those to choose from."""
    text_penalties: Annotated[tuple[Positive, ...], Field(min_length=1)] = (CONSTANT, 10.0, 1.0)
    """To choose from: how many times as much the columns of texts (surface, embeddings) are penalised as the others."""
    leaves: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (60, 20)
    """The fewest states of a leaf to choose from."""
    trees: PositiveInt = 100
    """Of a forest."""
    max_states: PositiveInt = 200_000
    """With more states than this, the items to learn from are a sample."""

    def fit(self, train: Tree, validation: Tree, request: RouterRequest) -> FittedQRouter:
        """Fit the regressions for a range of cost weights, those of the request among them."""
        parts = [train] if validation is train else [train, validation]  # of very few items none are held out
        shared = sum(len(part.items) for part in parts) * train.decision_nodes / self.max_states
        if shared > 1:
            parts = [_sample(part, shared, request.seed) for part in parts]
        spent = np.concatenate([path_costs(part) for part in parts]).mean(axis=0)
        score = np.concatenate([part.score for part in parts]).mean(axis=0, dtype=np.float64)
        see = Seen(features_of(train, self.sees, self.encoder, request, max(spent.max(), 1e-12)))
        fitted = _weights_to_fit(spent[1:], score[1:], request)
        with one_library_thread():
            examples = _examples(parts, see, request)
            unit = see.features.cost_scale
            hops = self._best(examples, fitted * unit, request.cost_weight * unit, request.seed)
        return FittedQRouter(see, hops, fitted, request.cost_weight, request.allow_stop)

    def _best(self, examples: Examples, cost_weights: FloatArray, asked: float, seed: int) -> tuple[HopRegression, ...]:
        """The regressions by the setting with the best value in cross-validation, fitted on all items.

        Values are means over cost weights, each divided by what is at stake, so that all count alike; of equals the one
        that learns least.
        """
        settings = self._settings(examples, seed, 4)  # the more trees the better, so fewer are enough to compare
        weights = np.unique([asked, *cost_weights[:: -(-len(cost_weights) // COMPARED)]])
        stakes = 1 + weights * examples.cost[:, examples.tree.level(1)].mean(axis=0).max()
        attained = np.zeros((len(settings), len(examples.score)))
        for fold in range(FOLDS if len(examples.score) >= FOLDS else 0):
            held_out = examples.fold == fold
            for number, regress in enumerate(settings):
                _, score, cost = _induce(examples, regress, fold, weights)
                value = (score - weights[:, None] * cost) / stakes[:, None]
                attained[number, held_out] = value[:, held_out].mean(axis=0)
        best = int(attained.mean(axis=1).argmax())
        found, _, _ = _induce(examples, self._settings(examples, seed, 1)[best], FOLDS, cost_weights)
        return found

    def _settings(self, examples: Examples, seed: int, fewer: int) -> list[Regress]:
        """A regression for each setting, those that learn least first. fewer: how many times fewer trees."""
        pairs = [(CONSTANT, 1.0), *product(self.penalties, self.text_penalties)]
        pairs.sort(key=lambda pair: (-pair[0], -pair[1]))
        of_kinds = [np.tile([UNPENALISED, penalty * times, penalty], 2) for penalty, times in pairs]
        ridges: list[Regress] = [RidgeRegression(each[examples.kinds]) for each in of_kinds]
        plain, trees = np.flatnonzero(examples.kinds < 3), max(1, self.trees // fewer)
        forests: list[Regress] = [
            ForestRegression(plain, trees, leaf, seed) for leaf in sorted(self.leaves, reverse=True)
        ]
        return ridges * (self.regression != "extra-trees") + forests * (self.regression != "ridge")

    def load(self, learnt: Learnt, request: RouterRequest) -> FittedQRouter:
        """The router that was saved."""
        embedded = tuple(part for part in SEEN if part in self.sees)
        embed = ContextEncoder(load_encoder(learnt, request.weights), embedded) if embedded else None
        scale, models = float(learnt["cost_scale"]), len(request.models)
        if not 1e-12 <= scale <= MAX_COST:
            raise ValueError(f"cost_scale is {scale}")
        answer_reader(answers := str(learnt["answers"]))  # refuses what is no kind of answer
        features = StateFeatures(request.max_hops, models, self.sees, embed, answers, scale)
        see = Seen(features)
        fitted = np.asarray(learnt["cost_weights"], np.float64)
        if fitted.ndim != 1 or not len(fitted) or (fitted < 0).any():
            raise ValueError(f"cost_weights is of the form {fitted.shape}")
        if f"hop-{request.max_hops - 1}.mean" not in learnt:
            raise ValueError(f"it has no regression for each of {request.max_hops} hops")
        hops = []
        for hop in range(request.max_hops):
            outputs = 2 * _actions(models, hop, request.allow_stop)
            outputs *= len(fitted) if hop < request.max_hops - 1 else 1
            own = {
                n.removeprefix(f"hop-{hop}."): np.asarray(a) for n, a in learnt.items() if n.startswith(f"hop-{hop}.")
            }
            hops.append(_checked(hop, own, len(see.kinds), outputs))
        return FittedQRouter(see, tuple(hops), fitted, request.cost_weight, request.allow_stop)


def _checked(hop: int, arrays: dict[str, NDArray[Any]], width: int, outputs: int) -> HopRegression:
    """The regression of a hop that was saved. Raises ValueError for one of another form."""
    mean, scale = (np.asarray(arrays.pop(name), np.float64) for name in ("mean", "scale"))
    forest = "roots" in arrays
    forms = {} if forest else {"weights": (width, outputs), "bias": (outputs,)}
    if set(arrays) != (names := set(FOREST if forest else forms)):
        raise ValueError(f"the regression of hop {hop} has {sorted(arrays)}, expected {sorted(names)}")
    found = {"mean": mean.shape, "scale": scale.shape, **{name: arrays[name].shape for name in forms}}
    if found != (expected := {"mean": (width,), "scale": (width,), **forms}) or not (scale > 0).all():
        raise ValueError(f"the regression of hop {hop} is {found}, expected {expected}")
    if forest:
        check_forest(width, arrays)
        if arrays["value"].shape[1:] != (outputs,):
            raise ValueError(f"the forest of hop {hop} tells {arrays['value'].shape[1:]} numbers, expected {outputs}")
    return HopRegression(mean, scale, arrays)


def _weights_to_fit(cost: FloatArray, score: FloatArray, request: RouterRequest) -> FloatArray:
    """`[W]` the request's cost weights, 0, and a range, for pipelines of these mean costs and scores.

    At the slopes of their upper hull the best pipeline changes; the range goes from a tenth of the least of them to ten
    times the steepest.
    """
    slopes, at = [], int(np.lexsort((-score, cost))[0])
    while (score > score[at] + TIE).any():
        better = np.flatnonzero(score > score[at] + TIE)
        gains = (score[better] - score[at]) / np.maximum(cost[better] - cost[at], 1 / MAX_COST)
        slopes.append(float(gains.max()))
        at = int(better[gains.argmax()])
    steps = np.geomspace(min(slopes) / 10, max(slopes) * 10, WEIGHTS).tolist() if slopes else []
    return np.array(sorted({0.0, request.cost_weight, *request.cost_weights, *steps}))


def _sample(tree: Tree, shared: float, seed: int) -> Tree:
    """One item of every `shared`, drawn."""
    drawn = np.random.default_rng(seed).permutation(len(tree.items))[: max(1, int(len(tree.items) / shared))]
    return tree.subset(np.sort(drawn))


# --- the states that it learns from -----------------------------------------------------------------------------------


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


def _examples(parts: Sequence[Tree], see: Seen, request: RouterRequest) -> Examples:
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
    scale = np.where(spread > 1e-6 * np.abs(columns).max(axis=0), spread, 1.0)
    columns -= mean.astype(np.float32)
    columns /= scale.astype(np.float32)
    by_fold = [columns[fold == number] for number in range(FOLDS)]
    counts, sums = (np.array([of(each) for each in by_fold], np.float64) for of in (len, lambda each: each.sum(axis=0)))
    squares = np.array([each.T @ each for each in by_fold], np.float64)
    return Level(columns, mean, scale, fold, counts, sums, squares)


# --- what it learns of them -------------------------------------------------------------------------------------------

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


def _induce(
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
        predicted = _predict(level.columns, arrays).reshape(len(scores), -1, len(level.columns))
        chosen = [_best(predicted[n * (len(scores) > 1)], weight) for n, weight in enumerate(cost_weights.tolist())]
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
