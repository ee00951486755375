"""The optimum under a budget and under a cap, against enumeration and a linear program."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import linprog

from pools.mdp.constrained import best_mix, within_cap
from pools.mdp.optimum import path_costs, solve
from pools.mdp.tree import Tree


def of_linear_program(quality: np.ndarray, spent: np.ndarray, budget: float) -> float | None:
    """The best mean quality of all policies that may draw each item's end at random."""
    items, ends = quality.shape
    open_ = ~np.isneginf(quality)
    found = linprog(
        -np.where(open_, quality, 0).ravel() / items,
        A_ub=[spent.ravel() / items],
        b_ub=[budget],
        A_eq=np.kron(np.eye(items), np.ones(ends)),
        b_eq=np.ones(items),
        bounds=[(0, float(o)) for o in open_.ravel()],
    )
    return -found.fun if found.success else None


@pytest.mark.parametrize(("seed", "models", "hops"), [(0, 2, 2), (1, 3, 2), (2, 2, 3), (3, 3, 1)])
@pytest.mark.parametrize("cap", [np.inf, 0.6])
def test_the_optimum_under_a_budget_is_the_linear_programs(
    synthetic_tree: Callable[..., Tree], seed: int, models: int, hops: int, cap: float
) -> None:
    tree = synthetic_tree(items=7, models=models, max_hops=hops, seed=seed)
    spent = path_costs(tree)
    quality, _ = within_cap(tree, spent, cap)
    budgets = np.linspace(0.5 * spent[:, 1:].min(axis=1).mean(), spent.mean(), 12)
    attained, met = [], 0
    for budget in budgets.tolist():
        mix, expected = best_mix(quality, spent, budget), of_linear_program(quality, spent, budget)
        if mix is None:
            assert expected is None
            continue
        met += 1
        attained.append(mix.of(np.where(np.isneginf(quality), 0, quality)).mean())
        assert attained[-1] == pytest.approx(expected, abs=1e-9)
        cost = mix.of(spent).mean()
        assert cost <= budget + 1e-9
        assert mix.price == 0 or cost == pytest.approx(budget), "a budget that has a price is spent to the end"
    assert met > 5 and attained == sorted(attained) and attained[0] < attained[-1]


def test_without_mixing_the_optimum_is_above_every_deterministic_policy(synthetic_tree: Callable[..., Tree]) -> None:
    tree = synthetic_tree(items=4, models=2, max_hops=2, seed=5)
    spent = path_costs(tree)
    quality, _ = within_cap(tree, spent)
    policies = list(itertools.product(range(1, tree.nodes), repeat=4))
    attained = np.array([[m[np.arange(4), list(p)].mean() for m in (quality, spent)] for p in policies])
    free = best_mix(quality, spent)
    assert free is not None
    for budget in np.linspace(attained[:, 1].min(), free.of(spent).mean(), 6)[1:-1].tolist():
        mix = best_mix(quality, spent, budget)
        assert mix is not None
        pair = mix.first, mix.second
        at_first, at_second = ([m[np.arange(4), columns].mean() for m in (quality, spent)] for columns in pair)
        assert mix.of(quality).mean() >= attained[attained[:, 1] <= budget, 0].max() - 1e-12
        # The two that are mixed are such policies, on either side, and nothing lies above the line between them.
        assert at_first[1] <= budget <= at_second[1]
        assert (attained[:, 0] <= at_first[0] + mix.price * (attained[:, 1] - at_first[1]) + 1e-9).all()


@pytest.mark.parametrize("base", [1e4, 1e6])
def test_what_all_options_cost_changes_neither_the_mix_nor_its_price(base: float) -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        quality, spent = random.random((7, 6)), random.random((7, 6))
        low, high = spent.min(axis=1).mean(), spent[np.arange(7), quality.argmax(axis=1)].mean()
        budget = random.uniform(low, high)
        alone, above = best_mix(quality, spent, budget), best_mix(quality, base + spent, base + budget)
        assert alone is not None and above is not None
        assert above.of(quality).mean() == pytest.approx(alone.of(quality).mean(), abs=1e-6)
        assert above.of(spent).mean() == pytest.approx(budget, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.4])
def test_the_price_is_the_cost_weight_of_the_optimum_without_a_budget(
    synthetic_tree: Callable[..., Tree], weight: float
) -> None:
    tree = synthetic_tree(items=30, models=3, max_hops=2, seed=2)
    spent, free = path_costs(tree), solve(tree, weight, allow_stop=True)
    quality, _ = within_cap(tree, spent)
    mix = best_mix(quality, spent, free.cost.mean())
    assert mix is not None and mix.of(quality).mean() == pytest.approx(free.quality.mean())
    tighter = best_mix(quality, spent, 0.97 * free.cost.mean())
    assert tighter is not None and tighter.price > 0
    value = tighter.of(quality).mean() - tighter.price * tighter.of(spent).mean()
    assert value == pytest.approx(solve(tree, tighter.price, allow_stop=True).value.mean())


def by_backward_induction(tree: Tree, item: int, node: int, spent: float, cap: float) -> float:
    """The best score from a node on, every hop tried, none taken that would spend more than the cap."""
    found = [float(tree.score[item, node])] if node else []
    if tree.depth[node] < tree.max_hops:
        for action in range(len(tree.models)):
            child = int(tree.child(node, action))
            after = spent + float(tree.cost[item, child])
            if after <= cap:
                found.append(by_backward_induction(tree, item, child, after, cap))
    return max(found, default=0.0)


@pytest.mark.parametrize("cap", [0.1, 0.25, 0.6, 1.0, 5.0])
def test_the_optimum_under_a_cap_is_backward_inductions(synthetic_tree: Callable[..., Tree], cap: float) -> None:
    tree = synthetic_tree(items=12, models=2, max_hops=3, seed=4)
    spent = path_costs(tree)
    quality, answered = within_cap(tree, spent, cap)
    mix = best_mix(quality, spent)
    assert mix is not None
    expected = [by_backward_induction(tree, item, 0, 0.0, cap) for item in range(12)]
    np.testing.assert_allclose(mix.of(quality), expected)
    assert (mix.of(spent) <= cap + 1e-9).all(), "hard: no item spends more"
    np.testing.assert_array_equal(answered, spent[:, tree.level(1)].min(axis=1) <= cap)
    assert (mix.of(spent)[~answered] == 0).all() and (mix.of(quality)[~answered] == 0).all()
    if cap == 0.25:
        assert 0 < answered.sum() < 12, "the case of items whose every call is too expensive is met"


@pytest.mark.parametrize("limit", [0.2, 0.5, 0.9, 1.5])
def test_limits_on_seconds_are_those_on_a_tree_that_charges_for_seconds_alone(
    synthetic_tree: Callable[..., Tree], limit: float
) -> None:
    tree = synthetic_tree(items=9, models=2, max_hops=2, seed=6)
    hops = [[[tree.node(p[: h + 1]) for h in range(len(p))] for p in map(tree.pipeline, range(tree.nodes))]] * 9
    taken = np.array(
        [[sum(tree.generation(i, n).seconds for n in on_way) for on_way in of] for i, of in enumerate(hops)]
    )
    spent = path_costs(tree.charged(0.0, 1.0))
    np.testing.assert_allclose(spent, taken)
    quality, _ = within_cap(tree, spent, limit)
    fits = [[node for node in range(1, tree.nodes) if taken[item, node] <= limit] for item in range(9)]
    best = [max((float(tree.score[item, node]) for node in of), default=0.0) for item, of in enumerate(fits)]
    capped = best_mix(quality, spent)
    assert capped is not None
    np.testing.assert_allclose(capped.of(quality), best)
    free, _ = within_cap(tree, spent)
    mix, expected = best_mix(free, spent, limit), of_linear_program(free, taken, limit)
    assert (mix is None) == (expected is None)
    assert mix is None or mix.of(free).mean() == pytest.approx(expected)
