"""Baselines that look at no item: one model, a pipeline, chance, and the pipelines that are best on train items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree
from pools.types import Item
from routers.registry import register, train_items
from routers.router import RouterRequest, RoutingStates

Group = tuple[str, ...]
"""Items that share a pipeline: a task, or a task and a kind."""


@dataclass(frozen=True)
class FixedRouter:
    """Calls the models of one pipeline in order, then stops. Stopping early is always open to a baseline.

    pipeline: model indices. models: how many there are.
    """

    pipeline: tuple[int, ...]
    models: int

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the pipeline's next model, or STOP after its last."""
        return np.array([self.next(hop) for hop in states.hop.tolist()], np.int64)

    def callable_models(self) -> frozenset[int]:
        """Those of the pipeline."""
        return frozenset(self.pipeline)

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
    tree = train_items(request, "cheapest")
    if not tree.cost_model.unit:
        raise UserError("router cheapest: no costs were recorded here; name a model with single:, or record costs")
    cost = tree.billed[:, tree.level(1)]
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


@register("best-pipeline")
def best_pipeline(request: RouterRequest) -> FixedRouter:
    """The one pipeline with the best value on train items; best-pipeline:2, of exactly two hops."""
    if request.argument and request.argument not in map(str, range(1, request.max_hops + 1)):
        raise UserError(
            f"unknown router best-pipeline:{request.argument}: expected best-pipeline, or a number of hops from 1 to "
            f"{request.max_hops}, as in best-pipeline:1"
        )
    tree = train_items(request, "best-pipeline")
    hops = int(request.argument) if request.argument else None
    return FixedRouter(_best(tree, _values(tree, request), hops), len(tree.models))


@dataclass(frozen=True)
class ToldRouter:
    """The pipeline of the group that the item is of, which it is told: the bar for a router that tells groups apart.

    pipelines: by group. of_query: the pipeline of each query. otherwise: for a query that is not known.
    """

    pipelines: Mapping[Group, FixedRouter]
    of_query: Mapping[str, FixedRouter]
    otherwise: FixedRouter

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the next model of each item's pipeline, or STOP after its last."""
        routers = [self.of_query.get(context.query, self.otherwise) for context in states.contexts]
        return np.array([router.next(hop) for router, hop in zip(routers, states.hop.tolist(), strict=True)], np.int64)

    def callable_models(self) -> frozenset[int]:
        """Those of all groups' pipelines."""
        return self.otherwise.callable_models().union(*(each.pipeline for each in self.of_query.values()))


@register("best-pipeline-per-task")
def best_pipeline_per_task(request: RouterRequest) -> ToldRouter:
    """For each task the pipeline with the best value on its train items; it is told the task, nothing of the item."""
    return _told(request, "best-pipeline-per-task", _of_task)


@register("best-pipeline-per-kind")
def best_pipeline_per_kind(request: RouterRequest) -> ToldRouter:
    """The same for each kind of a task's items (its generator, its subject); of a kind without train items the task's.

    It is told task and kind, nothing else of the item.
    """
    return _told(request, "best-pipeline-per-kind", _of_kind, _of_task)


def _of_task(item: Item) -> Group:
    return (item.task,)


def _of_kind(item: Item) -> Group:
    return item.task, item.kind


def _told(request: RouterRequest, name: str, *groupings: Callable[[Item], Group]) -> ToldRouter:
    """For each group the pipeline that is best on its train items; an item's is that of its first group with any."""
    if request.argument:
        raise UserError(f"router {name} takes no argument, got {request.argument!r}")
    tree = train_items(request, name)
    values, models = _values(tree, request), len(tree.models)
    pipelines: dict[Group, FixedRouter] = {}
    for group_of in groupings:
        groups = [group_of(item) for item in tree.items]
        for group in dict.fromkeys(groups):
            chosen = np.array([other == group for other in groups])
            pipelines[group] = FixedRouter(_best(tree, values[chosen]), models)
    otherwise = FixedRouter(_best(tree, values), models)
    trees = [part for part in (request.train, request.validation, request.evaluation) if part is not None]
    of_query = {
        item.query: next((pipelines[group(item)] for group in groupings if group(item) in pipelines), otherwise)
        for part in trees
        for item in part.items
    }
    return ToldRouter(pipelines, of_query, otherwise)


def _values(tree: Tree, request: RouterRequest) -> NDArray[np.float64]:
    """`[I, N]` score - cost_weight * cost of each item's pipelines."""
    return tree.score - request.cost_weight * path_costs(tree)


def _best(tree: Tree, values: NDArray[np.float64], hops: int | None = None) -> tuple[int, ...]:
    """The pipeline with the best mean of the values `[i, N]` of some items; of equals the shortest."""
    allowed = tree.depth > 0 if hops is None else tree.depth == hops
    return tree.pipeline(int(np.where(allowed, values.mean(axis=0), -np.inf).argmax()))
