"""Routers within limits: what a call costs at most, a cap that is kept, and settings that meet a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from harness.evaluation.capped import CappedRouter
from harness.evaluation.evaluate import evaluate
from harness.evaluation.frontier import Points
from harness.evaluation.limits import Judged, cheapest_passing, mixture, setting
from harness.evaluation.rollout import states_at
from pools.cost import recorded_cost
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree
from pools.types import Generation, GenerationSettings, Item
from routers import Router, RouterRequest, RoutingStates, load
from routers.call_bounds import CallBounds, lengths
from routers.fixed import FixedRouter


@dataclass(frozen=True)
class Wasteful:
    """Calls the most expensive model at every hop, and never stops."""

    model: int

    def act(self, states: RoutingStates) -> np.ndarray:
        return np.full(len(states.contexts), self.model)


def test_the_bound_of_a_call_is_the_most_that_one_cost_with_a_text_of_about_that_length(
    synthetic_tree: Callable[..., Tree],
) -> None:
    tree = synthetic_tree(items=60, models=2, max_hops=2, seed=1)
    bounds = CallBounds.learn(tree)
    assert bounds.most.shape == (2, 3, 2) and bounds.edges.shape == (2, 2)
    for hop in range(2):
        nodes = tree.level(hop)
        length = np.array([[len(str(c.query)) + sum(map(len, c.responses)) for c in (tree.context(i, n) for n in nodes)]
                           for i in range(60)])  # fmt: skip
        low = np.concatenate([[-1], bounds.edges[hop]])
        high = np.concatenate([bounds.edges[hop], [np.inf]])
        for number in range(3):
            here = (length > low[number]) & (length <= high[number])
            for model in range(2):
                costs = tree.cost[:, tree.child(nodes, model)][here]
                assert bounds.most[hop, number, model] == costs.max(initial=0.0)
    everywhere = np.arange(60)[:, None], tree.level(1)[None]
    items, at = (part.ravel() for part in np.broadcast_arrays(*everywhere))
    states = states_at(tree, items, at, path_costs(tree)[items, at], tree.pipelines())
    told = bounds(lengths(states.contexts), states.hop)
    assert all((told[:, m] >= tree.cost[items, tree.child(at, m)]).all() for m in range(2)), "on these very items"


@pytest.mark.parametrize("cap", [0.05, 0.3, 0.6, 2.0])
@pytest.mark.parametrize("name", ["wasteful", "random"])
def test_a_capped_router_spends_no_more_where_bounds_hold(
    synthetic_tree: Callable[..., Tree], cap: float, name: str
) -> None:
    tree = synthetic_tree(items=60, models=3, max_hops=3, seed=2)
    bounds = CallBounds.learn(tree)
    router: Router = (
        Wasteful(2) if name == "wasteful" else load("random", RouterRequest(models=tree.models, max_hops=3))
    )
    found = evaluate(CappedRouter(router, bounds, cap), tree)
    over = (found.end * (path_costs(tree) > cap + 1e-9)).sum(axis=1)
    first = bounds(lengths([tree.context(item, 0) for item in range(60)]), np.zeros(60, int))
    fits = first.min(axis=1) <= cap
    assert (over[fits] == 0).all(), "the bounds are those of these items, so none is broken"
    if cap == 0.05:
        assert not fits.any() and (found.hops == 1).all(), "some model must answer: the one with the least bound"
        np.testing.assert_array_equal(found.calls.argmax(axis=1), first.argmin(axis=1))
    if cap == 2.0:
        free = evaluate(router, tree)
        assert (found.hops <= free.hops + 1e-9).all() and found.hops.mean() > 1.5
    assert evaluate(router, tree).cost.max() > cap or cap == 2.0, "without the cap it is broken"


def table_of(lengths_of_queries: Sequence[int], cost: Sequence[Sequence[float]]) -> Tree:
    """One hop of two models, `small` and `big`, at these costs; queries are of these lengths."""
    settings = GenerationSettings((), 4)
    items = [Item("t", n, f"{n:03d}".ljust(length), settings, "train") for n, length in enumerate(lengths_of_queries)]
    tree = Tree(items, ("small", "big"), 1, recorded_cost("unit"))
    for item, of_item in enumerate(cost):
        for model, each in enumerate(of_item):
            said = Generation(f"{model} says {item % 7 * 'x'}", 1, 1, "stop", 0, each)
            tree.put(item, 1 + model, said, float(model))
    return tree


def test_a_length_between_those_of_train_items_has_the_bound_of_the_longer_ones() -> None:
    train = table_of([20] * 60 + list(range(400, 440)), [(1, 10)] * 60 + [(1, 1000)] * 40)
    bounds = CallBounds.learn(train)
    assert [bounds(length, 0).tolist() for length in (20, 21, 100, 399, 420, 9000)] == [[1, 10], *[[1, 1000]] * 5]
    beyond = table_of([100] * 20, [(1, 1000)] * 20)
    assert evaluate(CappedRouter(Wasteful(1), bounds, 50), beyond).calls.mean(axis=0).tolist() == [1, 0]
    # Classes are of equally many: where equal lengths are many they are fewer, and none is small.
    uneven = CallBounds.learn(table_of([20] * 30 + [30] * 5 + [40] * 25 + [50] * 40, [(1, 1)] * 100))
    assert uneven.edges.tolist() == [[20, 40, np.inf, np.inf]]


def test_a_model_that_reads_the_query_alone_has_bounds_by_the_query_alone() -> None:
    tree = table_of([20] * 60 + [400] * 60, [(1, 10)] * 60 + [(1, 1000)] * 60).cascade(2)
    bounds = CallBounds.learn(tree)
    assert (bounds.edges[1, :1] == 20).all() and np.isinf(bounds.edges[1, 1:]).all()
    capped = evaluate(CappedRouter(FixedRouter((0, 1), 2), bounds, 50), tree)
    np.testing.assert_array_equal(capped.calls, [[1, 1]] * 60 + [[1, 0]] * 60)


def test_what_does_not_fit_at_first_is_replaced_by_the_best_model_that_does(
    synthetic_tree: Callable[..., Tree],
) -> None:
    tree = synthetic_tree(items=30, models=3, max_hops=1, seed=3)
    tree.cost[:, 1:], tree.score[:, 1:] = (1, 2, 5), (0.2, 0.9, 0.5)
    assert CallBounds.learn(tree).ranking.tolist() == [1, 2, 0]
    found = [
        evaluate(CappedRouter(Wasteful(2), CallBounds.learn(tree), cap), tree).calls.mean(axis=0).tolist()
        for cap in (0.5, 1.5, 3, 5)
    ]
    assert found == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_budget_between_two_points_is_spent_by_mixing_them() -> None:
    points = Points(
        np.array([[4.0, 4], [2, 2], [1, 3], [1, 1]]), np.array([[0.9, 0.9], [0.5, 0.5], [0.6, 1], [0.3, 0.3]])
    )
    assert setting(points, 3) == ({2: pytest.approx(0.5), 0: pytest.approx(0.5)}, True), "point 1 is below their line"
    assert setting(points, 2) == ({2: 1.0}, True) and setting(points, 9) == ({0: 1.0}, True)
    assert setting(points, np.inf) == ({0: 1.0}, True)
    assert setting(points, 1.25) == ({3: pytest.approx(0.75), 2: pytest.approx(0.25)}, True)
    assert setting(points, 0.9) == ({3: 1.0}, False), "none meets it, so it is the cheapest"
    parts = [
        Judged(np.array([q, 1.0]), np.array([c, c]), np.array([o, 0]), np.array([0, 1.0]))
        for q, c, o in ((0, 1, 0), (1, 5, 1))
    ]
    mixed = mixture(np.array([0.75, 0.25]), parts)
    assert (mixed.quality.tolist(), mixed.cost.tolist(), mixed.over.tolist()) == ([0.25, 1], [2, 2], [0.25, 0])
    assert mixed.within.tolist() == [0, 1]


def test_of_the_points_that_pass_the_cheapest_is_chosen_and_none_after_one_that_fails() -> None:
    model = np.full(400, 0.5)
    ahead = np.array([0.2, 0.2, 0.1, -0.3, 0.2])
    points = Points(np.array([5.0, 2, 3, 1, 0.5])[:, None] * np.ones(400), 0.5 + ahead[:, None] * np.ones(400))
    assert cheapest_passing(points, model, 0.01, 0.95, seed=1) == (3, 1)
    assert cheapest_passing(Points(points.cost[3:], points.quality[3:]), model, 0.01, 0.95, seed=1) == (0, None)
