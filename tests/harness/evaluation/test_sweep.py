"""Sweeps over cost weights: curves known on paper, few evaluations, and what is called at least once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from harness.evaluation.evaluate import evaluate
from harness.evaluation.frontier import Points, areas, hulls, mixed
from harness.evaluation.sweep import MOST, calls_at_least_once, sweep
from pools.mdp.tree import Tree
from routers import RouterRequest, RoutingStates, load

ITEMS = 400
GAIN = (np.arange(ITEMS) + 0.5) / ITEMS


@pytest.fixture(scope="module")
def tree(synthetic_tree: Callable[..., Tree]) -> Tree:
    """The strong model is always right and costs 3; the weak one costs 1 and loses `GAIN` of an item's score."""
    made = synthetic_tree(items=ITEMS, models=2, max_hops=1, seed=1)
    made.score[:, 1], made.score[:, 2] = 1 - GAIN, 1
    made.cost[:, 1:] = 1, 3
    return made


@dataclass(frozen=True)
class Threshold:
    """Calls the strong model if what it gains is worth more than `scale` times what it costs more."""

    gain: Mapping[str, float]
    cost_weight: float = 0.0
    scale: float = 1.0
    asked: list[float] = field(default_factory=list)

    def at(self, cost_weight: float) -> Threshold:
        self.asked.append(cost_weight)
        return replace(self, cost_weight=cost_weight)

    def act(self, states: RoutingStates) -> np.ndarray:
        gain = np.array([self.gain[context.query] for context in states.contexts])
        return (gain > 2 * self.scale * self.cost_weight).astype(np.int64)


def one_by_one(tree: Tree) -> Mapping[str, float]:
    return {item.query: gain for item, gain in zip(tree.items, GAIN.tolist(), strict=True)}


# What the router believes of costs moves the weights at which its curve bends, and not the curve.
@pytest.mark.parametrize("scale", [1.0, 1e-3, 3e2])
def test_a_smooth_curve_is_found_wherever_its_bends_are(tree: Tree, scale: float) -> None:
    router = Threshold(one_by_one(tree), scale=scale)
    found = sweep(lambda weight: evaluate(router.at(weight), tree), tree)
    assert found.found and (np.diff(found.cost_weights) > 0).all()
    assert len(router.asked) == len(set(router.asked)) <= MOST
    cost, quality = found.points.cost.mean(axis=1), found.points.quality.mean(axis=1)
    assert (cost.min(), cost.max()) == (1, 3), "the ends are both models"
    # To every item with a gain above t the strong model: costs 3 - 2 t, loses t^2 / 2. The mean from t = 0 to 1 is 5/6.
    np.testing.assert_allclose(quality, 1 - ((3 - cost) / 2) ** 2 / 2, atol=1e-4)
    singles = Points(tree.cost[:, 1:].T, tree.score[:, 1:].T.astype(np.float64))
    sample = np.full((1, ITEMS), 1 / ITEMS)
    assert areas(hulls(mixed(found.points, singles), sample), (1, 3))[0] == pytest.approx(5 / 6, abs=0.001)


def test_a_router_that_jumps_is_not_looked_for_between(tree: Tree) -> None:
    router = Threshold(dict.fromkeys(one_by_one(tree), 0.3))
    found = sweep(lambda weight: evaluate(router.at(weight), tree), tree)
    assert found.found and set(found.points.cost.mean(axis=1)) == {1, 3}
    jump = np.flatnonzero(np.diff(found.points.cost.mean(axis=1)))
    assert len(jump) == 1 and found.cost_weights[jump[0]] == pytest.approx(0.15, rel=0.02)


def test_a_router_that_does_not_weigh_costs_is_one_point_after_three_looks(tree: Tree) -> None:
    router = Threshold(one_by_one(tree), scale=0)
    found = sweep(lambda weight: evaluate(router.at(weight), tree), tree)
    assert len(found.cost_weights) == 1 and len(router.asked) == 3


def test_the_chance_that_a_model_is_called_once_or_more(synthetic_tree: Callable[..., Tree]) -> None:
    tree = synthetic_tree(items=5, models=2, max_hops=2, seed=3)
    request = RouterRequest(models=tree.models, max_hops=2, train=tree, evaluation=tree)
    drawn = evaluate(load("random", request), tree)
    np.testing.assert_allclose(calls_at_least_once(drawn, tree), 0.75)
    np.testing.assert_allclose(drawn.calls, 1, err_msg="called once in the mean, and for a quarter not at all")
    vote = evaluate(load("majority-vote", request), tree)
    np.testing.assert_allclose(calls_at_least_once(vote, tree), 1)
    twice = evaluate(load(f"pipeline:{tree.models[0]}>{tree.models[0]}", request), tree)
    np.testing.assert_allclose(calls_at_least_once(twice, tree), [[1, 0]] * 5)
