"""`fitted-q` attains planted optima, at every cost weight, by reading answers; from noise it learns nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from harness.evaluation.evaluate import evaluate
from pools.cost import paper_cost
from pools.errors import UserError
from pools.mdp.optimum import solve
from pools.mdp.tree import Tree
from pools.types import Context, Generation, GenerationSettings, Item
from routers import RouterRequest, load
from routers.checkpoint import read_checkpoint, write_checkpoint
from routers.registry import teach
from routers.router import Training
from routers.states import PARTS

SETTINGS = GenerationSettings((), 8)
SPLITS = ("train", "validation", "test")


class Says:
    """Each model answers by a function of the item's number and the responses so far."""

    def __init__(self, answer: Callable[[int, int, tuple[str, ...]], str]) -> None:
        self.answer = answer

    def generate(self, model: int, requests: list[tuple[Context, GenerationSettings]]) -> list[Generation]:
        said = [self.answer(model, int(c.query.split()[1]), c.responses) for c, _ in requests]
        return [Generation(response, 10, 10, "stop", 0.0) for response in said]


def made(
    answer: Callable[[int, int, tuple[str, ...]], str],
    right: Callable[[Item, str], bool],
    rates: Sequence[float],
    hops: int = 2,
    items: int = 120,
) -> RouterRequest:
    questions = [Item("t", n, f"Question {n} of many", SETTINGS, SPLITS[n % 3]) for n in range(100, 100 + items)]  # type: ignore[arg-type]

    def score(answers: list[tuple[Item, str]]) -> list[float]:
        return [float(right(item, response)) for item, response in answers]

    names = tuple(f"model-{n}" for n in range(len(rates)))
    tree = Tree(questions, names, hops, paper_cost(tuple(rates), "unit"), Says(answer), score)
    rows, nodes = np.indices(tree.known.shape)
    tree.require(rows.ravel(), nodes.ravel())
    return RouterRequest(
        models=names, max_hops=hops, cost_model=tree.cost_model, cost_weight=1.0,
        train=tree.select("train"), validation=tree.select("validation"), evaluation=tree.select("test"),
    )  # fmt: skip


def coin(number: int, salt: int = 0) -> bool:
    """Half of the numbers, by no rule that the text shows."""
    return bool(np.random.default_rng([number, salt]).integers(2))


@pytest.fixture(scope="module")
def surface() -> RouterRequest:
    """The cheap model gives a number where it is right and evades elsewhere; the other is always right, for 100 times
    the cost. The query tells nothing."""
    return made(
        lambda model, n, _: f"it is {n}" if model or coin(n) else "perhaps something else",
        lambda _, response: response.startswith("it is"),
        (0.0001, 0.01),
    )


@pytest.fixture(scope="module")
def agreeing() -> RouterRequest:
    """Two cheap models are right where they agree, which only the second hop shows; the third knows all."""

    def answer(model: int, n: int, _: tuple[str, ...]) -> str:
        return "it is 7" if model == 2 or coin(n, model) else f"it is {3 + model}"

    def right(item: Item, response: str) -> bool:
        return response == "it is 7"

    return made(answer, right, (0.0001, 0.0001, 0.01), hops=3, items=300)


@pytest.fixture(scope="module")
def noisy() -> RouterRequest:
    """Who is right is drawn, and what an answer looks like tells nothing of it."""
    return made(
        lambda model, n, _: " ".join("word" for _ in range(np.random.default_rng([n, model]).integers(1, 20))),
        lambda item, _: coin(item.doc_id, 2),
        (0.0001, 0.01),
    )


@pytest.mark.parametrize(("problem", "sees"), [("surface", PARTS), ("noisy", ("models", "agreement", "cost"))])
def test_hierrouter_reads_texts_where_that_pays(
    problem: str, sees: tuple[str, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fitting = replace(request.getfixturevalue(problem), cost_weight=0.01)
    taught = teach("hierrouter", fitting, {"total_trees": 640})
    taught.save(tmp_path / "policy.safetensors")
    kept: Any = load("hierrouter", checkpoint=tmp_path / "policy.safetensors")
    assert kept.inputs.features.sees == sees
    everything: Any = teach("hierrouter", fitting, {"total_trees": 64, "sees": PARTS}).router
    assert everything.inputs.features.sees == PARTS  # what is asked for is seen, whatever pays


@pytest.mark.parametrize("cost_weight", [0.0, 0.0001, 0.001, 0.003, 0.02, 10.0])
def test_it_attains_the_optimum_where_the_query_tells_all(request_: RouterRequest, cost_weight: float) -> None:
    tree = request_.validation
    assert tree is not None
    outcome = evaluate(load("fitted-q", replace(request_, cost_weight=cost_weight)), tree)
    best = solve(tree, cost_weight, allow_stop=True)
    np.testing.assert_allclose(outcome.quality - cost_weight * outcome.cost, best.value, atol=1e-9)


def test_it_stops_where_the_answer_looks_right_and_else_goes_on(surface: RouterRequest) -> None:
    outcome = evaluate(load("fitted-q", surface), surface.evaluation)
    sure = np.array([coin(item.doc_id) for item in surface.evaluation.items])
    assert set(outcome.quality) == {1.0}
    assert set(outcome.hops[sure]) == {1.0} and set(outcome.hops[~sure]) == {2.0}


def test_another_cost_weight_needs_no_fit(surface: RouterRequest) -> None:
    router: Any = load("fitted-q", replace(surface, cost_weight=0.0))
    for weight in (0.0, 0.37, 2.0, 3.0, 8.0, 1000.0):
        outcome = evaluate(router.at(weight), surface.evaluation)
        sure = np.mean([coin(item.doc_id) for item in surface.evaluation.items])
        best = max(1 - weight * 0.2, sure - weight * 0.002, 1 - weight * (0.002 + 0.2 * (1 - sure)))
        assert (outcome.quality - weight * outcome.cost).mean() == pytest.approx(best, abs=1e-6), weight
    assert evaluate(router.at(1000.0), surface.evaluation).hops.max() == 1


def test_it_reads_whether_answers_agree(agreeing: RouterRequest) -> None:
    tree = agreeing.evaluation
    options = {"sees": ["models", "agreement"]}
    outcome = evaluate(load("fitted-q", agreeing, options=options), tree)
    agree = np.array([coin(item.doc_id, 0) and coin(item.doc_id, 1) for item in tree.items])
    assert set(outcome.quality) == {1.0}
    assert set(outcome.hops[agree]) == {2.0} and set(outcome.hops[~agree]) == {3.0}
    blind = evaluate(load("fitted-q", agreeing, options={"sees": ["models"]}), tree)
    assert blind.quality.mean() == 1.0 and blind.cost.mean() > 1.2 * outcome.cost.mean()


def test_a_forest_is_taken_where_it_is_better() -> None:
    """The cheap model is right if it either ends in a number or doubts, not both: nothing that is linear tells that."""

    def answer(model: int, n: int, _: tuple[str, ...]) -> str:
        if model:
            return "all known"
        return ("perhaps " if coin(n, 1) else "surely ") + (f"it is {n}" if coin(n, 2) else f"{n} it is")

    def right(item: Item, response: str) -> bool:
        return response == "all known" or coin(item.doc_id, 1) != coin(item.doc_id, 2)

    given = made(answer, right, (0.0001, 0.01), items=300)
    found = {
        regression: evaluate(load("fitted-q", given, options={"regression": regression}), given.evaluation)
        for regression in ("ridge", "auto")
    }
    assert set(found["auto"].quality) == {1.0}
    assert found["auto"].hops.mean() < 1.7, "it goes on from about half of the answers"
    value = {name: (outcome.quality - outcome.cost).mean() for name, outcome in found.items()}
    assert value["auto"] > value["ridge"] + 0.02


def test_shuffled_scores_leave_nothing(surface: RouterRequest) -> None:
    """Each item has the scores of another: what an answer looks like tells nothing, the dear model is right still."""
    shuffled = []
    for tree in (surface.train, surface.validation, surface.evaluation):
        part = tree.subset(range(len(tree.items)))
        order = np.random.default_rng(3).permutation(len(part.items))
        part.score[:] = part.score[order]
        shuffled.append(part)
    train, validation, test = shuffled
    outcome = evaluate(load("fitted-q", replace(surface, train=train, validation=validation)), test)
    single = max((test.score[:, node] - test.cost[:, node]).mean() for node in test.level(1))
    assert (outcome.quality - outcome.cost).mean() <= single + 1e-9


def test_without_stop_it_goes_to_the_last_hop(surface: RouterRequest) -> None:
    outcome = evaluate(load("fitted-q", replace(surface, allow_stop=False)), surface.evaluation)
    assert set(outcome.hops) == {2.0} and set(outcome.quality) == {1.0}


@pytest.mark.parametrize("rate", [0.0, 1e-30, 1e12])
@pytest.mark.parametrize("items", [3, 12])
def test_of_one_model_one_hop_and_few_items(rate: float, items: int) -> None:
    given = made(lambda *_: "it is 1", lambda *_: True, (rate,), hops=1, items=items)
    for request in (given, replace(given, validation=None)):  # of a single item none is held out
        router: Any = load("fitted-q", request)
        assert np.isfinite(router.fitted).all()
        assert evaluate(router, given.evaluation).hops.tolist() == [1.0] * (items // 3)


ALL = ("models", "agreement", "surface", "cost")


@pytest.mark.parametrize(
    ("regression", "sees"),
    [("ridge", ()), ("ridge", ALL), ("ridge", ("models", "query", "response")), ("extra-trees", ALL)],
)
def test_what_is_saved_is_loaded_and_decides_the_same(
    agreeing: RouterRequest, regression: str, sees: Any, tmp_path: Path
) -> None:
    file = tmp_path / "router.safetensors"
    taught = teach("fitted-q", agreeing, {"regression": regression, "sees": sees})
    taught.save(file)
    loaded: Any = load("fitted-q", replace(agreeing, train=None, validation=None), checkpoint=file)
    router: Any = taught.router
    for weight in (0.0, 1.0, 50.0):
        first, again = (evaluate(each.at(weight), agreeing.evaluation) for each in (router, loaded))
        assert first.calls.tolist() == again.calls.tolist()
    for name, value in router.save().items():
        np.testing.assert_array_equal(value, loaded.save()[name])


@pytest.mark.parametrize("regression", ["ridge", "extra-trees"])
def test_it_is_deterministic_and_the_number_of_threads_decides_nothing(
    agreeing: RouterRequest, regression: str, tmp_path: Path
) -> None:
    files = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            files.append(tmp_path / f"{threads}.safetensors")
            teach("fitted-q", agreeing, {"regression": regression}).save(files[-1])
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("regression", ["extra-trees", "auto"])
def test_it_says_how_far_it_is_and_learns_the_same(surface: RouterRequest, regression: str) -> None:
    said: list[tuple[int, int, str]] = []
    training = Training(report=lambda *words: said.append(words))
    options = {"regression": regression, "trees": 8, "leaves": (20, 10)}
    told, silent = (teach("fitted-q", replace(surface, training=t), options).router for t in (training, Training()))
    done, total, words = zip(*said, strict=True)
    # Five folds of two hops with two small forests, and a large one; linear ones count as a tree each.
    linear = 0 if regression == "extra-trees" else 1 + 4 * 3
    assert set(total) == {2 * (5 * (linear + 2 + 2) + 8)}
    assert list(done) == sorted(set(done)) and done[-1] <= total[0]
    assert regression == "auto" or done[-1] == total[0]
    assert list(dict.fromkeys(words)) == ["comparing settings", "fitting the best"]
    learnt = [router.save() for router in (told, silent)]
    assert all(np.array_equal(learnt[0][name], learnt[1][name]) for name in learnt[1])


def test_of_many_states_a_sample_is_learnt_from(surface: RouterRequest) -> None:
    few = [teach("fitted-q", replace(surface, seed=seed), {"max_states": 60}).router.save() for seed in (1, 1, 2)]
    means = [learnt["hop-1.mean"] for learnt in few]
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.array_equal(means[0], means[2])
    small: Any = load("fitted-q", surface, options={"max_states": 60})
    assert evaluate(small, surface.evaluation).quality.mean() == 1.0


def test_the_encoder_is_billed_for_the_query_and_what_it_goes_on_from(surface: RouterRequest) -> None:
    router: Any = load("fitted-q", surface, options={"sees": ["surface", "query", "response"]})
    router.see.features.embed.encoder.base_rate = 1.0
    outcome = evaluate(router, surface.evaluation)
    assert set(outcome.routing_cost) == {4.0 + 3.0}, "each query and the first response, in words"
    plain: Any = load("fitted-q", surface)
    assert evaluate(plain, surface.evaluation).routing_cost.sum() == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda learnt: learnt.update({"cost_weights": np.zeros(0)}),
        lambda learnt: learnt.update({"cost_weights": -learnt["cost_weights"]}),
        lambda learnt: learnt.update({"hop-1.scale": 0 * learnt["hop-1.scale"]}),
        lambda learnt: learnt.update({"hop-0.weights": learnt["hop-0.weights"][:, 1:]}),
        lambda learnt: learnt.update({"hop-1.mean": learnt["hop-1.mean"][1:]}),
        lambda learnt: learnt.pop("hop-1.bias"),
        lambda learnt: learnt.update({"hop-1.more": learnt["hop-1.bias"]}),
        lambda learnt: learnt.update({"cost_scale": np.array(0.0)}),
        lambda learnt: learnt.update({"answers": "("}),
        lambda learnt: [learnt.pop(name) for name in list(learnt) if name.startswith("hop-1")],
    ],
)
def test_what_it_never_saved_is_refused(surface: RouterRequest, change: Any, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    teach("fitted-q", surface, {"regression": "ridge"}).save(file)
    refuse(surface, file, change)


@pytest.mark.parametrize(
    "change",
    [
        lambda learnt: learnt.update({"hop-0.value": learnt["hop-0.value"][:, 1:]}),
        lambda learnt: learnt.update({"hop-1.feature": learnt["hop-1.feature"] + 10_000}),
        lambda learnt: learnt.update({"hop-1.children": 0 * learnt["hop-1.children"]}),
        lambda learnt: learnt.pop("hop-1.roots"),
    ],
)
def test_a_forest_that_it_never_grew_is_refused(surface: RouterRequest, change: Any, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    teach("fitted-q", surface, {"regression": "extra-trees", "trees": 4}).save(file)
    refuse(surface, file, change)


def refuse(request: RouterRequest, file: Path, change: Any) -> None:
    found = read_checkpoint(file)
    learnt = dict(found.learnt)
    change(learnt)
    write_checkpoint(file, found.header, learnt)
    with pytest.raises(UserError, match="not the checkpoint of a router"):
        load("fitted-q", request, checkpoint=file)


@pytest.mark.parametrize(
    "option",
    ["penalties=[]", "penalties=[0]", "max_states=0", "sees=[words]", 'sees=["words"]', "regression=lasso", "trees=0"],
)
def test_options_outside_their_range_are_refused(surface: RouterRequest, option: str) -> None:
    name, _, value = option.partition("=")
    with pytest.raises(UserError, match=f"router fitted-q: {name}="):
        teach("fitted-q", surface, {name: value})
