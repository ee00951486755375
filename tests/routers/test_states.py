from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pools import Context
from pools.mdp.tree import Tree
from routers import RouterRequest
from routers.encoders.base import ContextEncoder
from routers.encoders.hashing import HashingEncoder
from routers.encoders.surface import surface
from routers.states import PARTS, StateFeatures, features_of

QUERY = "What is 10 + 20?"
CONTEXTS = [Context(QUERY), Context(QUERY, ("It is 30.",)), Context(QUERY, ("It is 30.", "10 + 20 = 30\n#### 30.0"))]
HOP, COST = np.array([0, 1, 2]), np.array([0.0, 2.0, 5.0])
ACTIONS = np.array([[-1, -1, -1], [1, -1, -1], [1, 0, -1]])
"""Nobody has spoken; the second model has; then the first one."""


def features(*sees: str, answers: str = "number", max_hops: int = 3) -> StateFeatures:
    return StateFeatures(max_hops, 2, sees, None, answers, cost_scale=10.0)


def test_the_parts_of_three_states() -> None:
    blocks = features("models", "agreement", "cost", "surface").blocks(CONTEXTS, HOP, COST, ACTIONS)
    expected = {
        "hop": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "spoke": [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]],
        "last": [[0, 0], [0, 1], [1, 0]],
        "agrees": [[0], [0], [1]],
        "agrees with": [[0, 0], [0, 0], [0, 1]],
        "cost": [[0], [0.2], [0.5]],
    }
    assert list(blocks) == [*expected, "query surface", "response surface"]
    for name, values in expected.items():
        np.testing.assert_allclose(blocks[name], values, err_msg=name)
    np.testing.assert_array_equal(blocks["query surface"], [surface(QUERY)] * 3)
    said, of_text = blocks["response surface"], len(surface(""))
    assert not said[0].any()
    np.testing.assert_array_equal(said[1:, :of_text], [surface(c.responses[-1]) for c in CONTEXTS[1:]])
    # Numbers of the query taken up, new numbers, lengths, words taken up (is; 10 and +), what follows the mark.
    related = said[1:, of_text:]
    np.testing.assert_allclose(related[:, 0], [0, 1])
    np.testing.assert_allclose(related[:, 1], np.log1p([1, 2]) / 3)
    np.testing.assert_allclose(related[:, 2], np.log1p(np.array([9, 22]) / 17))
    np.testing.assert_allclose(related[:, 3], [1 / 5, 2 / 5])
    np.testing.assert_allclose(related[:, 4], [0, np.log1p(len("#### 30.0")) / 5])


@pytest.mark.parametrize("sees", [(), *((part,) for part in PARTS if part not in ("query", "response"))])
def test_only_what_is_seen_has_columns_and_they_are_the_same_at_every_hop(sees: tuple[str, ...]) -> None:
    of_part = {"models": {"spoke", "last"}, "agreement": {"agrees", "agrees with"}, "cost": {"cost"}}
    of_part["surface"] = {"query surface", "response surface"}
    see = features(*sees)
    whole = see.blocks(CONTEXTS, HOP, COST, ACTIONS)
    assert set(whole) == {"hop"} | set().union(*(of_part[part] for part in sees))
    for n in range(3):
        alone = see.blocks(CONTEXTS[n : n + 1], HOP[n : n + 1], COST[n : n + 1], ACTIONS[n : n + 1])
        assert {name: block.shape[1] for name, block in alone.items()} == {
            name: block.shape[1] for name, block in whole.items()
        }
        for name, block in alone.items():
            np.testing.assert_array_equal(block[0], whole[name][n])
    assert see.width == sum(block.shape[1] for block in whole.values())


@pytest.mark.parametrize(
    ("answers", "responses", "agrees"),
    [
        ("number", ("1,000", "about 7", "it is $1000.0"), [1, 0]),
        ("letter", ("B", "A) no", "(B) since it melts"), [1, 0]),
        ("letter", ("B", "A", "C"), [0, 0]),
        ("word", ("so it is 3", "3", "4 of 3"), [1, 1]),
        ("number", ("none", "no idea", "nothing"), [0, 0]),  # no answer is like no other
        (r"<(\w+)>", ("<a> 1", "<b> 1", "2 <b>"), [0, 1]),
    ],
)
def test_answers_agree_by_the_kind_of_the_recording(
    answers: str, responses: tuple[str, ...], agrees: list[int]
) -> None:
    see = features("agreement", answers=answers, max_hops=4)
    made = see.blocks([Context("q", responses)], np.array([3]), np.zeros(1), np.array([[0, 1, 1, -1]]))
    assert made["agrees"].tolist() == [agrees]
    assert made["agrees with"].tolist() == [agrees]  # the first model spoke first, the second one next


def test_of_two_hops_no_decision_sees_two_answers() -> None:
    made = features("agreement", max_hops=2).blocks(CONTEXTS[:2], HOP[:2], COST[:2], ACTIONS[:2, :2])
    assert made["agrees"].shape == (2, 0) and not made["agrees with"].any()


@pytest.mark.parametrize("sees", [("query",), ("response", "query"), PARTS])
def test_features_of_a_tree_embed_what_is_seen(synthetic_tree: Callable[..., Tree], sees: tuple[str, ...]) -> None:
    tree = synthetic_tree(items=6, models=2, max_hops=3)
    tree.answers = "number"
    see = features_of(tree, sees, "hashing", RouterRequest(seed=1), cost_scale=3.0)
    assert isinstance(see.embed, ContextEncoder) and isinstance(see.embed.encoder, HashingEncoder)
    assert (see.max_hops, see.models, see.answers, see.cost_scale) == (3, 2, "number", 3.0)
    embedding = list(see.blocks(CONTEXTS, HOP, COST, ACTIONS).values())[-1]
    assert embedding.shape[1] == see.embed.encoder.dimension * len({"query", "response"} & set(sees))
    np.testing.assert_array_equal(embedding, see.embed(CONTEXTS))
    see.embed.encoder.base_rate = 0.5
    read = see.embed.encoder.count_tokens([QUERY])[0]
    assert see.cost(CONTEXTS[:1]).tolist() == [0.5 * read]
    assert features_of(tree, ("models",), "hashing", RouterRequest()).cost(CONTEXTS).tolist() == [0, 0, 0]
