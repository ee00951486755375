"""`best-pipeline` and `best-pipeline-per-task`: what a router gets that looks at no item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree
from routers.registry import RouterRequest, register
from routers.router import RoutingStates
from routers.single import FixedRouter


@register("best-pipeline")
def best_pipeline(request: RouterRequest) -> FixedRouter:
    """The one pipeline with the best value on train items; best-pipeline:2, of exactly two hops."""
    hops: int | None = None
    if request.argument:
        digits = request.argument.isascii() and request.argument.isdecimal()
        if not digits or not 1 <= int(request.argument) <= request.max_hops:
            raise UserError(
                f"unknown router best-pipeline:{request.argument}: expected best-pipeline, or a number of hops from 1 "
                f"to {request.max_hops}, as in best-pipeline:1"
            )
        hops = int(request.argument)
    tree = _complete(request, "best-pipeline")
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
        hops = states.hop.tolist()
        routers = [self.pipelines.get(self.task_of.get(c.query, ""), self.otherwise) for c in states.contexts]
        return np.array([router.next(hop) for router, hop in zip(routers, hops, strict=True)], np.int64)


@register("best-pipeline-per-task")
def best_pipeline_per_task(request: RouterRequest) -> TaskRouter:
    """For each task the pipeline with the best value on its train items; it is told the task, nothing of the item."""
    if request.argument:
        raise UserError(f"router best-pipeline-per-task takes no argument, got {request.argument!r}")
    tree = _complete(request, "best-pipeline-per-task")
    tasks = np.array([item.task for item in tree.items])
    trees = [part for part in (request.train, request.validation, request.evaluation) if part is not None]
    return TaskRouter(
        {task: FixedRouter(_best(tree, request, tasks == task), len(tree.models)) for task in dict.fromkeys(tasks)},
        {item.query: item.task for part in trees for item in part.items},
        FixedRouter(_best(tree, request, np.ones(len(tasks), bool)), len(tree.models)),
    )


def _complete(request: RouterRequest, name: str) -> Tree:
    if request.train is None or request.cost_model is None or not request.train.items:
        raise UserError(f"router {name} is chosen on train items, and there are none: raise --limit, or add tasks")
    if not request.train.complete:
        raise UserError(f"router {name} needs every response of every pipeline: evaluate it on a recording, not --live")
    return request.train


def _best(tree: Tree, request: RouterRequest, chosen: NDArray[np.bool_], hops: int | None = None) -> tuple[int, ...]:
    """The pipeline with the best mean of `score - cost_weight * cost` over the chosen items; of equals the shortest."""
    assert request.cost_model is not None
    values = (tree.score - request.cost_weight * path_costs(tree, request.cost_model))[chosen].mean(axis=0)
    allowed = tree.depth > 0 if hops is None else tree.depth == hops
    return tree.pipeline(int(np.where(allowed, values, -np.inf).argmax()))
