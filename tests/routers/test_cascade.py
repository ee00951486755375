"""The cascade stops where its judge has learnt to trust, and goes on elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.evaluation.evaluate import evaluate
from pools.cost import paper_cost
from pools.mdp.tree import Tree
from pools.types import Context, Generation, GenerationSettings, Item
from routers import RouterRequest, load

SETTINGS = GenerationSettings((), 8)


class Two:
    """The first model says `certain` to every second question, else `perhaps`; the second, dear one knows it all."""

    def generate(self, model: int, requests: list[tuple[Context, GenerationSettings]]) -> list[Generation]:
        said = [("known" if model else "certain" if int(c.query.split()[1]) % 2 else "perhaps") for c, _ in requests]
        return [Generation(f"it is {word}", 10, 10, "stop", 0.0) for word in said]


def score(answers: list[tuple[Item, str]]) -> list[float]:
    return [0.0 if response.endswith("perhaps") else 1.0 for _, response in answers]


@pytest.fixture(scope="module")
def request_() -> RouterRequest:
    splits = ("train", "validation", "test")
    items = [Item("t", n, f"Question {n} of many", SETTINGS, splits[n // 2 % 3]) for n in range(120)]
    tree = Tree(items, ("cheap", "dear"), 2, paper_cost((0.0001, 0.01), "unit"), Two(), score)  # type: ignore[arg-type]
    rows, nodes = np.indices(tree.known.shape)
    tree.require(rows.ravel(), nodes.ravel())
    return RouterRequest(
        models=tree.models, max_hops=2, cost_model=tree.cost_model, cost_weight=1.0,
        train=tree.select("train"), validation=tree.select("validation"), evaluation=tree.select("test"),
    )  # fmt: skip


def test_it_asks_the_dear_model_only_where_the_cheap_one_is_not_sure(request_: RouterRequest) -> None:
    router: Any = load("cascade", request_)
    assert router.chain == (0, 1)
    outcome = evaluate(router, request_.evaluation)
    assert outcome.quality.tolist() == [1.0] * 40
    sure = np.array([int(item.query.split()[1]) % 2 == 1 for item in request_.evaluation.items])
    assert set(outcome.hops[sure]) == {1.0} and set(outcome.hops[~sure]) == {2.0}


def test_the_cost_weight_decides_how_far_it_goes(request_: RouterRequest) -> None:
    free, costly = (load("cascade", replace(request_, cost_weight=weight)) for weight in (0.0, 100.0))  # type: Any
    assert evaluate(free, request_.evaluation).quality.mean() == 1.0
    assert evaluate(costly, request_.evaluation).hops.max() == 1
    # One that has learnt follows the cost weight without learning again.
    told = free.at(100.0)
    assert told.judge is free.judge and (told.chain, told.threshold) == (costly.chain, costly.threshold)
    assert (told.at(0.0).chain, told.at(0.0).threshold) == (free.chain, free.threshold)


def test_the_judges_encoder_is_billed_where_it_judges(request_: RouterRequest) -> None:
    router: Any = load("cascade", request_)
    router.judge.embed.encoder.base_rate = 1.0
    outcome = evaluate(router, request_.evaluation)
    assert set(outcome.routing_cost) == {4.0 + 3.0}, "each query and the first response, in words"
    alone = replace(router, chain=(0,))
    assert evaluate(alone, request_.evaluation).routing_cost.sum() == 0
