"""The seam between a router and everything else: states in, actions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pools.types import Context


@dataclass(frozen=True)
class RoutingStates:
    """`B` states of the MDP, of any items.

    contexts: what has been asked and answered so far. hop: int `[B]` hops made. cost: float `[B]` spent so far.
    actions: int `[B, L]` the models called so far, in order, padded with -1.
    """

    contexts: Sequence[Context]
    hop: NDArray[np.int64]
    cost: NDArray[np.float64]
    actions: NDArray[np.int64]


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
class VotingRouter(Router, Protocol):
    """Has every model answer the query itself and picks one of the responses: M calls, none of which sees another."""

    def choose_response(self, responses: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """`[B]` the model whose response is taken, for the responses `[B][M]` of all models to each query."""
        ...


def routing_cost(router: Router, states: RoutingStates) -> NDArray[np.float64]:
    """What deciding costs at each state `[B]`: zero for a router that runs no model of its own."""
    if isinstance(router, BilledRouter):
        return np.asarray(router.routing_cost(states), np.float64)
    return np.zeros(len(states.contexts))
