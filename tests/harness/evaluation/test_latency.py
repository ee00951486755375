"""How long users wait: quantiles that are known by hand, and a router's own share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.evaluation import latency
from harness.evaluation.evaluate import evaluate, mean_outcome
from harness.evaluation.latency import Waits, decision_seconds, quantile, tail_hops, waits_of_items
from harness.evaluation.metrics import Bootstrap
from harness.evaluation.paired import tail_change
from pools.cost import paper_cost
from pools.mdp.tree import Tree
from pools.types import Generation, GenerationSettings, Item
from routers.fixed import FixedRouter, UniformRouter
from routers.router import RoutingStates

ALL = np.ones(40, bool)


def tree_of(seconds: Sequence[tuple[float, float]]) -> Tree:
    """Two hops of two models that take so long for each item, as in a table; the second is right."""
    items = [Item("t", n, f"q{n}", GenerationSettings((), 4), "test") for n in range(len(seconds))]
    tree = Tree(items, ("fast", "slow"), 1, paper_cost((1.0, 2.0), "unit"), timing=("table", "server"))
    for item, of_item in enumerate(seconds):
        for model, each in enumerate(of_item):
            tree.put(item, 1 + model, Generation(f"{item} {model}", 1, 1, "stop", each), float(model))
    return tree.cascade(2)


def test_quantiles_of_a_pipeline_are_those_of_the_sum_of_its_hops() -> None:
    tree = tree_of([(n, 100.0 * n) for n in range(1, 21)])
    waits = evaluate(FixedRouter((0, 1), 2), tree).waits
    assert waits is not None
    np.testing.assert_array_equal(waits.mean, [101.0 * n for n in range(1, 21)])
    # Of 20 items 19 are the first 95%, and all 20 it takes for 99%.
    assert [quantile(waits, p).item() for p in (0.5, 0.95, 0.99)] == [1010, 1919, 2020]
    assert tail_hops(waits, 0.95) == 2


def test_a_router_that_draws_has_the_quantiles_of_what_it_draws() -> None:
    """Each item waits 1 + 1, 1 + 8 (twice) or 8 + 8 seconds, a quarter each; one item all but for ever."""
    tree = tree_of([(1.0, 8.0)] * 9 + [(1.0, 800.0)])
    waits = evaluate(UniformRouter(2), tree).waits
    assert waits is not None and len(waits.seconds) == 40
    np.testing.assert_allclose(waits.mean, [9.0] * 9 + [801.0])
    shares = {0.25: 2, 0.26: 9, 0.7: 9, 0.725: 16, 0.925: 16, 0.926: 801, 0.975: 801, 0.976: 1600}
    assert {p: quantile(waits, p).item() for p in shares} == shares


def test_the_waits_of_several_routers_are_those_of_one_that_draws_one_of_them() -> None:
    tree = tree_of([(1.0, 8.0)] * 9 + [(1.0, 800.0)])
    each = [evaluate(FixedRouter((first, then), 2), tree) for first in (0, 1) for then in (0, 1)]
    mean, drawn = mean_outcome(each).waits, evaluate(UniformRouter(2), tree).waits
    assert mean is not None and drawn is not None
    np.testing.assert_allclose(mean.mean, drawn.mean)
    for p in (0.25, 0.26, 0.7, 0.725, 0.925, 0.926, 0.975, 0.976):
        assert quantile(mean, p).item() == quantile(drawn, p).item()
    assert tail_hops(mean, 0.95) == tail_hops(drawn, 0.95)


def test_hops_in_the_tail_count_each_episode_by_its_chance() -> None:
    waits = Waits(np.array([0, 0, 1]), np.array([1.0, 9.0, 5.0]), np.array([1.0, 3, 2]), np.array([0.8, 0.2, 1]), 2)
    # 0.4 of all episodes take a second, 0.9 at most five.
    assert [quantile(waits, p).item() for p in (0.4, 0.5, 0.85, 0.95)] == [1, 5, 5, 9]
    assert tail_hops(waits, 0.5) == pytest.approx((0.2 * 3 + 1 * 2) / 1.2)


def test_a_vote_waits_for_the_slowest() -> None:
    class FirstAnswer:
        def act(self, states: RoutingStates) -> Any:
            raise AssertionError

        def choose_response(self, responses: Sequence[Sequence[str]]) -> NDArray[np.int64]:
            return np.zeros(len(responses), np.int64)

    waits = evaluate(FirstAnswer(), tree_of([(1.0, 8.0), (9.0, 4.0)])).waits
    assert waits is not None and waits.mean.tolist() == [8, 9] and waits.hops.tolist() == [2, 2]


def test_seconds_that_are_shares_of_a_batch_are_no_latency(synthetic_tree: Callable[..., Tree]) -> None:
    tree = synthetic_tree()
    assert not tree.latency and evaluate(FixedRouter((0,), 2), tree).waits is None
    tree.timing = ("server", "share of a batch")
    assert not tree.latency
    tree.timing = ("server", "single calls")
    assert tree.select("test").latency and evaluate(FixedRouter((0,), 2), tree).waits is not None


@pytest.mark.parametrize("most", [latency.MAX_WEIGHTS, 1])
def test_resamples_count_each_item_as_often_as_it_was_drawn(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Also by thresholds, which are all seconds that there are, if these are few."""
    monkeypatch.setattr(latency, "MAX_WEIGHTS", most)
    seconds = np.random.default_rng(1).permutation(np.arange(40.0))
    weights = Bootstrap.draw(40, seed=2, resamples=50).weights
    drawn = [np.repeat(seconds, np.rint(40 * row).astype(int)) for row in weights]
    expected = [np.quantile(each, 0.9, method="inverted_cdf") for each in drawn]
    np.testing.assert_array_equal(quantile(waits_of_items(seconds), 0.9, weights), expected)


def test_only_the_tail_decides_a_change_of_p95() -> None:
    old, bootstrap = np.arange(1.0, 41.0), Bootstrap.draw(40, seed=1)
    same = tail_change(old, old, bootstrap, 1, ALL)
    assert same.same and (same.before, same.p) == (38, 1)
    faster = np.where(old <= 30, old / 2, old)
    assert tail_change(old, faster, bootstrap, 1, ALL).same
    slower = tail_change(old, np.where(old > 30, 2 * old, old), bootstrap, 1, ALL)
    assert slower.risen and (slower.before, slower.after, slower.difference) == (38, 76, 38) and slower.p < 0.01
    # One item more or less is chance: a resample may leave it out.
    one = tail_change(old, np.where(old == 38, 38.5, old), bootstrap, 1, ALL)
    assert one.difference == 0.5 and not one.risen and one.p > 0.05


@dataclass
class Slow:
    """Takes 20 ms for each decision, by a clock that nothing else moves."""

    pipeline: FixedRouter
    now: float = 0.0

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        self.now += 0.02
        assert len(states.contexts) == 1
        return self.pipeline.act(states)


def test_a_router_s_own_share_is_that_of_all_decisions_of_an_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_of([(1.0, 8.0)] * 3)
    for pipeline, decisions in (((1,), 2), ((0, 1), 2), ((1, 1), 2)):  # to stop is a decision; at the end none is left
        fixed = FixedRouter(pipeline, 2)
        slow, end = Slow(fixed), evaluate(fixed, tree).end
        monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda slow=slow: slow.now))
        assert decision_seconds(slow, tree, end, 1) == pytest.approx(0.02 * decisions)
