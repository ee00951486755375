"""The figures of a run, as `summary.json` holds them. Its form is documented in docs/summary.md and stable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.evaluate import Outcome
from harness.evaluation.metrics import (
    Bootstrap,
    Estimate,
    TaskBootstrap,
    added_cost,
    collapsed_to,
    gap_closed,
    improvement_factor,
    regret,
    value,
)
from pools.cost import CostModel
from pools.mdp.tree import Tree

FloatArray = NDArray[np.float64]


def summarise(
    outcomes: Mapping[str, Outcome],
    best_single: Outcome | None,
    optimum_name: str,
    tree: Tree,
    cost_model: CostModel,
    cost_weight: float,
    seed: int,
    notes: Mapping[str, Sequence[str]],
    routing_cost_unit: str,
) -> dict[str, Any]:
    """Quality, cost, regret and gap closed of every router: per task, their mean over tasks (`macro`) and overall.

    best_single: of the single model with the best value, what the ratios and the gap are measured against.
    Where the cost model has no unit, no cost was recorded and none is given.
    optimum_name: which outcome is the exact optimum. Without one of them, what needs it is None.
    notes: what a reader of a router's row must know. routing_cost_unit: of what the routers' own models cost.
    """
    optimum, costs = outcomes.get(optimum_name), bool(cost_model.unit)
    bootstrap = Bootstrap.draw(len(tree.items), seed)
    task_of = np.array([item.task for item in tree.items])
    of_task = {task: task_of == task for task in dict.fromkeys(task_of.tolist())}
    over_tasks = TaskBootstrap.draw(task_of, seed)
    routers: dict[str, Any] = {}
    for name, outcome in outcomes.items():
        overall = {"items": len(tree.items), **_figures(outcome, best_single, bootstrap.mean, costs)}
        lost = None if optimum is None else bootstrap.mean(regret(outcome, optimum, cost_weight))
        overall |= {
            "hops": float(outcome.hops.mean()),
            "value": float(value(outcome, cost_weight).mean()),
            "regret": None if lost is None else lost.mean,
            "regret_interval": None if lost is None else [lost.low, lost.high],
            "gap_closed": None,
            "value_ahead": None,
            "value_ahead_interval": None,
            "routing_cost": float(outcome.routing_cost.mean()),
            "routing_cost_unit": routing_cost_unit,
            "calls": dict(zip(tree.models, outcome.calls.mean(axis=0).tolist(), strict=True)),
            "pipelines": _pipelines(outcome, tree),
            "collapsed_to": None if name.startswith("single:") else collapsed_to(outcome, tree.models),
            "bound": name.partition(":")[0] == optimum_name,
            "exact": outcome.exact,
            "notes": list(notes.get(name, ())),
        }
        if best_single is not None:
            ahead = bootstrap.mean(value(outcome, cost_weight) - value(best_single, cost_weight))
            overall |= {
                "value_ahead": ahead.mean,
                "value_ahead_interval": [ahead.low, ahead.high],
            }
            if optimum is not None:
                overall["gap_closed"] = gap_closed(outcome, best_single, optimum, cost_weight)
        tasks = {
            task: {
                "items": int(chosen.sum()),
                **_figures(outcome, best_single, partial(bootstrap.mean, chosen=chosen), costs),
            }
            for task, chosen in of_task.items()
        }
        macro = {"tasks": len(tasks), **_figures(outcome, best_single, over_tasks.mean, costs)}
        routers[name] = {"overall": overall, "macro": macro, "tasks": tasks}
    return {
        "cost_model": cost_model.name,
        "cost_unit": cost_model.unit,
        "cost_weight": cost_weight,
        "items": len(tree.items),
        "routers": routers,
    }


FRONTIER_KEYS = (
    *("quality", "quality_interval", "cost", "cost_interval", "hops", "value", "regret", "regret_interval"),
    *("gap_closed", "value_ahead", "value_ahead_interval"),
)


def frontier_point(summary: dict[str, Any]) -> dict[str, Any]:
    """What `summary.json` holds of one of several cost weights: the overall figures of every router."""
    routers = {
        name: {key: entry["overall"][key] for key in FRONTIER_KEYS} for name, entry in summary["routers"].items()
    }
    return {"cost_weight": summary["cost_weight"], "routers": routers}


def pipeline_name(tree: Tree, node: int) -> str:
    """How a pipeline is written: its models in order, as in `a > b`."""
    return " > ".join(tree.models[action] for action in tree.pipeline(node))


def _pipelines(outcome: Outcome, tree: Tree) -> dict[str, float]:
    """Expected share of the items that each pipeline answers, the largest first; without those that answer none."""
    share = outcome.end.mean(axis=0)
    order = np.argsort(-share, kind="stable")
    return {pipeline_name(tree, int(node)): float(share[node]) for node in order if share[node] > 0}


def _figures(
    outcome: Outcome, best_single: Outcome | None, mean: Callable[[FloatArray], Estimate], costs: bool
) -> dict[str, Any]:
    """What is given of every selection of items, `mean` being over it."""
    quality, cost = mean(outcome.quality), mean(outcome.cost)
    figures: dict[str, Any] = {
        "quality": quality.mean,
        "quality_interval": [quality.low, quality.high],
        "cost": cost.mean if costs else None,
        "cost_interval": [cost.low, cost.high] if costs else None,
    }
    if best_single is None:
        return figures | dict.fromkeys(("quality_ratio", "cost_ratio", "quality_ahead", "quality_ahead_interval"))
    ahead = mean(outcome.quality - best_single.quality)
    return figures | {
        "quality_ratio": improvement_factor(quality.mean, mean(best_single.quality).mean),
        "cost_ratio": added_cost(cost.mean, mean(best_single.cost).mean),
        "quality_ahead": ahead.mean,
        "quality_ahead_interval": [ahead.low, ahead.high],
    }
