"""The query-only bar takes the pipeline of the query's family, whatever is answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.evaluation.evaluate import evaluate
from pools.errors import UserError
from pools.mdp.optimum import path_costs
from routers import RouterRequest, RoutingStates, load
from routers.options import parse_arguments
from routers.query_only import useful_pipelines
from routers.registry import teach


def test_it_tells_families_apart_and_takes_the_pipeline_of_each(request_: RouterRequest) -> None:
    outcome = evaluate(load("query-only", request_), request_.validation)
    assert outcome.quality.tolist() == [1.0] * 20
    sums = np.array([item.task == "sums" for item in request_.validation.items])
    assert set(outcome.hops[sums]) == {2.0} and set(outcome.hops[~sums]) == {1.0}


def test_what_is_answered_and_what_the_task_is_called_change_nothing(request_: RouterRequest) -> None:
    given = replace(request_, evaluation=None)
    router: Any = load("query-only", given)
    contexts = [request_.evaluation.context(n, 1) for n in range(20)]
    other = [replace(context, responses=("something else",)) for context in contexts]
    hop, actions = np.ones(20, np.int64), np.zeros((20, 2), np.int64)
    first, again = (router.act(RoutingStates(said, hop, np.full(20, 9.0), actions)) for said in (contexts, other))
    assert first.tolist() == again.tolist() and len(set(first.tolist())) > 1
    tree = given.train.subset(np.arange(len(given.train.items)))
    tree.items = tuple(replace(item, task="t", kind=f"{n % 3}") for n, item in enumerate(tree.items))
    blind: Any = load("query-only", replace(given, train=tree))
    assert blind.act(RoutingStates(contexts, hop, np.full(20, 9.0), actions)).tolist() == first.tolist()


def test_one_fit_serves_all_cost_weights(request_: RouterRequest) -> None:
    router: Any = load("query-only", request_)
    costs = [evaluate(router.at(weight), request_.validation).cost.mean() for weight in (0.0, 0.001, 100.0)]
    assert costs[0] >= costs[1] > costs[2]
    assert evaluate(router.at(100.0), request_.validation).hops.max() == 1


def test_what_is_saved_is_loaded_and_what_does_not_fit_is_refused(request_: RouterRequest, tmp_path: Any) -> None:
    taught = teach("query-only", request_, {})
    taught.save(tmp_path / "router.safetensors")
    loaded = load("query-only", replace(request_, train=None), checkpoint=tmp_path / "router.safetensors")
    first, again = (evaluate(router, request_.evaluation) for router in (taught.router, loaded))
    assert first.end.tolist() == again.end.tolist()
    learnt = dict(taught.router.save())
    for wrong in (learnt["actions"][:, 1:], learnt["actions"][1:], np.full_like(learnt["actions"], 7)):
        replace(taught, router=Saved({**learnt, "actions": wrong})).save(tmp_path / "wrong.safetensors")
        with pytest.raises(UserError, match=r"wrong\.safetensors"):
            load("query-only", replace(request_, train=None), checkpoint=tmp_path / "wrong.safetensors")
    with pytest.raises(UserError, match="router query-only: most"):
        teach("query-only", request_, parse_arguments("most=0"))


class Saved:
    """A router that saves what it is given."""

    def __init__(self, learnt: dict[str, Any]) -> None:
        self.save = lambda: learnt


def test_of_many_pipelines_those_are_kept_that_add_most(synthetic_tree: Any) -> None:
    tree = synthetic_tree(items=30, models=3, max_hops=2)
    kept = useful_pipelines(tree, [0.0], 4)
    assert len(kept) == 4 and len(useful_pipelines(tree, [0.0], 12)) == 12
    value = tree.score.astype(np.float64)
    first = 1 + int(value[:, 1:].mean(axis=0).argmax())
    assert first in kept
    best = value[:, kept].max(axis=1).mean()
    drawn = np.random.default_rng(0)
    others = [value[:, 1 + drawn.permutation(12)[:4]].max(axis=1).mean() for _ in range(200)]
    assert best >= np.quantile(others, 0.95)
    costs = path_costs(tree)[:, 1:].mean(axis=0)
    assert useful_pipelines(tree, [1e6], 1).tolist() == [1 + int(costs.argmin())]


def test_if_no_answer_is_read_one_hop_is_enough(synthetic_tree: Any) -> None:
    tree = synthetic_tree(items=6, models=3, max_hops=1).cascade(3)
    assert useful_pipelines(tree, [0.0], 50).tolist() == [1, 2, 3]
