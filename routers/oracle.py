"""`oracle`: the exact optimum. It has seen the outcomes, so it bounds every router and is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from pools.mdp.optimum import solve
from routers.registry import register
from routers.router import RouterRequest, RoutingStates


@dataclass(frozen=True)
class OracleRouter:
    """The optimal action at every state of a solved tree.

    actions: from (query, models called so far) to the best action. Two items with the same query are one item here.
    """

    actions: Mapping[tuple[str, tuple[int, ...]], int]

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` optimal actions. Raises UserError at a state that is not in the tree."""
        keys = [
            (context.query, tuple(a for a in row if a >= 0))
            for context, row in zip(states.contexts, states.actions.tolist(), strict=True)
        ]
        try:
            return np.array([self.actions[key] for key in keys], np.int64)
        except KeyError as error:
            raise UserError(f"the oracle knows nothing of item {error.args[0][0][:60]!r}: it is not recorded") from None


@register("oracle")
def oracle(request: RouterRequest) -> OracleRouter:
    """The exact optimum by backward induction: a bound, it has seen the outcomes; also oracle:no-stop, :per-item.

    At the request's cost weight, on the items that are evaluated. STOP is open to it even if the request closes it,
    so that it bounds every row of a table; `oracle:no-stop` is the optimum of the paper's MDP, of exactly `L` hops.
    `oracle:per-item` is the cheapest pipeline that attains the item's best score, whatever cost weighs: the oracle of
    the literature on one hop. Where nothing solves an item it is the cheapest attempt, which is charged.
    """
    if request.argument not in ("", "no-stop", "per-item"):
        raise UserError(f"unknown router oracle:{request.argument}: expected oracle, oracle:no-stop or oracle:per-item")
    tree = request.evaluation
    if tree is None:
        raise UserError("router oracle needs the outcomes of the items: evaluate it on a recording")
    if not tree.complete:
        raise UserError("router oracle needs every response of every pipeline: evaluate it on a recording, not --live")
    # Equal values are decided by cost, so that with weight 0 the optimum is the cheapest way to the best score.
    weight = 0.0 if request.argument == "per-item" else request.cost_weight
    solution = solve(tree, weight, allow_stop=request.argument != "no-stop")
    pipelines = [tree.pipeline(node) for node in range(tree.decision_nodes)]
    actions: dict[tuple[str, tuple[int, ...]], int] = {}
    for item, row in zip(tree.items, solution.action.tolist(), strict=True):
        for pipeline, action in zip(pipelines, row, strict=True):
            if actions.setdefault((item.query, pipeline), action) != action:
                raise UserError(
                    f"two items ask the same but have other targets, so a router cannot be optimal on both: "
                    f"{item.query[:60]!r} of {item.task}; leave one of the tasks out (--task)"
                )
    return OracleRouter(actions)
