import itertools
from dataclasses import replace

import numpy as np
import pytest

from harness.evaluation.evaluate import evaluate
from pools.errors import UserError
from routers import RouterRequest, load


def request(planted, **changes):
    tree, cost_model = planted()
    made = RouterRequest(
        models=tree.models, max_hops=2, cost_model=cost_model, cost_weight=0.001, train=tree.select("train"),
        validation=tree.select("validation"), evaluation=tree,
    )  # fmt: skip
    return replace(made, **changes)


def value(router, tree, given):
    outcome = evaluate(router, tree, given.cost_model)
    return (outcome.quality - given.cost_weight * outcome.cost).mean()


@pytest.mark.parametrize("hops", [None, 1, 2])
def test_it_is_the_best_of_all_fixed_pipelines_on_train_items(planted, hops):
    given = request(planted)
    lengths = (1, 2) if hops is None else (hops,)
    names = [">".join(p) for length in lengths for p in itertools.product(given.models, repeat=length)]
    values = [value(load(f"pipeline:{name}", given), given.train, given) for name in names]
    chosen = load("best-pipeline" if hops is None else f"best-pipeline:{hops}", given)
    assert value(chosen, given.train, given) == pytest.approx(max(values))
    assert hops is None or len(chosen.pipeline) == hops


def test_per_task_it_takes_each_tasks_own_and_reaches_what_was_planted(planted):
    given = request(planted)
    router = load("best-pipeline-per-task", given)
    assert router.pipelines["sums"].pipeline == (0, 1)
    assert router.pipelines["colours"].pipeline == (2,)
    outcome = evaluate(router, given.evaluation, given.cost_model)
    assert outcome.quality.tolist() == [1.0] * len(given.evaluation.items)
    sums = np.array([item.task == "sums" for item in given.evaluation.items])
    assert set(outcome.hops[sums]) == {2.0} and set(outcome.hops[~sums]) == {1.0}


def test_an_unknown_query_gets_the_best_pipeline_overall(planted):
    given = request(planted, evaluation=None, validation=None)
    router = load("best-pipeline-per-task", given)
    tree, cost_model = planted()
    unseen = evaluate(router, tree.select("validation"), cost_model)
    overall = evaluate(load("best-pipeline", given), tree.select("validation"), cost_model)
    assert unseen.quality.tolist() == overall.quality.tolist()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("best-pipeline:3", {}, "a number of hops from 1 to 2"),
        ("best-pipeline:0", {}, "a number of hops from 1 to 2"),
        ("best-pipeline:x", {}, "a number of hops from 1 to 2"),
        ("best-pipeline-per-task:sums", {}, "takes no argument"),
        ("best-pipeline", {"train": None}, "chosen on train items"),
    ],
)
def test_what_cannot_be_chosen_says_so(planted, name, changes, message):
    with pytest.raises(UserError, match=message):
        load(name, request(planted, **changes))


def test_a_tree_with_gaps_is_refused(planted, synthetic_tree):
    tree = synthetic_tree(complete=False)
    with pytest.raises(UserError, match="every response of every pipeline"):
        load("best-pipeline", request(planted, train=tree))
