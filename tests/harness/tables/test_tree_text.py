from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import UserError, tree_text
from pools.mdp.tree import Tree


def test_each_response_of_a_level_stands_in_its_line_with_what_it_scored_and_cost(
    synthetic_tree: Callable[..., Tree],
) -> None:
    tree = synthetic_tree()
    item, first = 1, 0
    whole = tree_text(tree, item, hops=tree.max_hops).splitlines()
    assert whole[1] == tree.items[item].query and len(whole) == 3 + tree.nodes - 1
    below = tree_text(tree, item, after=[tree.models[first]]).splitlines()
    assert tree.generation(item, int(tree.child(0, first))).response in below
    for line, model in zip(below[-len(tree.models) :], range(len(tree.models)), strict=True):
        node = int(tree.child(tree.child(0, first), model))
        assert line.startswith(tree.models[model]) and line.endswith(tree.generation(item, node).response)
        assert f"score {tree.score[item, node]:.2f}" in line and f"cost {tree.cost[item, node]:.3g}" in line
        assert f"  {line}" in whole, "in the whole tree it is indented by its hop"


def test_what_is_not_there_is_said(synthetic_tree: Callable[..., Tree]) -> None:
    tree = synthetic_tree()
    with pytest.raises(UserError, match=f"below {len(tree.items)}"):
        tree_text(tree, len(tree.items))
    with pytest.raises(UserError, match="model nobody is not in the tree; it has"):
        tree_text(tree, 0, after=["nobody"])
    with pytest.raises(UserError, match=f"the tree has {tree.max_hops} hops"):
        tree_text(tree, 0, after=[tree.models[0]] * tree.max_hops)
