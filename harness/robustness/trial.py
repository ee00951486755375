"""One router in one scenario: what it attains on each item, beside the best single model on the same knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.evaluate import Outcome, action_probabilities, evaluate
from harness.evaluation.metrics import value
from harness.evaluation.rollout import states_at
from harness.robustness.scenarios import AS_TRAINED, Scenario, Trees
from pools.errors import UserError
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree
from routers import Router, RouterRequest, load
from routers.registry import learns
from routers.router import AmongModels, RankingRouter, VotingRouter

FloatArray = NDArray[np.float64]
ANEW, GOES_ON, AS_IT_IS = "trained anew", "goes on", "as it is"


@dataclass(frozen=True)
class Asked:
    """How a router is had: by name, with options, for a cost weight, with a seed."""

    name: str
    options: Mapping[str, Any]
    cost_weight: float
    seed: int
    weights: Path | None = None

    def knowing(self, trees: Trees, seed: int | None = None) -> Router:
        """The router that knows these train and validation items. Raises UserError if it learns nothing from them."""
        tree = trees.train
        request = RouterRequest(
            models=tree.models, max_hops=tree.max_hops, cost_model=tree.cost_model, cost_weight=self.cost_weight,
            seed=self.seed if seed is None else seed, weights=self.weights,
            train=tree, validation=trees.validation, evaluation=trees.seen or trees.test,
        )  # fmt: skip
        return load(self.name, request, options=self.options if learns(self.name) else None)


@dataclass(frozen=True)
class Trial:
    """What came of it, per item `[I]` of the scenario's test items.

    quality, cost: the router's. value: quality - cost_weight * cost. single: the value of the model that alone is best
    on what was known. first: the likeliest first action, -1 of a vote. how: whether the router was trained anew, goes
    on without the model that is gone, or is as it is.
    """

    quality: FloatArray
    cost: FloatArray
    value: FloatArray
    single: FloatArray
    first: NDArray[np.int64]
    how: str


def trial(asked: Asked, scenario: Scenario, as_trained: Router | None) -> Trial:
    """Try a router in a scenario.

    as_trained: the router that nothing has changed for; not needed by a scenario that it is trained anew for.
    Raises UserError if the router cannot be had: it is the model that is gone, or learns nothing from so little.
    """
    if scenario.kept and not learns(asked.name) and scenario.part in asked.name.partition(":")[2].split(">"):
        raise UserError("it is, or calls, the model that is gone")
    trees = scenario.trees()
    if scenario.question == AS_TRAINED and as_trained is not None:
        return measured(as_trained, trees, asked, AS_IT_IS)
    if not learns(asked.name):  # it is told what it reads, as the names of the items' tasks
        router, how = asked.knowing(trees), AS_IT_IS
    elif scenario.kept and isinstance(as_trained, RankingRouter):
        router, how = AmongModels(as_trained, len(scenario.kept) + 1, scenario.kept), GOES_ON
    elif scenario.anew or scenario.kept:
        router, how = asked.knowing(trees, scenario.seed), ANEW
    else:
        assert as_trained is not None
        router, how = as_trained, AS_IT_IS
    return measured(router, trees, asked, how)


def measured(router: Router, trees: Trees, asked: Asked, how: str) -> Trial:
    """What a router attains, decided on what it sees and paid at the prices that are billed."""
    outcome = evaluate(router, trees.seen or trees.test, asked.seed)
    if trees.seen is not None:
        outcome = replace(outcome, cost=_billed(router, outcome, trees.test))
    nodes, weight = trees.train.level(1), asked.cost_weight
    best = int((trees.train.score[:, nodes] - weight * trees.train.cost[:, nodes]).mean(axis=0).argmax())
    single = trees.test.score[:, 1 + best] - weight * trees.test.cost[:, 1 + best]
    first = _first_actions(router, trees.seen or trees.test)
    return Trial(outcome.quality, outcome.cost, value(outcome, weight), single.astype(np.float64), first, how)


def _billed(router: Router, outcome: Outcome, tree: Tree) -> FloatArray:
    """`[I]` what the calls cost at the prices of a tree."""
    if isinstance(router, VotingRouter):
        return np.asarray(tree.cost[:, tree.level(1)].sum(axis=1), np.float64)
    return np.asarray((outcome.end * path_costs(tree)).sum(axis=1), np.float64)


def _first_actions(router: Router, tree: Tree) -> NDArray[np.int64]:
    """`[I]` the likeliest first action on each item; -1 of a router that asks every model."""
    items = np.arange(len(tree.items))
    nodes, cost = np.zeros(len(items), np.int64), np.zeros(len(items))
    if isinstance(router, VotingRouter):
        return nodes - 1
    states = states_at(tree, items, nodes, cost, tree.pipelines())
    return np.asarray(action_probabilities(router, states, len(tree.models)).argmax(axis=1), np.int64)
