from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.evaluation.evaluate import evaluate, mean_outcome, sample
from harness.evaluation.rollout import rollout
from pools.errors import UserError
from pools.mdp.optimum import path_costs, solve
from pools.mdp.tree import Tree
from routers import RouterRequest, RoutingStates, load
from routers.fixed import FixedRouter
from routers.registry import teach


@pytest.fixture(scope="module")
def tree(synthetic_tree: Callable[..., Tree]) -> Tree:
    return synthetic_tree(items=30, models=3, max_hops=3, seed=5, rates=(1.0, 3.0, 0.5))


def request(tree: Tree, **more: object) -> RouterRequest:
    given = {"models": tree.models, "max_hops": tree.max_hops, "cost_model": tree.cost_model, "evaluation": tree}
    return RouterRequest(**{**given, **more})  # type: ignore[arg-type]


def test_random_is_the_mean_over_all_pipelines(tree: Tree) -> None:
    outcome = evaluate(load("random", request(tree)), tree)
    leaves = tree.level(3)
    np.testing.assert_allclose(outcome.quality, tree.score[:, leaves].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(outcome.cost, path_costs(tree)[:, leaves].mean(axis=1))
    np.testing.assert_allclose(outcome.hops, 3)
    np.testing.assert_allclose(outcome.calls, 1)
    assert outcome.exact


def test_the_mean_over_all_pipelines_is_random(tree: Tree) -> None:
    each = [evaluate(FixedRouter(pipeline, 3), tree) for pipeline in product(range(3), repeat=3)]
    mean, random = mean_outcome(each), evaluate(load("random", request(tree)), tree)
    for name in ("quality", "cost", "routing_cost", "hops", "calls", "end"):
        np.testing.assert_allclose(getattr(mean, name), getattr(random, name), rtol=1e-6, atol=1e-12)
    assert mean.exact and mean_outcome(each[:1]) is each[0]


def test_every_fixed_pipeline_is_its_node(tree: Tree) -> None:
    for length in (1, 2, 3):
        for pipeline in product(range(3), repeat=length):
            outcome = evaluate(FixedRouter(pipeline, 3), tree)
            node = tree.node(pipeline)
            np.testing.assert_allclose(outcome.quality, tree.score[:, node])
            np.testing.assert_allclose(outcome.cost, path_costs(tree)[:, node])
            assert (outcome.hops == length).all()


@pytest.mark.parametrize("allow_stop", [True, False])
@pytest.mark.parametrize("cost_weight", [0.0, 0.001, 0.01])
def test_the_oracle_router_attains_the_solution(tree: Tree, cost_weight: float, allow_stop: bool) -> None:
    router = load("oracle" if allow_stop else "oracle:no-stop", request(tree, cost_weight=cost_weight))
    outcome, solution = evaluate(router, tree), solve(tree, cost_weight, allow_stop)
    np.testing.assert_allclose(outcome.quality, solution.quality)
    np.testing.assert_allclose(outcome.cost, solution.cost)


@pytest.mark.parametrize("cost_weight", [0.0, 1.0])
def test_the_oracle_per_item_is_the_cheapest_way_to_the_best_score_whatever_cost_weighs(
    tree: Tree, cost_weight: float
) -> None:
    outcome = evaluate(load("oracle:per-item", request(tree, cost_weight=cost_weight)), tree)
    scores, costs = tree.score[:, 1:], path_costs(tree)[:, 1:]  # of every pipeline
    best = scores.max(axis=1)
    assert (best == 0).any()  # what nothing solves is charged its cheapest attempt
    np.testing.assert_allclose(outcome.quality, best)
    np.testing.assert_allclose(outcome.cost, np.where(scores == best[:, None], costs, np.inf).min(axis=1))


class Leaning:
    """Depends on the state, draws its actions and stops now and then."""

    def probabilities(self, states: RoutingStates) -> np.ndarray:
        heavy = np.array([len(c.responses[-1]) if c.responses else 0 for c in states.contexts]) % 2
        chance = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])[np.minimum(heavy + (states.hop > 0), 1)]
        return chance

    def act(self, states: RoutingStates) -> np.ndarray:
        return self.probabilities(states).argmax(axis=1)

    def routing_cost(self, states: RoutingStates) -> np.ndarray:
        return np.full(len(states.contexts), 2.0)


def test_expectations_are_what_sampling_tends_to(tree: Tree) -> None:
    exact = evaluate(Leaning(), tree)
    drawn = [sample(Leaning(), tree, seed) for seed in range(400)]
    for name in ("quality", "cost", "hops", "routing_cost"):
        means = np.array([getattr(outcome, name).mean() for outcome in drawn])
        error = means.std() / np.sqrt(len(means))
        assert abs(means.mean() - getattr(exact, name).mean()) < 4 * error + 1e-12
    assert exact.hops.mean() < 3


def test_on_live_models_only_what_is_chosen_is_generated(synthetic_tree: Callable[..., Tree]) -> None:
    live = synthetic_tree(items=6, models=3, max_hops=2, complete=False)
    outcome = evaluate(load("random", request(live, max_hops=2)), live, seed=3)
    assert not outcome.exact
    assert live.known[:, 1:].sum() == 12
    again = evaluate(load("random", request(live, max_hops=2)), live, seed=3)
    np.testing.assert_array_equal(outcome.cost, again.cost)


class Returning:
    """Returns what it is told, at every state, or of their number."""

    def __init__(self, given: object) -> None:
        self.given = given

    def act(self, states: RoutingStates) -> Any:
        return self.given(len(states.contexts)) if callable(self.given) else [self.given] * len(states.contexts)


class Drawing(Returning):
    def probabilities(self, states: RoutingStates) -> Any:
        return Returning.act(self, states)


class Voting(Returning):
    def choose_response(self, responses: object) -> Any:
        return self.given(30) if callable(self.given) else [self.given] * 30


class Billing(Returning):
    def act(self, states: RoutingStates) -> Any:
        return np.zeros(len(states.contexts), np.int64)

    def routing_cost(self, states: RoutingStates) -> Any:
        return Returning.act(self, states)


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (Returning(-1), r"Returning: act returned -1; expected \[30\] whole numbers from 0 to 3, where 3 is STOP"),
        (Returning(0.5), "act returned 0.5; expected"),
        (Returning(3), "stopped before any model was asked"),
        (Returning(None), "act returned list of object; expected"),
        (Returning(lambda n: [0] * (n - 1)), r"act returned an array of shape \[29\]; expected"),
        (Returning(lambda n: [[0], [0, 1]]), "act returned a list that is no array; expected"),
        (Drawing([0.1, 0.1, 0.1]), r"Drawing: probabilities returned \[0.1, 0.1, 0.1\], which sums to 0.3; expected"),
        (Drawing([np.nan, 0.5, 0.5]), "which sums to nan; expected"),
        (Drawing([1.5, -0.5, 0.0]), r"\[1.5, -0.5, 0\], which sums to 1; expected"),
        (Drawing([0.5, 0.5]), r"shape \[30, 2\]; expected \[30, 3\] probabilities, or \[30, 4\] with STOP"),
        (Voting(3), r"Voting: choose_response returned 3; expected \[30\] whole numbers from 0 to 2"),
        (Billing(-1.0), "Billing: routing_cost returned -1.0; expected"),
        (Billing(lambda n: 1.0), r"routing_cost returned an array of shape \[\]; expected"),
    ],
)
def test_what_no_router_may_return_is_refused(tree: Tree, router: Any, message: str) -> None:
    for run in (evaluate, *([] if isinstance(router, Voting) else [rollout])):
        with pytest.raises(UserError, match=message) as refused:
            run(router, tree)
        assert "\n" not in str(refused.value)


def test_a_router_that_is_refused_goes_by_its_registered_name(tree: Tree, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom routers import register\n\n"
        "class Learnt:\n    def act(self, states):\n        return [99] * len(states.hop)\n\n"
        "    def save(self):\n        return {}\n\n"
        "@register('far-off')\n@dataclass\nclass Mine:\n    def fit(self, train, validation, request):\n"
        "        return Learnt()\n"
    )
    router = teach(str(file), RouterRequest(models=tree.models, max_hops=tree.max_hops, train=tree), {}).router
    with pytest.raises(UserError, match="router far-off: act returned 99; expected"):
        evaluate(router, tree)


def test_actions_and_probabilities_of_other_types_are_read(tree: Tree) -> None:
    right = evaluate(Returning(1), tree)
    in_single_precision = np.full(3, 1 / 3, np.float32)
    assert in_single_precision.astype(np.float64).sum() != 1
    for router in (Returning(1.0), Returning(np.uint8(1)), Returning(True), Drawing([0, 1, 0]), Drawing([0, 1, 0, 0])):
        assert evaluate(router, tree).quality.tolist() == right.quality.tolist()
        assert rollout(router, tree).cost.tolist() == pytest.approx(right.cost.tolist())
    evenly = evaluate(load("random", request(tree)), tree)
    np.testing.assert_allclose(evaluate(Drawing(in_single_precision), tree).quality, evenly.quality, atol=1e-6)
