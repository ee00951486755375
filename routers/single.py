"""Baselines that look at nothing: one model (`single:<model>`), or a fixed pipeline (`pipeline:<model>><model>...`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from routers.registry import RouterRequest, register
from routers.router import RoutingStates


@dataclass(frozen=True)
class FixedRouter:
    """Calls the models of one pipeline in order, then stops. Stopping early is always open to a baseline.

    pipeline: model indices. models: how many there are.
    """

    pipeline: tuple[int, ...]
    models: int

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the pipeline's next model, or STOP after its last."""
        table = np.array([*self.pipeline, self.models], np.int64)
        return table[np.minimum(states.hop, len(self.pipeline))]

    def next(self, hop: int) -> int:
        """The action at one hop."""
        return self.pipeline[hop] if hop < len(self.pipeline) else self.models


@register("single")
def single(request: RouterRequest) -> FixedRouter:
    """single:<model>, one model, called once."""
    return FixedRouter((_index(request.argument, request, "single:<model>"),), len(request.models))


@register("cheapest")
def cheapest(request: RouterRequest) -> FixedRouter:
    """The model whose calls cost least on average on train items, called once."""
    if request.argument:
        raise UserError(f"router cheapest takes no argument, got {request.argument!r}; for a model's name use single:")
    tree = request.train
    if tree is None or request.cost_model is None or not tree.items or not tree.known[:, tree.level(1)].all():
        raise UserError("router cheapest needs every model's responses to train items: evaluate it on a recording")
    cost = tree.hop_cost(request.cost_model, np.arange(len(tree.items))[:, None], tree.level(1))
    return FixedRouter((int(cost.mean(axis=0).argmin()),), len(request.models))


@register("pipeline")
def pipeline(request: RouterRequest) -> FixedRouter:
    """pipeline:<model>><model>..., the same models in the same order for every item."""
    names = request.argument.split(">")
    if len(names) > request.max_hops:
        raise UserError(
            f"pipeline of {len(names)} models with {request.max_hops} hops: name at most {request.max_hops}, "
            "or raise --max-hops"
        )
    return FixedRouter(
        tuple(_index(name.strip(), request, "pipeline:<model>><model>...") for name in names), len(request.models)
    )


def _index(model: str, request: RouterRequest, form: str) -> int:
    if model not in request.models:
        raise UserError(f"unknown model {model!r} in a router {form}: the pool has {', '.join(request.models)}")
    return request.models.index(model)
