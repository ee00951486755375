"""A router under a cap on what an item may cost, or on what it may take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.evaluate import action_probabilities
from routers.call_bounds import CallBounds, lengths, moved
from routers.router import Router, RoutingStates, routing_cost

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class CappedRouter:
    """A router whose calls that could spend more than what is left of the cap are not made (`CallBounds`).

    bounds, cap: of costs; with `of_seconds`, of seconds, which the states then have to hold.
    """

    router: Router
    bounds: CallBounds
    cap: float
    of_seconds: bool = False

    def probabilities(self, states: RoutingStates) -> FloatArray:
        """`[B, M + 1]` probability of each action, the last of them STOP."""
        chance = action_probabilities(self.router, states, len(self.bounds.ranking))
        bound = self.bounds(lengths(states.contexts, self.bounds.independent), states.hop)
        spent = states.seconds if self.of_seconds else states.cost
        assert spent is not None
        return moved(chance, *self.bounds.fitting(bound, self.cap - spent, states.hop))

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the likeliest actions."""
        return np.asarray(self.probabilities(states).argmax(axis=1), np.int64)

    def routing_cost(self, states: RoutingStates) -> FloatArray:
        """`[B]` of the router itself."""
        return routing_cost(self.router, states)
