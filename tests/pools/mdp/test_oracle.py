import itertools

import numpy as np
import pytest

from pools import Generation
from pools.mdp.optimum import path_costs, solve

# Powers of two, so that equal costs are equal to the last bit and ties happen.
RATES = (2.0**-6, 2.0**-5, 2.0**-5)


def _pipelines(tree, shortest):
    lengths = range(shortest, tree.max_hops + 1)
    return [p for n in lengths for p in itertools.product(range(len(tree.models)), repeat=n)]


def _outcome(tree, item, pipeline):
    """Score and cost of one pipeline, hop by hop."""
    node, cost = 0, 0.0
    for model in pipeline:
        node = int(tree.child(node, model))
        made = tree.generation(item, node)
        cost += tree.cost_model.input_rate[model] * (made.tokens_in + made.tokens_out)
    return float(tree.score[item, node]), cost


@pytest.mark.parametrize("weight", [0.0, 0.03, 0.5, 20.0])
@pytest.mark.parametrize("allow_stop", [False, True])
@pytest.mark.parametrize(("seed", "models", "hops"), [(0, 2, 3), (1, 3, 2), (2, 3, 3), (3, 2, 1), (4, 1, 2)])
def test_solve_is_brute_force(synthetic_tree, seed, models, hops, allow_stop, weight):
    tree = synthetic_tree(items=6, models=models, max_hops=hops, seed=seed, rates=RATES[:models])
    solution = solve(tree, weight, allow_stop)
    for item in range(6):
        outcomes = [_outcome(tree, item, p) for p in _pipelines(tree, 1 if allow_stop else hops)]
        best = max(score - weight * cost for score, cost in outcomes)
        ties = [cost for score, cost in outcomes if score - weight * cost >= best - 1e-12]
        assert solution.value[item] == pytest.approx(best, abs=1e-12)
        assert solution.cost[item] == pytest.approx(min(ties), abs=1e-12)
        assert solution.quality[item] == pytest.approx(best + weight * min(ties), abs=1e-9)
        # The actions are the policy that attains it.
        pipeline, node = [], 0
        while len(pipeline) < hops and (action := solution.action[item, node]) < models:
            pipeline.append(int(action))
            node = int(tree.child(node, action))
        assert len(pipeline) >= 1
        assert len(pipeline) == hops or allow_stop
        quality, cost = _outcome(tree, item, pipeline)
        assert (quality, cost) == pytest.approx((solution.quality[item], solution.cost[item]), abs=1e-12)


@pytest.mark.parametrize(("cost_weight", "latency_weight"), [(0.5, 0.2), (0.0, 0.3), (0.03, 0.0)])
@pytest.mark.parametrize("independent", [False, True])
def test_solve_is_brute_force_under_two_prices(synthetic_tree, independent, cost_weight, latency_weight):
    tree = synthetic_tree(items=6, models=3, max_hops=1 if independent else 3, seed=6, rates=RATES)
    tree = tree.cascade(3) if independent else tree
    priced = tree.charged(cost_weight, latency_weight)
    solution, part = solve(priced, 1.0, True), priced.subset([4, 1])
    for item in range(6):
        values = []
        for pipeline in _pipelines(tree, 1):
            made = [tree.generation(item, tree.node(pipeline[: hop + 1])) for hop in range(len(pipeline))]
            score, cost = _outcome(tree, item, pipeline)
            seconds = sum(one.seconds for one in made)
            node = tree.node(pipeline)
            assert tree.path_seconds(item, node) == seconds
            assert path_costs(priced)[item, node] == pytest.approx(cost_weight * cost + latency_weight * seconds)
            values.append(score - cost_weight * cost - latency_weight * seconds)
        assert solution.value[item] == pytest.approx(max(values), abs=1e-12)
    # What was billed stays what it was, in parts of the tree, too.
    assert (priced.billed == tree.cost).all() and (part.billed == tree.cost[[4, 1]]).all()
    assert (part.cost == priced.cost[[4, 1]]).all()
    assert (priced.shortened(1).billed == tree.cost[:, :4]).all()


def _planted(synthetic_tree, outcomes, hops=1):
    """A tree of one item whose first hops have these scores and costs; deeper ones are wrong and cost 1."""
    tree = synthetic_tree(items=1, models=len(outcomes), max_hops=hops, rates=[1.0] * len(outcomes))
    for node in range(1, tree.nodes):
        score, tokens = outcomes[node - 1] if node <= len(outcomes) else (0.0, 1)
        tree.put(0, node, Generation(f"answer {node}", tokens, 0, "stop", 0.0), score)
    return tree


@pytest.mark.parametrize("allow_stop", [False, True])
def test_ties_go_to_the_cheaper(synthetic_tree, allow_stop):
    tree = _planted(synthetic_tree, [(1.0, 7), (1.0, 3), (1.0, 5)])
    solution = solve(tree, 0.0, allow_stop)
    assert (solution.action[0, 0], solution.cost[0], solution.quality[0]) == (1, 3, 1)
    # Equal values of unequal quality: 1 - 0.1 * 10 = 0.5 - 0.1 * 5.
    tree = _planted(synthetic_tree, [(1.0, 10), (0.5, 5), (0.0, 1)])
    solution = solve(tree, 0.1, allow_stop)
    assert (solution.action[0, 0], solution.cost[0], solution.quality[0]) == (1, 5, 0.5)


def test_stopping_keeps_a_good_answer_and_something_must_answer(synthetic_tree):
    tree = _planted(synthetic_tree, [(1.0, 4), (0.0, 2)], hops=2)
    solution = solve(tree, 0.1, allow_stop=True)
    assert (solution.quality[0], solution.cost[0]) == (1.0, 4.0)
    assert solution.action[0].tolist()[:2] == [0, 2]
    dear = solve(tree, 100.0, allow_stop=True)  # answering nothing would be worth more, but is not open
    assert (dear.quality[0], dear.cost[0], dear.action[0, 0]) == (0.0, 2.0, 1)
    assert solve(tree, 0.1, allow_stop=False).quality[0] == 0.0


def test_hop_and_path_costs(synthetic_tree):
    tree = synthetic_tree(items=3, models=2, max_hops=3, rates=[0.5, 3.0])
    paths = path_costs(tree)
    assert np.all(tree.cost[:, 0] == 0) and np.all(paths[:, 0] == 0)
    for item, node in itertools.product(range(3), range(1, tree.nodes)):
        pipeline = tree.pipeline(node)
        expected = _outcome(tree, item, pipeline)[1]
        assert paths[item, node] == pytest.approx(expected)
        assert tree.cost[item, node] == pytest.approx(expected - _outcome(tree, item, pipeline[:-1])[1])
