"""The suite's card: its bars and controls, on trees small enough to count by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import suite_card

from harness.evaluation.evaluate import evaluate
from pools.cost import paper_cost
from pools.data.recording import save_recording
from pools.mdp.optimum import path_costs, solve
from pools.mdp.tree import Tree
from pools.pool import CandidateModel, Pool
from pools.types import Generation, GenerationSettings, Item
from routers.router import RoutingStates

MODELS, SETTINGS = ("cheap", "expensive"), GenerationSettings((), 8)
SPLITS = ("train", "validation", "test", "test")


class Says:
    """A response that names model, item and hop; the second model's cost ten times as many tokens."""

    def generate(self, model: int, requests: Any) -> list[Generation]:
        return [
            Generation(f"{MODELS[model]} {c.query} {len(c.responses)}", 1 + 9 * model, 1, "stop", 0.0)
            for c, _ in requests
        ]


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> suite_card.Card:
    """48 items of two tasks, the first of two kinds, with scores by chance."""
    items = [
        Item(
            f"task {n % 2}",
            n,
            f"query {n}",
            SETTINGS,
            SPLITS[n // 2 % 4],
            f"kind {n // 8 % 2}" if n % 2 else "",
            "new" if n > 40 else "old",
        )
        for n in range(48)
    ]

    def score(answers: Any) -> list[float]:
        return [float(np.random.default_rng([i.doc_id, *r.encode()]).random() < 0.4) for i, r in answers]

    tree = Tree(items, MODELS, 2, paper_cost((1e-3, 1e-3), "unit"), Says(), score)
    rows, nodes = np.indices(tree.known.shape)
    tree.require(rows.ravel(), nodes.ravel())
    folder = tmp_path_factory.mktemp("card") / "recording"
    save_recording(
        tree, Pool("p", tuple(CandidateModel(m, "hf", 1e-3) for m in MODELS), "unit", "made up"), {"suite": "s"}, folder
    )
    return suite_card.Card(suite_card.Args(recording=folder, cost_weight=1.0))


def test_the_gap_is_from_the_best_single_model_to_the_optimum(card: suite_card.Card) -> None:
    assert card.closed(card.single) == 0 and card.closed(card.optimum) == 1
    value = card.test.score[:, 1:3] - card.test.cost[:, 1:3]
    assert card.single.mean() == pytest.approx(value.mean(axis=0).max())
    assert card.optimum.mean() == solve(card.test, 1.0, True).value.mean()
    points, low, high = card.lead(card.optimum, card.single)
    assert points == pytest.approx(100) and low == pytest.approx(100) and high == pytest.approx(100)
    assert 0 < card.new.sum() < len(card.new)


def test_the_cheapest_pipelines_of_a_quality_are_those_of_brute_force(card: suite_card.Card) -> None:
    score, cost = card.test.score[:, 1:], path_costs(card.test)[:, 1:]
    told = np.array([f"{item.task}: {item.kind}" for item in card.test.items])
    kinds = [told == kind for kind in dict.fromkeys(told.tolist())]
    found = []
    for chosen in itertools.product(range(score.shape[1]), repeat=len(kinds)):
        right = sum(score[of, node].sum() for of, node in zip(kinds, chosen, strict=True))
        spent = sum(cost[of, node].sum() for of, node in zip(kinds, chosen, strict=True))
        found.append((right / len(told), spent / len(told)))
    assert len(kinds) == 3
    for quality in (0.0, 0.3, 0.45, 0.5, 0.55):
        least = min((spent for right, spent in found if right >= quality - 1e-9), default=None)
        cheapest = card.cheapest_of_quality(quality)
        assert (cheapest is None) == (least is None)
        assert cheapest is None or cheapest[1] == pytest.approx(least)
    assert card.cheapest_of_quality(1.0) is None


def test_a_misled_router_sees_the_answers_to_another_item_of_the_same_kind(card: suite_card.Card) -> None:
    seen: list[tuple[str, str]] = []

    class Looks:
        def act(self, states: RoutingStates) -> Any:
            for context, spent in zip(states.contexts, states.cost.tolist(), strict=True):
                seen.extend((context.query, response) for response in context.responses)
                assert spent == pytest.approx(0.002 * len(context.responses))
            return np.zeros(len(states.contexts), np.int64)

    assert card.misled(Looks()).quality.tolist() == evaluate(Looks(), card.test).quality.tolist()
    kind_of = dict(zip((item.query for item in card.test.items), card.kind.tolist(), strict=True))
    own = len(card.test.items)
    shown = {query: response.split(" ", 1)[1].rsplit(" ", 1)[0] for query, response in seen[:own]}
    assert len(shown) == own
    assert all(query != other and kind_of[query] == kind_of[other] for query, other in shown.items())


def test_names_and_numbers_are_masked_wherever_they_stand() -> None:
    queries = [
        "Where was Bera Holm born in 1912?",
        "Mara has 12 pens.",
        "Tobin has 7 pens.",
        "So Mara asks Tobin: how many?",
    ]
    assert suite_card.masked(queries) == [
        "Where was Name Name born in 0?", "Name has 0 pens.", "Name has 0 pens.", "So Name asks Name: how many?"
    ]  # fmt: skip


def test_a_pipeline_ends_at_the_first_answer(card: suite_card.Card) -> None:
    tree = card.test
    third = np.array([item.doc_id % 3 == 0 for item in tree.items])
    stated = np.zeros((len(tree.items), tree.nodes), bool)
    for node in range(1, tree.nodes):
        stated[third, node] = tree.action(node) == 1
    ends, leaves = suite_card.first_stated(tree, stated), tree.level(2).tolist()
    assert (ends[third, leaves.index(tree.node((1, 0)))] == tree.node((1,))).all()
    assert (ends[:, leaves.index(tree.node((0, 1)))] == tree.node((0, 1))).all()
    assert (ends[~third] == leaves).all() and 0 < third.sum() < len(third)
