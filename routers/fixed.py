"""Baselines that look at no item: one model, a pipeline, chance, and the pipelines that are best on train items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree
from routers.registry import register, train_items
from routers.router import RouterRequest, RoutingStates


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
    cost = tree.cost[:, tree.level(1)]
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
    return FixedRouter(_best(tree, request, np.ones(len(tree.items), bool), hops), len(tree.models))


@dataclass(frozen=True)
class TaskRouter:
    """The pipeline of the item's task, which it is told: the bar for a router that has to tell tasks apart.

    pipelines: by task. task_of: the task of each query. otherwise: for a query of no known task.
    """

    pipelines: Mapping[str, FixedRouter]
    task_of: Mapping[str, str]
    otherwise: FixedRouter

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the next model of each item's pipeline, or STOP after its last."""
        tasks = [self.task_of.get(context.query, "") for context in states.contexts]
        routers = [self.pipelines.get(task, self.otherwise) for task in tasks]
        return np.array([router.next(hop) for router, hop in zip(routers, states.hop.tolist(), strict=True)], np.int64)


@register("best-pipeline-per-task")
def best_pipeline_per_task(request: RouterRequest) -> TaskRouter:
    """For each task the pipeline with the best value on its train items; it is told the task, nothing of the item."""
    if request.argument:
        raise UserError(f"router best-pipeline-per-task takes no argument, got {request.argument!r}")
    tree = train_items(request, "best-pipeline-per-task")
    tasks = np.array([item.task for item in tree.items])
    trees = [part for part in (request.train, request.validation, request.evaluation) if part is not None]
    return TaskRouter(
        {task: FixedRouter(_best(tree, request, tasks == task), len(tree.models)) for task in dict.fromkeys(tasks)},
        {item.query: item.task for part in trees for item in part.items},
        FixedRouter(_best(tree, request, np.ones(len(tasks), bool)), len(tree.models)),
    )


def _best(tree: Tree, request: RouterRequest, chosen: NDArray[np.bool_], hops: int | None = None) -> tuple[int, ...]:
    """The pipeline with the best mean of `score - cost_weight * cost` over the chosen items; of equals the shortest."""
    values = (tree.score - request.cost_weight * path_costs(tree))[chosen].mean(axis=0)
    allowed = tree.depth > 0 if hops is None else tree.depth == hops
    return tree.pipeline(int(np.where(allowed, values, -np.inf).argmax()))
