"""`fitted-q`: backward induction over the recorded tree, with a regression of what is to come at each hop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from pools.answers import answer_reader
from pools.cost import MAX_COST
from pools.mdp.optimum import path_costs
from pools.mdp.tree import IntArray, Tree
from routers._threads import one_library_thread
from routers.encoders.base import SEEN, ContextEncoder, load_encoder, save_encoder
from routers.forest import check_forest
from routers.induction import (
    CONSTANT,
    FOLDS,
    TIE,
    Arrays,
    Examples,
    ForestRegression,
    HopRegression,
    Level,
    Regress,
    Seen,
    at_most,
    best_action,
    cross_validated,
    examples_of,
    induce,
    ridges,
)  # fmt: skip
from routers.options import Positive
from routers.registry import register
from routers.router import Learnt, Report, RouterRequest, RoutingStates, Training
from routers.states import Part, StateFeatures, features_of

FloatArray = NDArray[np.float64]
FOREST = ("roots", "children", "feature", "threshold", "value")

WEIGHTS = 17
"""How many cost weights are fitted at most besides those asked for."""
COMPARED = 9
"""At how many of them settings are compared at most, besides the one asked for."""


# --- the router -------------------------------------------------------------------------------------------------------


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
        """`[B]` actions; of equally good ones the cheapest."""
        actions = np.full(len(states.contexts), self.see.features.models, np.int64)
        for here, predicted in self._predictions(states):
            actions[here] = best_action(predicted, self.cost_weight * self.see.features.cost_scale)
        return actions

    def ranking(self, states: RoutingStates) -> FloatArray:
        """`[B, M + 1]` the value to come of each action."""
        ranking = np.full((len(states.contexts), self.see.features.models + 1), -np.inf)
        for here, predicted in self._predictions(states):
            score, cost = np.split(predicted, 2)
            ranking[here, : len(score)] = (score - self.cost_weight * self.see.features.cost_scale * cost).T
        return ranking

    def _predictions(self, states: RoutingStates) -> Iterator[tuple[IntArray, FloatArray]]:
        """Of each hop the states `[n]` there, and the scores and costs to come `[2A, n]` of the actions."""
        models, last = self.see.features.models, len(self.hops) - 1
        nearest = _nearest(self.fitted, self.cost_weight)
        for hop, regression in enumerate(self.hops):
            here = np.flatnonzero(states.hop == hop)
            if len(here):
                contexts = [states.contexts[n] for n in here.tolist()]
                columns = np.concatenate(self.see(hop, contexts, states.actions[here], states.cost[here]), axis=1)
                width, place = 2 * _actions(models, hop, self.allow_stop), nearest * (hop < last)
                with one_library_thread():
                    yield here, regression(columns, slice(place * width, (place + 1) * width))

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
        parts = at_most(self.max_states, parts, request.seed)
        spent = np.concatenate([path_costs(part) for part in parts]).mean(axis=0)
        score = np.concatenate([part.score for part in parts]).mean(axis=0, dtype=np.float64)
        see = Seen(features_of(train, self.sees, self.encoder, request, max(spent.max(), 1e-12)))
        fitted = _weights_to_fit(spent[1:], score[1:], request)
        with one_library_thread():
            examples = examples_of(parts, see, request)
            unit = see.features.cost_scale
            hops = self._best(examples, fitted * unit, request.cost_weight * unit, request.seed, request.training)
        return FittedQRouter(see, hops, fitted, request.cost_weight, request.allow_stop)

    def _best(
        self, examples: Examples, cost_weights: FloatArray, asked: float, seed: int, training: Training
    ) -> tuple[HopRegression, ...]:
        """The regressions of the setting that is best in cross-validation; of equals the one that learns least."""
        weights = np.unique([asked, *cost_weights[:: -(-len(cost_weights) // COMPARED)]])
        settings = self._settings(examples.kinds, seed, 1)
        few = self._settings(examples.kinds, seed, 4)  # the more trees the better, so fewer are enough to compare
        each_hop = FOLDS * sum(map(_steps, few)) + max(map(_steps, settings))
        counted = _counted(training.report, len(examples.levels) * each_hop)
        compared = [counted(each, "comparing settings") for each in few]
        best = int(cross_validated(examples, compared, weights).mean(axis=1).argmax())
        found, _, _ = induce(examples, counted(settings[best], "fitting the best"), FOLDS, cost_weights)
        return found

    def _settings(self, kinds: IntArray, seed: int, fewer: int) -> list[Regress]:
        """A regression for each setting, those that learn least first. fewer: how many times fewer trees."""
        linear = [*ridges(kinds, [CONSTANT], [1.0]), *ridges(kinds, self.penalties, self.text_penalties)]
        plain, trees = np.flatnonzero(kinds < 3), max(1, self.trees // fewer)
        forests: list[Regress] = [
            ForestRegression(plain, trees, leaf, seed) for leaf in sorted(self.leaves, reverse=True)
        ]
        return linear * (self.regression != "extra-trees") + forests * (self.regression != "ridge")

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


def _counted(report: Report | None, total: int) -> Callable[[Regress, str], Regress]:
    """Makes regressions report when they are fitted, of so many `_steps` in all, with a few words."""
    done = 0

    def counted(regress: Regress, said: str) -> Regress:
        def fitted(level: Level, target: FloatArray, held_out: int) -> Arrays:
            nonlocal done
            arrays = regress(level, target, held_out)
            done += _steps(regress)
            if report is not None:
                report(done, total, said)
            return arrays

        return fitted

    return counted


def _steps(regress: Regress) -> int:
    """How long it takes: a ridge regression about as long as one tree."""
    return regress.trees if isinstance(regress, ForestRegression) else 1


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
