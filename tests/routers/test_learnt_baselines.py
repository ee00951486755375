"""The learnt one-hop baselines: they find what was planted, on items that they never saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from harness.evaluation.evaluate import evaluate
from pools.cost import paper_cost
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.types import Context, Generation, GenerationSettings, Item
from routers import RouterRequest, load
from routers.encoders.cache import _Kept
from routers.encoders.hashing import _fitted
from routers.one_hop import Examples, MatrixFactorisation
from routers.options import parse_arguments
from routers.registry import items_to_learn_from, teach

NAMES = ("knn", "ridge", "logistic", "extra-trees", "mlp", "matrix-factorisation")
SETTINGS = GenerationSettings((), 8)


def planted(items: int = 240, noise: float = 0.0) -> Tree:
    """Model 0 knows the weather, model 1 food, model 2 all of both but costs ten times as much."""
    rng = np.random.default_rng(0)
    made = []
    for n in range(items):
        food = bool(rng.integers(2))
        words = ["soup", "leeks", "bread", "salt"] if food else ["rain", "cloud", "storm", "wind"]
        query = f"Tell me about {' and '.join(rng.permutation(words)[:3])}, number {n}"
        made.append(Item("food" if food else "weather", n, query, SETTINGS, ("train", "validation", "test")[n % 3]))
    tree = Tree(made, ("weather", "food", "both"), 1, paper_cost((0.001, 0.001, 0.01), "unit"))
    for n, item in enumerate(made):
        for model in range(3):
            right = model == 2 or (item.task == "food") == (model == 1)
            right ^= bool(rng.random() < noise)
            tree.put(n, 1 + model, Generation(f"{model}", 5, 5, "stop", 0.0), float(right))
    return tree


def request(tree: Tree, **changes: Any) -> RouterRequest:
    made = RouterRequest(
        models=tree.models, max_hops=1, cost_model=tree.cost_model, cost_weight=1.0,
        train=tree.select("train"), validation=tree.select("validation"), evaluation=tree.select("test"),
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_the_specialists_on_items_that_it_never_saw(name: str) -> None:
    given = request(planted())
    outcome = evaluate(load(name, given), given.evaluation)
    assert outcome.quality.mean() == 1.0
    assert outcome.cost.tolist() == pytest.approx([0.01] * len(given.evaluation.items)), "never the dear one"
    assert (outcome.hops == 1).all() and (outcome.routing_cost == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_threads_decides_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = request(planted(1200, noise=0.3))
    contexts = [Context(f"Tell me about rain and soup, number {n}") for n in range(20)]
    found = []
    for threads in (1, 2):
        _fitted.cache_clear()
        monkeypatch.setattr("routers.encoders.cache._KEPT", _Kept())
        with threadpool_limits(threads):
            router: Any = load(name, given)
            found.append(router.predict(router.embed(contexts)))
    np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_another_cost_weight_needs_no_fit(name: str) -> None:
    """The two cheap models are half right, the dear one is right everywhere: what is taken turns with the weight."""
    tree = planted()
    tree.score[:, 1:3] *= 0.5
    given = request(tree, cost_weight=0.0)
    router: Any = load(name, given)
    costs = [evaluate(router.at(w), given.evaluation).cost.mean() for w in (0.0, 1000.0)]
    assert costs == pytest.approx([0.1, 0.01])


def test_what_cannot_be_learnt_from_is_refused() -> None:
    given = request(planted(30))
    with pytest.raises(UserError, match="expected knn"):
        load("knn:x", given)
    with pytest.raises(UserError, match="there are none"):
        load("knn", replace(given, train=None))
    given.train.known[0, 1] = False
    with pytest.raises(UserError, match="every model's responses"):
        load("knn", given)


def test_without_validation_items_some_train_items_are_held_out() -> None:
    learnt, chosen_on = items_to_learn_from(request(planted(), validation=None), "knn")
    assert (len(learnt.items), len(chosen_on.items)) == (64, 16)
    assert not {item.doc_id for item in learnt.items} & {item.doc_id for item in chosen_on.items}


def test_the_encoder_is_billed_for_what_it_reads() -> None:
    given = request(planted(60))
    router: Any = load("knn", given)
    router.embed.encoder.base_rate = 0.5
    outcome = evaluate(router, given.evaluation)
    words = [0.5 * len(item.query.split()) for item in given.evaluation.items]
    assert outcome.routing_cost.tolist() == words


@pytest.mark.parametrize("name", [*NAMES, "cascade", "fitted-q"])
def test_what_is_saved_is_loaded_and_decides_the_same(name: str, tmp_path: Path) -> None:
    given = request(planted(noise=0.2))
    taught = teach(name, given, {})
    taught.save(tmp_path / "router.safetensors")
    here = replace(given, train=None, validation=None)
    loaded = load(name, here, checkpoint=tmp_path / "router.safetensors")
    first, again = (evaluate(router, given.evaluation) for router in (taught.router, loaded))
    assert first.calls.tolist() == again.calls.tolist()
    taught_again = loaded.save()  # type: ignore[attr-defined]
    for part, value in taught.router.save().items():
        np.testing.assert_array_equal(value, taught_again[part])
    with pytest.raises(UserError, match="checkpoint of router"):
        load("hierrouter", here, checkpoint=tmp_path / "router.safetensors")


def test_options_are_read_as_their_types() -> None:
    given = request(planted(60))
    options = teach("knn", given, parse_arguments("neighbours=[3,7],encoder=hashing")).header.options
    assert options == {"neighbours": [3, 7], "encoder": "hashing"}
    for text, message in (
        ("neighbour=3", "did you mean neighbours"),
        ("neighbours=[x]", "neighbours"),
        ("encoder", "expected name=value"),
        ("encoder=a,encoder=b", "twice"),
    ):
        with pytest.raises(UserError, match=message):
            teach("knn", given, parse_arguments(text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("knn", f"neighbours={values}") for values in ("[]", "[0]", "[-1]", "[1.5]", "[100000]", "[100000,99999]")),
        *(("ridge", f"penalties={values}") for values in ("[]", "[-1]", "[NaN]", "[Infinity]", "[1e308]")),
        *(("logistic", f"strengths={values}") for values in ("[]", "[0]", "[-1]", "[NaN]", "[1e308]")),
        *(
            ("extra-trees", text)
            for text in ("trees=0", "leaves=[]", "leaves=[0]", "share=0", "share=1.1", "share=nan")
        ),
        *(("mlp", text) for text in ("hidden=0", "hidden=-1", "penalties=[]", "penalties=[-1]", "penalties=[NaN]")),
        *(("matrix-factorisation", text) for text in ("dimension=0", "steps=0", "penalties=[]", "penalties=[-1]")),
        *(("matrix-factorisation", f"learning_rate={value}") for value in ("0", "-1", "nan", "inf", "1e300")),
        *(("hierrouter", f"target_kl={value}") for value in ("nan", "inf", "-1")),
        *(("hierrouter", f"learning_rate={value}") for value in ("nan", "1e300")),
    ],
)
def test_options_outside_their_range_are_refused(name: str, text: str) -> None:
    with pytest.raises(UserError, match=f"router {name}: {text.partition('=')[0]}"):
        teach(name, request(planted(60)), parse_arguments(text))


def test_of_the_neighbours_those_above_the_number_of_items_are_left_out() -> None:
    router: Any = teach("knn", request(planted(60)), parse_arguments("neighbours=[3,100000]")).router
    assert int(router.predict.arrays["k"]) == 3


def test_factors_that_are_penalised_leave_each_models_mean_score() -> None:
    drawn = np.random.default_rng(1)
    score = (drawn.random((200, 3)) < [0.2, 0.5, 0.9]).astype(np.float64)
    examples = Examples(drawn.normal(size=(200, 5)), score, np.ones((200, 3)))
    (predict,) = MatrixFactorisation(penalties=(100.0,)).candidates(examples, seed=1)
    np.testing.assert_allclose(predict(examples.vectors), np.tile(score.mean(axis=0), (200, 1)), atol=0.02)
