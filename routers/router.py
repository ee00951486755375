"""The seam between a router and everything else: states in, actions out; and how one that learns is taught and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pools.cost import CostModel
from pools.mdp.tree import Tree
from pools.types import Context

Learnt = Mapping[str, NDArray[Any] | str]
"""All that a router has learnt: arrays and texts, by name."""


@dataclass(frozen=True)
class RoutingStates:
    """`B` states of the MDP, of any items.

    contexts: what has been asked and answered so far. hop: int `[B]` hops made. cost: float `[B]` spent so far.
    actions: int `[B, L]` the models called so far, in order, padded with -1. seconds: float `[B]` what the calls so far
    took, known as soon as they were made; None where recorded seconds are no latency, and when serving.
    """

    contexts: Sequence[Context]
    hop: NDArray[np.int64]
    cost: NDArray[np.float64]
    actions: NDArray[np.int64]
    seconds: NDArray[np.float64] | None = None


Log = Callable[[str, int, Mapping[str, float]], None]
"""Is told the figures of a training: its name, environment steps so far, and the figures by name."""
Report = Callable[[int, int, str], None]
"""Is told how far a training is: steps done, steps in all, and a few words."""


@dataclass(frozen=True)
class Training:
    """What goes along with a training and does not change its outcome.

    state: file that a long training may leave what it goes on from in; resume: go on from there.
    name: of the training. log: is told the figures of each iteration, under wandb's usual names, and last those of what
    was kept, `kept/...`.
    report: is told how far it is, in steps of whatever takes about the same time each. facts: kept in the checkpoint,
    for people.
    """

    state: Path | None = None
    resume: bool = False
    name: str = ""
    log: Log | None = None
    report: Report | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RouterRequest:
    """What a router is for: the MDP, and the items that it may learn from.

    argument: the text after the colon of its name, as in `single:<model>`.
    models: names of the candidate models; action `a` calls `models[a]`. max_hops: the horizon `L`.
    allow_stop: whether action `len(models)` (STOP) may be taken before the last hop.
    cost_model, cost_weight: what the reward charges. cost_weights: with several, all at which it will be evaluated.
    prices: of a reward that charges for seconds, too: what it takes for a unit of cost and for a second. The trees'
    costs are then in quality, both prices paid (`Tree.charged`), and `cost_weight` is 1.
    frontier: whether it will be evaluated at others, too, from none to any.
    seed: of anything that is drawn. weights: folder of weights, for a router that runs a model of its own.
    train, validation: trees of the items that may be learnt from and tuned on.
    evaluation: the tree that is evaluated on. Only clairvoyant bounds may read its outcomes; a router that does is not
    one. (`best-pipeline-per-task` and `-per-kind` read the names of its items' tasks and kinds.)
    training: what goes along with a training.
    """

    argument: str = ""
    models: tuple[str, ...] = ()
    max_hops: int = 1
    allow_stop: bool = True
    cost_model: CostModel | None = None
    cost_weight: float = 0.0
    cost_weights: tuple[float, ...] = ()
    prices: tuple[float, float] | None = None
    frontier: bool = False
    seed: int = 1
    weights: Path | None = None
    train: Tree | None = None
    validation: Tree | None = None
    evaluation: Tree | None = None
    training: Training = Training()


@runtime_checkable
class Router(Protocol):
    """Picks the model that answers next. It never loads a candidate model and never reads a store."""

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` actions: the index of a model, or the number of models to STOP with the last response."""
        ...


@runtime_checkable
class StochasticRouter(Router, Protocol):
    """A router that draws its actions. Its expectations are computed from the probabilities, exactly."""

    def probabilities(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B, A]` probability of each action, rows summing to one; `A` is the number of models, plus one for STOP."""
        ...


@runtime_checkable
class BilledRouter(Router, Protocol):
    """A router that runs a model of its own, such as an encoder, which is billed too, on a line of its own."""

    def routing_cost(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B]` cost of deciding at each state, in the unit of the paper's cost model."""
        ...


@runtime_checkable
class WeighingRouter(Router, Protocol):
    """A router that needs no new training for another cost weight."""

    def at(self, cost_weight: float) -> Router:
        """The same router, for another lambda."""
        ...


@runtime_checkable
class BudgetedRouter(Router, Protocol):
    """A router that sees what is left of a cap on what an item may cost."""

    def within(self, cap: float) -> Router:
        """The same router, told of the cap. That it is kept to is seen to elsewhere."""
        ...


@runtime_checkable
class RankingRouter(Router, Protocol):
    """A router that says how good it holds each action to be, and takes the best: it goes on if a model is retired."""

    def ranking(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B, A]` the higher the better, -inf for what may not be taken; `A` is the models, plus one for STOP."""
        ...


@dataclass(frozen=True, eq=False)
class AmongModels:
    """A ranking router over some of the models that it knows: it takes the best action that is left.

    known: how many models it knows. kept: their numbers there, in the order of the pool that it is used on.
    """

    router: RankingRouter
    known: int
    kept: tuple[int, ...]

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` actions, in the numbers of the models that are kept."""
        ranking = self.router.ranking(self._as_known(states))
        left = [*self.kept, *range(self.known, ranking.shape[1])]  # STOP, where there is one
        return np.asarray(ranking[:, left].argmax(axis=1), np.int64)

    def routing_cost(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B]` what the router itself costs."""
        return routing_cost(self.router, self._as_known(states))

    def _as_known(self, states: RoutingStates) -> RoutingStates:
        called = np.where(states.actions >= 0, np.array(self.kept)[states.actions], -1)
        return replace(states, actions=called)


@runtime_checkable
class SelectiveRouter(Router, Protocol):
    """A router that calls some of the models alone, whatever is asked: the others need not be loaded."""

    def callable_models(self) -> frozenset[int]:
        """The numbers of the models that it may call."""
        ...


@runtime_checkable
class NotedRouter(Router, Protocol):
    """A router of which a reader of its row must know something."""

    def notes(self, cost_weights: Sequence[float]) -> list[str]:
        """What that is, where it is evaluated at these cost weights."""
        ...


@runtime_checkable
class VotingRouter(Router, Protocol):
    """Has every model answer the query itself and picks one of the responses: M calls, none of which sees another."""

    def choose_response(self, responses: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """`[B]` the model whose response is taken, for the responses `[B][M]` of all models to each query."""
        ...


@runtime_checkable
class LearntRouter(Router, Protocol):
    """A router that has learnt something."""

    def save(self) -> Learnt:
        """All that it has learnt; a checkpoint keeps it."""
        ...


class Learner(Protocol):
    """Makes a router that learns. A dataclass: its fields are the router's options.

    Where there are `variants`, a mapping by name of settings of options, `NAME:VARIANT` stands for one of them. Where
    there is `adapted(request)`, it gives the request as the options change it. Where `explores` is true, it asks live
    models for what it needs while it learns; else every response is known before.
    """

    def fit(self, train: Tree, validation: Tree, request: RouterRequest) -> LearntRouter:
        """The router that is learnt from train items; what has to be chosen is chosen on validation items.

        Both trees have items.
        """
        ...

    def load(self, learnt: Learnt, request: RouterRequest) -> LearntRouter:
        """The router again, from what it saved and the request that it was fitted for (without trees).

        Raises KeyError, TypeError or ValueError if it never saved such a thing.
        """
        ...


def routing_cost(router: Router, states: RoutingStates) -> NDArray[np.float64]:
    """What deciding costs at each state `[B]`: zero for a router that runs no model of its own."""
    if isinstance(router, BilledRouter):
        return np.asarray(router.routing_cost(states), np.float64)
    return np.zeros(len(states.contexts))


def callable_models(router: Router, models: int) -> list[int]:
    """The numbers of the models that a router over `models` of them may call, in order: all, unless it says which."""
    return sorted(router.callable_models()) if isinstance(router, SelectiveRouter) else list(range(models))
