from dataclasses import replace

import numpy as np
import pytest

from harness.evaluation.evaluate import evaluate
from pools.cost import paper_cost
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.types import Generation, GenerationSettings, Item
from routers import RouterRequest, RoutingStates, load
from routers.majority_vote import MajorityVote

# Item 0: two of three agree and are right. Item 1: two agree and are wrong. Item 2: all differ. Item 3: nothing said.
SAID = [["12", "Answer: 13", "5 + 8 = 13. Answer: 13."], ["red", "blue", "It is red!"], ["a", "b", "c"], ["", "", "x"]]
RIGHT = ["13", "blue", "b", "x"]
COST = paper_cost((1.0, 2.0, 4.0), "unit")


class Said:
    """Answers to the query as in SAID; tokens_in is 10, tokens_out the length of the answer."""

    def generate(self, model, requests):
        return [
            Generation(text, 10, len(text), "stop", 0.0)
            for context, _ in requests
            for text in [SAID[int(context.query)][model] if not context.responses else "later"]
        ]


def score(answers):
    return [float(response.rstrip(".!").endswith(RIGHT[item.doc_id])) for item, response in answers]


def live(cost_model=COST):
    items = [Item("task", n, str(n), GenerationSettings((), 9), "train") for n in range(len(SAID))]
    return Tree(items, ("a", "b", "c"), 2, cost_model, Said(), score)


def whole(tree):
    tree.require(np.arange(len(tree.items))[:, None], np.arange(tree.nodes))
    return tree


@pytest.fixture
def tree():
    return whole(live())


def request(tree, **changes):
    made = RouterRequest(models=tree.models, max_hops=2, cost_model=tree.cost_model, train=tree, evaluation=tree)
    return replace(made, **changes)


def test_the_majority_is_taken_and_all_are_paid_for(tree):
    router = load("majority-vote", request(tree))
    # Alone, on these items: a has none right, b three and c two, so b leads where nobody has a majority.
    assert router.order[0] == 1
    outcome = evaluate(router, tree)
    assert outcome.quality.tolist() == [1, 0, 1, 1]
    paid = [sum(rate * (10 + len(text)) for rate, text in zip((1, 2, 4), row, strict=True)) for row in SAID]
    np.testing.assert_allclose(outcome.cost, paid)
    assert (outcome.hops == 3).all()
    assert (outcome.calls == 1).all()


def test_of_as_many_votes_the_first_in_order_counts():
    votes = [["x", "y", "z"], ["x", "y", "y!"], ["", "", "z"]]
    assert MajorityVote((2, 0, 1)).choose_response(votes).tolist() == [2, 2, 2]
    assert MajorityVote((0, 1, 2)).choose_response(votes).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        ("letter", ["C", "B) since 2 is even", "The answer is B."], 1),
        ("number", ["It is 12.", "#### 1,000", "So 400 + 600 = $1000.00 in all."], 1),
        (
            "code",
            ["def f(a):\n    return a", "def f(x):\n    return -x", "```python\ndef f(y):\n    return -y\n```"],
            1,
        ),
        ("text", ["Ann Lee", "ann  lee.", "Bo"], 0),
        (r"is (\w+),", ["is red, too", "is blue, too", "that is blue, not red"], 1),
        # Of responses that give no answer none agree: the first model's counts.
        ("letter", ["B", "no idea", "no idea"], 0),
        (r"is (\w+),", ["is red,", "blue", "blue"], 0),
    ],
)
def test_answers_are_read_as_the_recording_says(kind, given, taken):
    tree = live()
    tree.answers = kind
    router = load("majority-vote", request(whole(tree)))
    assert replace(router, order=(0, 1, 2)).choose_response([given]).tolist() == [taken]


def test_a_live_tree_is_asked_for_the_first_hop_alone(tree):
    asked = live()
    evaluate(MajorityVote((0, 1, 2)), asked)
    assert asked.known.sum(axis=1).tolist() == [4] * len(tree.items)


def test_it_routes_nothing(tree):
    states = RoutingStates([tree.contexts[0]], np.zeros(1, int), np.zeros(1), np.full((1, 2), -1))
    with pytest.raises(UserError, match="majority-vote asks every model"):
        load("majority-vote", request(tree)).act(states)


def test_cheapest(tree):
    assert load("cheapest", request(tree)).pipeline == (0,)
    assert load("cheapest", request(whole(live(paper_cost((4.0, 2.0, 1.0), "unit"))))).pipeline == (2,)
    with pytest.raises(UserError, match="takes no argument"):
        load("cheapest:a", request(tree))
    with pytest.raises(UserError, match="learns from train items"):
        load("cheapest", request(tree, train=None))
    with pytest.raises(UserError, match="no costs were recorded"):
        load("cheapest", request(whole(live(paper_cost((0.0, 0.0, 0.0), "")))))
