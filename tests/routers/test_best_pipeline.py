import itertools
from dataclasses import replace

import numpy as np
import pytest

from harness.evaluation.evaluate import evaluate
from pools.errors import UserError
from routers import load


def value(router, given):
    outcome = evaluate(router, given.train)
    return (outcome.quality - given.cost_weight * outcome.cost).mean()


@pytest.mark.parametrize("hops", [None, 1, 2])
def test_it_is_the_best_of_all_fixed_pipelines_on_train_items(request_, hops):
    lengths = (1, 2) if hops is None else (hops,)
    names = [">".join(p) for length in lengths for p in itertools.product(request_.models, repeat=length)]
    values = [value(load(f"pipeline:{name}", request_), request_) for name in names]
    chosen = load("best-pipeline" if hops is None else f"best-pipeline:{hops}", request_)
    assert value(chosen, request_) == pytest.approx(max(values))
    assert hops is None or len(chosen.pipeline) == hops


def test_per_task_it_takes_each_tasks_own_and_reaches_what_was_planted(request_):
    router = load("best-pipeline-per-task", request_)
    assert router.pipelines["sums",].pipeline == (0, 1)
    assert router.pipelines["colours",].pipeline == (2,)
    outcome = evaluate(router, request_.evaluation)
    assert outcome.quality.tolist() == [1.0] * len(request_.evaluation.items)
    sums = np.array([item.task == "sums" for item in request_.evaluation.items])
    assert set(outcome.hops[sums]) == {2.0} and set(outcome.hops[~sums]) == {1.0}


def test_per_kind_it_takes_each_kinds_own_and_the_tasks_for_a_kind_without_train_items(request_):
    """All one task: its kinds are what its tasks were; half of the sums are of a kind that no train item has."""

    def told(tree):
        part = tree.subset(np.arange(len(tree.items)))
        part.items = tuple(replace(item, task="all", kind=item.task) for item in part.items)
        return part

    trees = {name: told(getattr(request_, name)) for name in ("train", "evaluation")}
    unseen = [item.split == "validation" and item.kind == "sums" for item in trees["evaluation"].items]
    items = zip(trees["evaluation"].items, unseen, strict=True)
    trees["evaluation"].items = tuple(replace(item, kind="new") if new else item for item, new in items)
    given = replace(request_, **trees, validation=None)
    router, of_task = (load(f"best-pipeline-per-{what}", given) for what in ("kind", "task"))
    assert (router.pipelines["all", "sums"].pipeline, router.pipelines["all", "colours"].pipeline) == ((0, 1), (2,))
    outcome, fallen_back = (evaluate(each, given.evaluation) for each in (router, of_task))
    assert outcome.quality[~np.array(unseen)].tolist() == [1.0] * unseen.count(False)
    assert unseen.count(True) == 10
    assert outcome.end[unseen].tolist() == fallen_back.end[unseen].tolist()


def test_an_unknown_query_gets_the_best_pipeline_overall(request_):
    known = replace(request_, evaluation=None, validation=None)
    unseen, overall = (
        evaluate(load(name, known), request_.validation) for name in ("best-pipeline-per-task", "best-pipeline")
    )
    assert unseen.quality.tolist() == overall.quality.tolist()


@pytest.mark.parametrize(
    ("name", "train", "message"),
    [
        ("best-pipeline:3", "whole", "a number of hops from 1 to 2"),
        ("best-pipeline:x", "whole", "a number of hops from 1 to 2"),
        ("best-pipeline-per-task:sums", "whole", "takes no argument"),
        ("best-pipeline-per-kind:sums", "whole", "takes no argument"),
        ("best-pipeline", "none", "learns from train items"),
        ("best-pipeline", "with gaps", "every model's responses"),
    ],
)
def test_what_cannot_be_chosen_says_so(request_, synthetic_tree, name, train, message):
    trees = {"whole": request_.train, "none": None, "with gaps": synthetic_tree(complete=False)}
    with pytest.raises(UserError, match=message):
        load(name, replace(request_, train=trees[train]))
