"""`fitted-q`: backward induction over the recorded tree, with a ridge regression of what is to come at each hop."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from pools.cost import MAX_RATE
from pools.mdp.optimum import path_costs
from pools.mdp.tree import IntArray, Tree
from pools.types import Context
from routers._threads import one_library_thread
from routers.encoders.base import ContextEncoder, agreement, build_encoder, load_encoder, save_encoder
from routers.options import Positive
from routers.registry import register
from routers.router import Learnt, RouterRequest, RoutingStates

FloatArray = NDArray[np.float64]
Regression = tuple[FloatArray, FloatArray]
"""Weights `[d, 2A]` and bias `[2A]`."""
Seen = Literal["models", "agreement", "surface", "cost", "query", "response"]
"""What a regression may see: who spoke at which hop; whether the last response agrees with each earlier one; lengths,
digits and markers of query and last response; what was spent; the embeddings of query and last response."""

WEIGHTS = 17
"""How many cost weights are fitted besides those asked for, from costs that hardly count to costs that rule."""
TIE = 1e-9
"""Values that are closer than this are equal, and the cheaper action is taken."""


# --- what a state looks like ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StateColumns:
    """Turns the states of one hop into numbers; another hop has other columns.

    models: `M`. sees: parts, of `Seen`. embed: of the parts `query` and `response`; None if neither is seen.
    """

    models: int
    sees: tuple[str, ...]
    embed: ContextEncoder | None

    def __call__(self, hop: int, contexts: Sequence[Context], actions: IntArray, cost: FloatArray) -> FloatArray:
        """`[n, d]` of contexts with `hop` responses, of the models `actions` `[n, hop]`, that cost `cost` `[n]`.

        Columns of texts, surface and embeddings, come last. Surface and agreement are seen once more for each model
        that may have spoken last: a long answer, or a query with digits in it, means another thing of another model.
        """
        rows = len(contexts)
        spoke = np.eye(self.models)[actions].reshape(rows, hop, self.models)
        columns = [np.zeros((rows, 0))]

        def add(part: FloatArray) -> None:
            columns.append(part)
            if hop and "models" in self.sees:
                columns.append((part[:, :, None] * spoke[:, -1, None, :]).reshape(rows, -1))

        if hop and "models" in self.sees:
            columns.append(spoke.reshape(rows, -1))
            if hop > 1:  # pairs: the last, and each before it
                columns.append((spoke[:, :-1, :, None] * spoke[:, -1:, None, :]).reshape(rows, -1))
        if hop and "cost" in self.sees:
            columns.append(cost[:, None])
        if hop > 1 and "agreement" in self.sees:
            add(agrees := _agreements(contexts))
            if "models" in self.sees:
                columns.append((agrees[:, :, None] * spoke[:, :-1]).reshape(rows, -1))
        if "surface" in self.sees:
            add(_surfaces(context.query for context in contexts))
            if hop:
                add(_surfaces(context.responses[-1] for context in contexts))
        if self.embed is not None:
            columns.append(self.embed(contexts).astype(np.float64))
        return np.concatenate(columns, axis=1)


_SIGNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\d[\s.)}$*]*\Z",  # ends in a number
        r"[.!?]\s*\Z",  # ends as a sentence does; what was cut off does not
        r"\?\s*\Z",
        r"####|\\boxed|\banswer\b",
        r"```|\bdef \w+\(|\breturn\b",
        r"\b(?:sorry|cannot|can't|unable|unknown|not sure|don't know|perhaps|maybe)\b",
    )
)


def _surface(text: str) -> list[float]:
    """Lengths, digits and markers of a text, each about 1 or below."""
    counts = len(text.split()), text.count("\n"), len(re.findall(r"\d+", text)), len(text)
    return [*(np.log1p(counts) / 5).tolist(), *(float(sign.search(text) is not None) for sign in _SIGNS)]


def _surfaces(texts: Iterable[str]) -> FloatArray:
    """`[n, s]` the surface of each text; equal texts are read once."""
    given = list(texts)
    rows = {text: n for n, text in enumerate(dict.fromkeys(given))}
    found = np.array([_surface(text) for text in rows]).reshape(len(rows), -1)
    return np.asarray(found[[rows[text] for text in given]])


def _agreements(contexts: Sequence[Context]) -> FloatArray:
    """`[n, hop - 1]` whether the last response ends in the same word or number as each earlier one."""
    pairs = [[(earlier, c.responses[-1]) for earlier in c.responses[:-1]] for c in contexts]
    known = {pair: agreement(pair) for pair in dict.fromkeys(pair for of_context in pairs for pair in of_context)}
    return np.array([[known[pair] for pair in of_context] for of_context in pairs])


# --- the router -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class HopRegression:
    """Score and cost to come at one hop, linear in what is seen, for each of `W` cost weights.

    mean, scale: `[d]` what is seen is standardised by. weights: `[W, d, 2A]`, bias: `[W, 2A]`: first the score to come
    of each of the `A` actions, then the cost to come.
    """

    mean: FloatArray
    scale: FloatArray
    weights: FloatArray
    bias: FloatArray

    def actions(self, columns: FloatArray, fitted: int, cost_weight: float) -> IntArray:
        """`[n]` the best action at states with these columns `[n, d]`, by what was fitted for the weight `fitted`."""
        return _best((columns - self.mean) / self.scale @ self.weights[fitted] + self.bias[fitted], cost_weight)


def _best(predicted: FloatArray, cost_weight: float) -> IntArray:
    """`[n]` the best action by scores and costs to come `[n, 2A]`; of equally good ones the cheapest."""
    score, cost = np.split(predicted, 2, axis=1)
    value = score - cost_weight * cost
    best = value >= value.max(axis=1, keepdims=True) - TIE
    return np.asarray(np.where(best, cost, np.inf).argmin(axis=1), np.int64)


@dataclass(frozen=True, eq=False)
class FittedQRouter:
    """Takes the action with the best `score to come - cost_weight * cost to come`.

    hops: the regressions of each hop. fitted: `[W]` the cost weights that they are fitted for, in order. What is to
    come is that under the policy of the nearest of these; it is weighed by the cost weight itself.
    """

    see: StateColumns
    hops: tuple[HopRegression, ...]
    fitted: FloatArray
    cost_weight: float

    def at(self, cost_weight: float) -> FittedQRouter:
        """The policy of another cost weight."""
        return replace(self, cost_weight=cost_weight)

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` actions."""
        actions = np.full(len(states.contexts), self.see.models, np.int64)
        nearest = _nearest(self.fitted, self.cost_weight)
        for hop, regression in enumerate(self.hops):
            here = np.flatnonzero(states.hop == hop)
            if len(here):
                contexts = [states.contexts[n] for n in here.tolist()]
                columns = self.see(hop, contexts, states.actions[here, :hop], states.cost[here])
                with one_library_thread():
                    actions[here] = regression.actions(columns, nearest, self.cost_weight)
        return actions

    def routing_cost(self, states: RoutingStates) -> FloatArray:
        """`[B]` cost of the encoder, if one is used: it reads the query and each response that is routed on."""
        embed = self.see.embed
        return np.zeros(len(states.contexts)) if embed is None else embed.cost(states.contexts)

    def save(self) -> Learnt:
        """The regressions of each hop, their cost weights, and the encoder if one is used."""
        arrays = {f"hop-{n}.{name}": array for n, hop in enumerate(self.hops) for name, array in vars(hop).items()}
        encoder = {} if self.see.embed is None else save_encoder(self.see.embed.encoder)
        return {**arrays, "cost_weights": self.fitted, **encoder}


def _nearest(fitted: FloatArray, cost_weight: float) -> int:
    """The place of the fitted weight that is nearest by ratio; 0 is far from all others."""
    floor = min((weight for weight in fitted.tolist() if weight > 0), default=1.0) / 100
    logs = np.log(np.maximum([*fitted, cost_weight], floor))
    return int(np.abs(logs[:-1] - logs[-1]).argmin())


# --- how it learns ----------------------------------------------------------------------------------------------------


@register("fitted-q")
@dataclass(frozen=True)
class FittedQ:
    """Multi-hop: fitted Q iteration, backwards from the last hop, with ridge regressions; reads the answers.

    At each hop it regresses, for every action, the score of the answer that the policy of the later hops ends with and
    what that policy spends. The tree is complete, so these are known for every action of every state. The policy is
    greedy. The penalties are chosen on validation items, for each cost weight by itself. Fitted Q iteration: Ernst,
    Geurts and Wehenkel 2005 (JMLR 6).
    """

    sees: tuple[Seen, ...] = ("models", "agreement", "surface", "cost")
    """What the regressions see of a state; query and response are their embeddings."""
    encoder: str = "hashing"
    """Encoder of query and response, if they are seen."""
    penalties: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 0.1, 0.01, 1e-3, 1e-5)
    """The L2 penalties to choose from, per state and on standardised columns."""
    text_penalties: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 10.0, 100.0)
    """To choose from: how many times as much the columns of texts (surface, embeddings) are penalised as the others."""
    max_states: PositiveInt = 200_000
    """With more states than this, the items to learn from are a sample."""

    def fit(self, train: Tree, validation: Tree, request: RouterRequest) -> FittedQRouter:
        """Fit the regressions for a range of cost weights, those of the request among them."""
        most = max(1, self.max_states // train.decision_nodes)
        if len(train.items) > most:
            drawn = np.random.default_rng(request.seed).permutation(len(train.items))[:most]
            train = train.subset(np.sort(drawn))
        see = StateColumns(len(train.models), self.sees, self._embed(train, request))
        fitted = _weights_to_fit(train, request)
        with one_library_thread():
            levels, held_out = _levels(train, see), _levels(validation, see)
            scaled = [(hop.mean(axis=0), _spread(hop)) for hop in levels]
            for each in (levels, held_out):
                for columns, (mean, scale) in zip(each, scaled, strict=True):
                    columns -= mean
                    columns /= scale
            candidates = []
            for text_penalty, penalty in product(self.text_penalties, self.penalties):
                strict = [_strictness(see, hop, len(mean), text_penalty) for hop, (mean, _) in enumerate(scaled)]
                inverses = _inverses(levels, [penalty * each for each in strict])
                both = (train, levels), (validation, held_out)
                candidates.append(list(_induce(*both, inverses, fitted.tolist(), request.allow_stop)))
        # For each cost weight the penalties of the best value, of equals the first.
        chosen = [max(of_weight, key=lambda found: found[0])[1] for of_weight in zip(*candidates, strict=True)]
        regressions = []
        for hop, (mean, scale) in enumerate(scaled):
            weights, bias = (np.stack([of_weight[hop][part] for of_weight in chosen]) for part in (0, 1))
            regressions.append(HopRegression(mean, scale, weights, bias))
        return FittedQRouter(see, tuple(regressions), fitted, request.cost_weight)

    def _embed(self, train: Tree, request: RouterRequest) -> ContextEncoder | None:
        if not (parts := self._embedded):
            return None
        return ContextEncoder(build_encoder(self.encoder, train.contexts, request.seed, request.weights), parts)

    @property
    def _embedded(self) -> tuple[str, ...]:
        return tuple(part for part in ("query", "response") if part in self.sees)

    def load(self, learnt: Learnt, request: RouterRequest) -> FittedQRouter:
        """The router that was saved."""
        parts = self._embedded
        embed = ContextEncoder(load_encoder(learnt, request.weights), parts) if parts else None
        see = StateColumns(len(request.models), self.sees, embed)
        fitted = np.asarray(learnt["cost_weights"], np.float64)
        if fitted.ndim != 1 or not len(fitted) or (fitted < 0).any():
            raise ValueError(f"cost_weights is of the form {fitted.shape}")
        hops = []
        if f"hop-{request.max_hops - 1}.mean" not in learnt:
            raise ValueError(f"it has no regression for each of {request.max_hops} hops")
        for hop in range(request.max_hops):
            names = ("mean", "scale", "weights", "bias")
            arrays = {name: np.asarray(learnt[f"hop-{hop}.{name}"], np.float64) for name in names}
            context = Context("", ("",) * hop)
            width = see(hop, [context], np.zeros((1, hop), np.int64), np.zeros(1)).shape[1]
            outputs = 2 * (len(request.models) + int(request.allow_stop and hop > 0))
            forms = [(width,), (width,), (len(fitted), width, outputs), (len(fitted), outputs)]
            if (found := [array.shape for array in arrays.values()]) != forms or not (arrays["scale"] > 0).all():
                raise ValueError(f"the regression of hop {hop} is {found}, expected {forms}")
            hops.append(HopRegression(**arrays))
        return FittedQRouter(see, tuple(hops), fitted, request.cost_weight)


def _weights_to_fit(tree: Tree, request: RouterRequest) -> FloatArray:
    """`[W]` the request's cost weights, 0, and a range.

    It goes from a hundredth of the best score for the most expensive pipeline to where the cheapest hop costs more than
    any score is worth.
    """
    hop_cost = tree.cost.mean(axis=0)[1:]
    asked = {0.0, request.cost_weight, *request.cost_weights}
    if (hop_cost > 0).any():
        cheapest, most = hop_cost[hop_cost > 0].min(), path_costs(tree).mean(axis=0).max()
        low, high = (gain / max(float(cost), 1 / MAX_RATE) for gain, cost in ((0.01, most), (2.0, cheapest)))
        asked |= set(np.geomspace(low, high, WEIGHTS).tolist())
    return np.array(sorted(asked))


def _levels(tree: Tree, see: StateColumns) -> list[FloatArray]:
    """The columns of all states of each hop, item by item: `[I * nodes, d]`."""
    spent, pipelines = path_costs(tree), tree.pipelines()
    found = []
    for hop in range(tree.max_hops):
        nodes = tree.level(hop)
        contexts = [tree.contexts[c] for c in tree.context_id[:, nodes].ravel().tolist()]
        actions = np.tile(pipelines[nodes, :hop], (len(tree.items), 1))
        found.append(see(hop, contexts, actions, spent[:, nodes].ravel()))
    return found


def _spread(columns: FloatArray) -> FloatArray:
    """`[d]` standard deviations; 1 for a column that is constant."""
    spread = columns.std(axis=0)
    return np.where(spread > 1e-9 * np.abs(columns).max(axis=0), spread, 1.0)


def _strictness(see: StateColumns, hop: int, width: int, text_penalty: float) -> FloatArray:
    """`[width]` how strongly each column is penalised, relative to those that are not of texts."""
    others = replace(see, sees=tuple(set(see.sees) - {"surface", "query", "response"}), embed=None)
    first = others(hop, [Context("", ("",) * hop)], np.zeros((1, hop), np.int64), np.zeros(1)).shape[1]
    return np.where(np.arange(width) < first, 1.0, text_penalty)


def _inverses(levels: Sequence[FloatArray], penalties: Sequence[FloatArray]) -> list[FloatArray]:
    """`[d, d]` for each hop: `(Z'Z / n + penalties)^-1` of its standardised columns Z `[n, d]`."""
    grams = [columns.T @ columns / len(columns) for columns in levels]
    pairs = zip(grams, penalties, strict=True)
    return [np.asarray(np.linalg.inv(gram + np.diag(each)), np.float64) for gram, each in pairs]


def _induce(
    fit: tuple[Tree, Sequence[FloatArray]],
    held_out: tuple[Tree, Sequence[FloatArray]],
    inverses: Sequence[FloatArray],
    cost_weights: Sequence[float],
    allow_stop: bool,
) -> Iterator[tuple[float, list[Regression]]]:
    """Backward induction for each cost weight: the policy's mean value on held-out items, and each hop's regression.

    What is to come at the last hop depends on no policy, so its regression serves all cost weights.
    """
    parts, last = (fit, held_out), fit[0].max_hops - 1
    at_last: tuple[Regression, list[FloatArray]] | None = None
    for cost_weight in cost_weights:
        found: list[Regression] = []
        to_come = [(tree.score.astype(np.float64), np.zeros(tree.known.shape)) for tree, _ in parts]
        for hop in reversed(range(last + 1)):
            open_to = [_options(tree, hop, *come, allow_stop) for (tree, _), come in zip(parts, to_come, strict=True)]
            if hop < last or at_last is None:
                target = np.concatenate(open_to[0], axis=2).reshape(len(fit[1][hop]), -1)
                bias = target.mean(axis=0)
                weights = inverses[hop] @ (fit[1][hop].T @ (target - bias) / len(target))
                fitted = (weights, bias), [columns[hop] @ weights + bias for _, columns in parts]
                at_last = at_last or fitted
            else:
                fitted = at_last
            found.insert(0, fitted[0])
            for (tree, _), (score, cost), (scores, costs), predicted in zip(
                parts, to_come, open_to, fitted[1], strict=True
            ):
                action = _best(predicted, cost_weight).reshape(*scores.shape[:2], 1)
                score[:, tree.level(hop)] = np.take_along_axis(scores, action, 2)[..., 0]
                cost[:, tree.level(hop)] = np.take_along_axis(costs, action, 2)[..., 0]
        score, cost = to_come[1]
        yield float((score[:, 0] - cost_weight * cost[:, 0]).mean()), found


def _options(
    tree: Tree, hop: int, score: FloatArray, cost: FloatArray, allow_stop: bool
) -> tuple[FloatArray, FloatArray]:
    """`[I, nodes, A]` scores and costs to come of each action at a hop, from those `[I, N]` at the later nodes."""
    nodes = tree.level(hop)
    children = tree.child(nodes[:, None], np.arange(len(tree.models)))
    scores, costs = score[:, children], cost[:, children] + tree.cost[:, children]
    if allow_stop and hop:
        scores = np.concatenate([scores, tree.score[:, nodes, None]], axis=2)
        costs = np.concatenate([costs, np.zeros((*costs.shape[:2], 1))], axis=2)
    return scores, costs
