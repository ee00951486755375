import itertools
from typing import Any

import numpy as np
import pytest

from pools import Context, Generation, GenerationSettings, Item, UserError
from pools.cost import paper_cost
from pools.mdp.tree import MAX_NODES, Tree


def test_numbering(synthetic_tree):
    tree = synthetic_tree(items=1, models=3, max_hops=3, complete=False)
    assert (tree.nodes, tree.decision_nodes) == (1 + 3 + 9 + 27, 1 + 3 + 9)
    seen = set()
    for node in range(tree.nodes):
        pipeline = tree.pipeline(node)
        seen.add(pipeline)
        assert tree.node(pipeline) == node
        assert len(pipeline) == tree.depth[node]
        if node:
            assert tree.parent(node) == tree.node(pipeline[:-1])
            assert tree.action(node) == pipeline[-1]
            assert tree.child(tree.parent(node), pipeline[-1]) == node
        assert (node < tree.decision_nodes) == (len(pipeline) < 3)
    assert len(seen) == tree.nodes
    assert [len(tree.level(depth)) for depth in range(4)] == [1, 3, 9, 27]


def test_one_model_is_a_chain(synthetic_tree):
    tree = synthetic_tree(models=1, max_hops=3)
    assert tree.nodes == 4
    assert [tree.pipeline(n) for n in range(4)] == [(), (0,), (0, 0), (0, 0, 0)]
    assert tree.complete


@pytest.mark.parametrize(("models", "hops"), [([], 2), (["a"], 0)])
def test_a_tree_needs_a_model_and_a_hop(models, hops):
    with pytest.raises(UserError):
        Tree([], models, hops, paper_cost((), "unit"))


def test_contexts_follow_the_pipelines(synthetic_tree):
    tree = synthetic_tree(items=3, models=2, max_hops=3)
    for item in range(3):
        for node in range(1, tree.nodes):
            parent, made = int(tree.parent(node)), tree.generation(item, node)
            assert tree.context(item, node) == tree.context(item, parent).extended(made.response)
            assert tree.cost[item, node] == tree.cost_model.hop_cost(tree.action(node), made)
    assert np.all(tree.score[:, 0] == 0)


def test_equal_contexts_are_one(synthetic_tree, made_up_generator):
    tree = synthetic_tree(items=2, models=3, max_hops=2, generator=made_up_generator(variety=1))
    # Every model gives the same answer: one context per item and depth.
    assert len(tree.contexts) == len(set(tree.contexts)) == 2 * 3
    assert len(np.unique(tree.context_id)) == 2 * 3
    for item in range(2):
        assert len(set(tree.context_id[item, tree.level(2)])) == 1


def test_each_distinct_request_is_generated_once_in_one_batch_per_model(synthetic_tree, made_up_generator):
    generator = made_up_generator(variety=2)
    tree = synthetic_tree(items=3, models=2, max_hops=3, generator=generator)
    requests = [(model, *request) for model, batch in generator.calls for request in batch]
    assert len(requests) == len(set(requests))
    assert len(generator.calls) == 2 * 3  # one for each model at each hop
    expected = {
        (int(tree.action(n)), tree.context(i, int(tree.parent(n))), tree.items[i].settings)
        for i in range(3)
        for n in range(1, tree.nodes)
    }
    assert set(requests) == expected
    assert len(requests) < 3 * (tree.nodes - 1)
    tree.require(np.arange(3), tree.nodes - 1)
    assert len(generator.calls) == 2 * 3


def test_a_response_is_not_asked_for_again_by_another_pipeline(synthetic_tree, made_up_generator):
    generator = made_up_generator(variety=1)
    tree = synthetic_tree(items=1, models=2, max_hops=2, complete=False, generator=generator)
    tree.require(0, tree.node((0, 0)))
    tree.require(0, tree.node((1, 0)))  # model 1 gave the same answer, so model 0 has read this context
    assert [model for model, _ in generator.calls] == [0, 0, 1]
    assert tree.generation(0, tree.node((1, 0))) is tree.generation(0, tree.node((0, 0)))


def test_settings_belong_to_the_request(made_up_generator):
    generator = made_up_generator()
    items = [Item("a", n, "same question", GenerationSettings((), 4 + n), "train") for n in range(2)]
    tree = Tree(items, ["m"], 1, paper_cost((1.0,), "unit"), generator, lambda answers: [0.0] * len(answers))
    tree.require([0, 1], [1, 1])
    assert [len(batch) for _, batch in generator.calls] == [2]
    assert tree.context_id[0, 0] == tree.context_id[1, 0]
    assert tree.generation(0, 1) == generator.generate(0, [(Context("same question"), items[0].settings)])[0]


@pytest.mark.parametrize("nodes", [(1, 12), (12, 1), (12, 5), (3, 14)])
def test_nodes_of_several_depths_at_once(synthetic_tree, nodes):
    """A shallow node in the request must not keep the hops above a deep one from being made."""
    full = synthetic_tree(items=2, models=2, max_hops=3)
    part = synthetic_tree(items=2, models=2, max_hops=3, complete=False)
    part.require([0, 1], nodes)
    for item, node in zip((0, 1), nodes, strict=True):
        while True:
            assert part.known[item, node]
            assert part.context(item, node) == full.context(item, node)
            assert part.score[item, node] == full.score[item, node]
            if not node:
                break
            node = int(part.parent(node))
    assert not part.complete


def test_only_what_is_required_is_generated(synthetic_tree, made_up_generator):
    generator = made_up_generator()
    tree = synthetic_tree(items=3, models=2, max_hops=2, complete=False, generator=generator)
    tree.require(1, tree.node((1, 0)))
    assert {(i, n) for i, n in np.argwhere(tree.known) if n} == {(1, tree.node((1,))), (1, tree.node((1, 0)))}
    assert sum(len(batch) for _, batch in generator.calls) == 2


def _recorded(tree):
    copy = tree.subset(range(len(tree.items)))
    copy._generator = copy._scorer = None
    return copy


def test_a_recording_that_lacks_nodes_says_which(synthetic_tree):
    tree = synthetic_tree(items=2, models=2, max_hops=2, complete=False)
    tree.require([0], [tree.node((0, 1))])
    recorded = _recorded(tree)
    recorded.require([0, 0], [tree.node((0,)), tree.node((0, 1))])
    with pytest.raises(UserError, match=r"model-1 > model-0 to item 1 of made-up \(1 are missing\)") as error:
        recorded.require([1], [tree.node((1, 0))])
    assert "\n" not in str(error.value)


def _same(part, full, items, nodes):
    for local, index in enumerate(items):
        assert part.items[local] == full.items[index]
        for node in range(nodes):
            assert part.context(local, node) == full.context(index, node)
            for name in ("known", "score", "cost"):
                assert getattr(part, name)[local, node] == getattr(full, name)[index, node]
            if node:
                assert part.generation(local, node) == full.generation(index, node)


@pytest.mark.parametrize("items", [[3, 0], [2], [1, 1], []])
def test_subset(synthetic_tree, items):
    full = synthetic_tree(items=4, models=2, max_hops=2)
    part = full.subset(items)
    assert part.known.shape == (len(items), full.nodes)
    assert part.complete
    _same(part, full, items, full.nodes)
    assert len(set(part.contexts)) == len(part.contexts)
    # It shares nothing that is written to.
    part.score[:] = 7
    part.known[:] = False
    assert full.score.max() <= 1
    assert full.complete


def test_subset_of_a_part_goes_on(synthetic_tree, made_up_generator):
    generator = made_up_generator()
    full = synthetic_tree(items=4, models=2, max_hops=2)
    live = synthetic_tree(items=4, models=2, max_hops=2, complete=False, generator=generator)
    live.require([2, 3], [1, 2])
    part = live.subset([3, 2])
    asked = sum(len(batch) for _, batch in generator.calls)
    rows, columns = np.indices(part.known.shape)
    part.require(rows.ravel(), columns.ravel())
    _same(part, full, [3, 2], full.nodes)
    again = [(m, r) for m, batch in generator.calls[asked:] for r in batch]
    first = [(m, r) for m, batch in generator.calls[:asked] for r in batch]
    assert not set(again) & set(first)


def test_select(synthetic_tree):
    full = synthetic_tree(items=7, models=2, max_hops=1)
    for split, items in (("train", [0, 3, 6]), ("validation", [1, 4]), ("test", [2, 5])):
        _same(full.select(split), full, items, full.nodes)


def test_shortened(synthetic_tree):
    full = synthetic_tree(items=3, models=2, max_hops=3)
    for hops in (1, 2, 3):
        part = full.shortened(hops)
        assert (part.max_hops, part.nodes) == (hops, 2 ** (hops + 1) - 1)
        _same(part, full, range(3), part.nodes)
    with pytest.raises(UserError):
        full.shortened(4)


def test_rows(synthetic_tree):
    tree = synthetic_tree(items=2, models=2, max_hops=2, complete=False)
    tree.require([0, 1], [4, 1])
    rows = list(tree.rows())
    assert [(row["doc_id"], row["pipeline"]) for row in rows] == [
        (0, ["model-0"]),
        (0, ["model-0", "model-1"]),
        (1, ["model-0"]),
    ]
    assert rows[1]["response"] == tree.generation(0, 4).response
    assert rows[1]["score"] == tree.score[0, 4]


def _filled(one, max_hops):
    """The tree of independent answers, filled node by node."""
    tree = Tree(one.items, one.models, max_hops, one.cost_model)
    for item in range(len(tree.items)):
        for node in range(1, tree.nodes):
            first = 1 + int(tree.action(node))
            tree.put(item, node, one.generation(item, first), one.score[item, first])
    return tree


@pytest.mark.parametrize(("models", "hops", "variety"), [(2, 3, 3), (3, 2, 1), (1, 4, 3), (3, 1, 3)])
def test_a_cascade_is_the_tree_filled_node_by_node(synthetic_tree, made_up_generator, models, hops, variety):
    one = synthetic_tree(items=4, models=models, max_hops=1, generator=made_up_generator(variety))
    deep, filled = one.cascade(hops), _filled(one, hops)
    assert deep.independent and deep.complete and deep.nodes == filled.nodes
    np.testing.assert_array_equal(deep.depth, filled.depth)
    _same(deep, filled, range(4), filled.nodes)
    # Equal contexts are one, so that a text is embedded once.
    deep.context_ids(*np.indices(deep.known.shape))
    assert len(set(deep.contexts)) == len(deep.contexts) == len(filled.contexts)


@pytest.mark.parametrize("items", [[3, 0], [2], [1, 1], []])
def test_a_part_of_a_cascade_is_the_cascade_of_the_part(synthetic_tree, items):
    one = synthetic_tree(items=4, models=2, max_hops=1)
    deep = one.cascade(3)
    for part in (deep.subset(items), one.subset(items).cascade(3), deep.subset(items).shortened(1).cascade(3)):
        assert part.independent and part.complete and part.known.shape == (len(items), deep.nodes)
        _same(part, deep, items, deep.nodes)
    _same(deep.shortened(2), one.cascade(2), range(4), 1 + 2 + 4)
    test = deep.select("test")
    assert test.independent and [item.doc_id for item in test.items] == [2]
    assert list(test.rows()) == [row for row in deep.rows() if row["doc_id"] == 2]
    assert [row["pipeline"] for row in test.rows()] == [["model-0"], ["model-1"]]


def test_a_cascade_that_is_too_deep_says_what_fits(synthetic_tree):
    one = synthetic_tree(items=2, models=2, max_hops=1)
    with pytest.raises(UserError, match=r"cascades of 40 hops over 2 models and 2 items .* at most 25 hops fit"):
        one.cascade(40)
    assert (2**26 - 1) * 2 <= MAX_NODES < (2**27 - 1) * 2


def _hops(tree):
    """All hops of a tree as `fill` takes them, in an order of chance."""
    items, nodes = np.nonzero(tree.known)
    items, nodes = np.random.default_rng(3).permutation(np.stack([items, nodes])[:, nodes > 0], axis=1)
    made = list(dict.fromkeys(tree.generation(*hop) for hop in zip(items, nodes, strict=True)))
    number = {generation: n for n, generation in enumerate(made)}
    made_id = np.array([number[tree.generation(*hop)] for hop in zip(items, nodes, strict=True)])
    return items, nodes, made, made_id, tree.score[items, nodes]


@pytest.mark.parametrize(("variety", "complete"), [(2, True), (1000, True), (2, False)])
def test_a_tree_that_is_filled_at_once_is_the_one_filled_node_by_node(
    synthetic_tree, made_up_generator, variety, complete
):
    full = synthetic_tree(items=4, models=3, max_hops=3, complete=complete, generator=made_up_generator(variety))
    full.require([0, 2, 2], [full.nodes - 1, 7, 2])
    filled, single = (Tree(full.items, full.models, 3, full.cost_model) for _ in range(2))
    filled.fill(*_hops(full))
    for item, node in np.argwhere(full.known):
        if node:
            single.put(item, node, full.generation(item, node), full.score[item, node])
    assert filled.complete == complete
    for name in ("known", "score", "cost"):
        np.testing.assert_array_equal(getattr(filled, name), getattr(single, name))
        assert getattr(filled, name).dtype == getattr(single, name).dtype
    assert list(filled.rows()) == list(single.rows())
    for model in range(3):
        ours, theirs = filled.generations(model), single.generations(model)
        assert len(ours) == len(set(ours)) == len(theirs) and set(ours) == set(theirs)
    items, nodes = np.nonzero(full.known)
    for item, node in zip(items, nodes, strict=True):
        assert filled.context(item, node) == single.context(item, node)
        assert not node or filled.generation(item, node) == single.generation(item, node)
    filled.context_ids(items, nodes)
    assert len(set(filled.contexts)) == len(filled.contexts) == len(single.contexts)
    assert not complete or (variety == 2) == (len(filled.contexts) < len(items)), "with few responses contexts meet"
    part = filled.subset([2, 0]).shortened(2)
    for local, index in enumerate((2, 0)):
        for node in np.flatnonzero(part.known[local]):
            assert part.context(local, node) == single.context(index, node)


GOOD = Generation("yes", 3, 2, "stop", 0.0)


@pytest.mark.parametrize(
    ("nodes", "made", "score", "said"),
    [
        ((1, 2), GOOD, (0.5, 1.5), "score.*1.5"),
        ((1, 2), GOOD, (-0.5, 1.0), "score.*-0.5"),
        ((1, 2), GOOD, (0.5, float("nan")), "score.*nan"),
        ((1, 6), GOOD, (0.5, 0.5), "a response to made-up 1 lacks the hop before it"),
        ((1, 2), Generation("yes", -3, 2, "stop", 0.0), (0.5, 0.5), "a response has -3 and 2 tokens, expected whole"),
        ((1, 2), Generation("yes", 3, 2**31, "stop", 0.0), (0.5, 0.5), "a response has 3 and 2147483648 tokens"),
        ((1, 2), Generation("\ud800", 3, 2, "stop", 0.0), (0.5, 0.5), "surrogate"),
    ],
)
def test_what_no_recording_holds_is_not_filled_in(synthetic_tree, nodes, made, score, said):
    tree = synthetic_tree(items=2, models=2, max_hops=2, complete=False)
    with pytest.raises(UserError, match=said) as error:
        tree.fill(np.array([1, 1]), np.array(nodes), [GOOD, made], np.array([0, 1]), np.array(score, np.float32))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cascade", [False, True])
def test_the_tree_of_some_models_is_the_one_that_they_alone_would_make(synthetic_tree, cascade: bool) -> None:
    tree = synthetic_tree(items=3, models=3, max_hops=1 if cascade else 2)
    tree = tree.cascade(2) if cascade else tree
    part = tree.of_models(["model-2", "model-0"])
    assert part.models == ("model-2", "model-0") and part.complete and part.max_hops == 2
    for node in range(1, part.nodes):
        old = tree.node([(2, 0)[action] for action in part.pipeline(node)])
        assert (part.score[:, node] == tree.score[:, old]).all() and (part.cost[:, node] == tree.cost[:, old]).all()
        for item in range(3):
            assert part.context(item, node) == tree.context(item, old)
            assert part.generation(item, node) == tree.generation(item, old)
    assert part.cost_model.input_rate == (0.03, 0.01)
    with pytest.raises(UserError, match="unknown model 'other'"):
        tree.of_models(["other"])


def test_other_prices_and_other_words_leave_the_answers(synthetic_tree) -> None:
    tree = synthetic_tree(items=3, models=2, max_hops=2)
    repriced = tree.repriced({"model-1": 10.0})
    for node in range(1, tree.nodes):
        factor = 10.0 if tree.action(node) == 1 else 1.0
        assert repriced.cost[:, node] == pytest.approx(factor * tree.cost[:, node])
        again = repriced.cost_model.hop_cost(int(tree.action(node)), tree.generation(0, node))
        assert again == pytest.approx(repriced.cost[0, node])
    assert (repriced.score == tree.score).all()
    asked = tree.reworded([f"say {n}" for n in range(3)])
    for item, node in itertools.product(range(3), range(tree.decision_nodes)):
        assert asked.context(item, node).query == asked.items[item].query == f"say {item}"
        assert asked.context(item, node).responses == tree.context(item, node).responses
    assert tree.context(0, 0).query == tree.items[0].query


def test_at_other_rates_a_tree_is_the_one_that_is_made_with_them(synthetic_tree: Any) -> None:
    made = synthetic_tree(items=5, models=2, max_hops=3)
    other = synthetic_tree(items=5, models=2, max_hops=3, rates=(0.7, 0.02))
    found = made.at_rates(other.cost_model)
    np.testing.assert_array_equal(found.cost, other.cost)
    np.testing.assert_array_equal(found.billed, other.cost)
    assert (
        found.cost_model == other.cost_model and (found.score == made.score).all() and (made.cost != found.cost).any()
    )
    deep = made.shortened(1).cascade(3).at_rates(other.cost_model)
    np.testing.assert_array_equal(deep.cost, other.shortened(1).cascade(3).cost)
