"""`random`: a model drawn uniformly at every hop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routers.registry import RouterRequest, register
from routers.router import RoutingStates


@dataclass(frozen=True)
class UniformRouter:
    """Every model with the same probability, at each of `L` hops; it never stops early.

    models: how many there are. seed: of the actions that `act` draws.
    """

    models: int
    seed: int = 1

    def probabilities(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B, M]`, all equal."""
        return np.full((len(states.contexts), self.models), 1 / self.models)

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` drawn actions; the same states at the same hop give the same ones."""
        return np.random.default_rng((self.seed, *states.hop[:1])).integers(self.models, size=len(states.contexts))


@register("random")
def uniform(request: RouterRequest) -> UniformRouter:
    """A model drawn uniformly at every hop."""
    return UniformRouter(len(request.models), request.seed)
