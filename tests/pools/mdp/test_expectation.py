import itertools

import numpy as np
import pytest

from pools.mdp.policy_value import expectation


def _policy(items, nodes, spent, models):
    """A policy that looks at all that it is given; the last action is STOP, which is closed at the root."""
    weights = np.stack([1 + np.sin(items + (a + 1) * nodes + 3 * a + 10 * spent) ** 2 for a in range(models + 1)], -1)
    weights[nodes == 0, models] = 0.0
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(("models", "hops"), [(2, 3), (3, 2), (1, 2)])
def test_the_expectation_is_the_sum_over_all_pipelines(synthetic_tree, models, hops):
    tree = synthetic_tree(items=5, models=models, max_hops=hops)
    found = expectation(tree, lambda i, n, c: _policy(i, n, c, models))
    for item in range(5):
        total = dict.fromkeys(("chance", "quality", "cost", "hops"), 0.0)
        calls = np.zeros(models)
        for length in range(1, hops + 1):
            for pipeline in itertools.product(range(models), repeat=length):
                chance, node, cost = 1.0, 0, 0.0
                for model in pipeline:
                    chance *= _policy(*(np.array([v]) for v in (item, node, cost)), models)[0, model]
                    node = int(tree.child(node, model))
                    cost += tree.cost[item, node]
                assert found.reach[item, node] == pytest.approx(chance)
                if length < hops:
                    chance *= _policy(*(np.array([v]) for v in (item, node, cost)), models)[0, models]
                values = {"chance": 1.0, "quality": tree.score[item, node], "cost": cost, "hops": length}
                total = {name: total[name] + chance * value for name, value in values.items()}
                calls += chance * np.bincount(pipeline, minlength=models)
        assert total["chance"] == pytest.approx(1.0)
        assert found.quality[item] == pytest.approx(total["quality"])
        assert found.cost[item] == pytest.approx(total["cost"])
        assert found.hops[item] == pytest.approx(total["hops"])
        assert found.calls[item] == pytest.approx(calls)
