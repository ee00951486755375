import itertools

import numpy as np
import pytest

from pools.mdp.policy_value import action_values, expectation


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


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("allow_stop", [True, False])
@pytest.mark.parametrize(("models", "hops"), [(2, 3), (3, 2), (2, 1)])
def test_action_values_are_those_of_policies_that_take_an_action_once(synthetic_tree, models, hops, allow_stop, weight):
    tree = synthetic_tree(items=4, models=models, max_hops=hops)
    items, actions, nodes = np.array([3, 0, 0]), models + allow_stop, np.arange(tree.decision_nodes)
    chance = np.random.default_rng(1).dirichlet(np.ones(actions), (len(items), len(nodes)))
    chance[:, 0, models:] = 0.0
    chance[:, 0] /= chance[:, 0].sum(axis=1, keepdims=True)
    worth, reach = action_values(tree, items, chance, np.full(len(items), weight))

    def follow(row, taken=None):
        """What the policy attains on one item, with another choice at a node if it is told one: `(node, action)`."""

        def choose(rows, columns, spent):
            found = np.zeros((len(rows), models + 1))
            found[:, :actions] = chance[row, columns]
            if taken is not None:
                found[columns == taken[0]] = np.eye(models + 1)[taken[1]]
            return found

        found = expectation(tree, choose)
        value = found.quality - weight * found.cost
        return value[items[row]], found.reach[items[row]]

    for row in range(len(items)):
        value, reached = follow(row)
        assert (chance[row, 0] * worth[row, 0]).sum() == pytest.approx(value)
        np.testing.assert_allclose(reach[row], reached[: tree.decision_nodes])
        for node in nodes.tolist():
            for action in range(actions if node else models):
                # Once at the node, what was paid before it is paid; what happens elsewhere does not depend on it.
                other, _ = follow(row, (node, action))
                own = (chance[row, node] * worth[row, node]).sum()
                assert other - value == pytest.approx(reach[row, node] * (worth[row, node, action] - own))
        if allow_stop:
            np.testing.assert_allclose(worth[row, :, models], tree.score[items[row], : tree.decision_nodes])
