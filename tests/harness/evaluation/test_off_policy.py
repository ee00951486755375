"""Off-policy estimates on simulated logs whose truth is known: coverage, consistency, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from harness.evaluation.metrics import Estimate
from harness.evaluation.off_policy import (
    MIN_EFFECTIVE,
    Logged,
    cross_fitted,
    doubly_robust_outcomes,
    effective_requests,
    inverse_propensity,
    lack_of_overlap,
    mean_estimate,
    ridge_outcomes,
    self_normalised,
)

FloatArray = np.ndarray
CALLS, MODELS = 1200, 3


@dataclass(frozen=True)
class World:
    """Queries `[Q, 2]`; each model's chance of being right, and to be chosen by the log and by the router: `[Q, M]`."""

    queries: FloatArray
    right: FloatArray
    logging: FloatArray
    router: FloatArray

    @property
    def truth(self) -> float:
        return float((self.router * self.right).sum(axis=1).mean())


@pytest.fixture(scope="module")
def world() -> World:
    """Models are better the farther a query is in their direction; logs prefer others, the router the best one."""
    generator = np.random.default_rng(1)
    queries = generator.uniform(-1, 1, (200, 2))
    right = np.clip(0.6 + 0.25 * queries @ generator.uniform(-1, 1, (2, MODELS)), 0, 1)
    preferred = np.exp(-1.5 * queries @ generator.uniform(-1, 1, (2, MODELS)))
    router = np.full((200, MODELS), 0.05)
    router[np.arange(200), right.argmax(axis=1)] = 0.9
    return World(queries, right, preferred / preferred.sum(axis=1, keepdims=True), router)


def least_squares(known: FloatArray, action: FloatArray, outcome: FloatArray, wanted: FloatArray) -> FloatArray:
    """`[w, M]` by a regression of each model's calls: of this world the right model."""
    of_known, of_wanted = (np.column_stack([np.ones(len(x)), x]) for x in (known, wanted))
    fitted = [np.linalg.lstsq(of_known[action == m], outcome[action == m], rcond=None)[0] for m in range(MODELS)]
    return of_wanted @ np.array(fitted).T


def wrong_model(known: FloatArray, action: FloatArray, outcome: FloatArray, wanted: FloatArray) -> FloatArray:
    """The same for every query, and far off for the models."""
    return np.tile([0.9, 0.1, 0.5], (len(wanted), 1))


Seen = tuple[Estimate, Estimate, Estimate]


def simulated(world: World, fit: Callable[..., FloatArray], logs: int, logged_propensity: bool = True) -> list[Seen]:
    """The three estimates of the router on each simulated log. Without its propensities a log says 1/M."""
    generator = np.random.default_rng(2)
    found = []
    for number in range(logs):
        query = generator.integers(len(world.queries), size=CALLS)
        action = (generator.random((CALLS, 1)) > world.logging[query].cumsum(axis=1)).sum(axis=1)
        outcome = (generator.random(CALLS) < world.right[query, action]).astype(float)
        propensity = world.logging[query, action] if logged_propensity else np.full(CALLS, 1 / MODELS)
        logged = Logged(action, propensity, np.arange(CALLS))
        vectors, chance = world.queries[query], world.router[query]

        def predict(known, wanted, vectors=vectors, action=action, outcome=outcome):  # type: ignore[no-untyped-def]
            return fit(vectors[known], action[known], outcome[known], vectors[wanted])

        outcomes = doubly_robust_outcomes(cross_fitted(predict, logged.item, number), outcome, logged)
        weights = logged.weights(chance)
        found.append(
            (
                inverse_propensity(weights, outcome, logged.item),
                self_normalised(weights, outcome, logged.item),
                mean_estimate((chance * outcomes).sum(axis=1), logged.item),
            )
        )
    return found


def covered(world: World, seen: list[Seen]) -> list[float]:
    return [float(np.mean([e.low <= world.truth <= e.high for e in of])) for of in zip(*seen, strict=True)]


def bias(world: World, seen: list[Seen]) -> list[float]:
    """Mean error of each estimate, in its standard errors."""
    errors = np.array([[e.mean - world.truth for e in of] for of in seen])
    return (errors.mean(axis=0) / (errors.std(axis=0) / len(errors) ** 0.5)).tolist()


@pytest.mark.parametrize("fit", [least_squares, wrong_model])
def test_intervals_cover_the_truth_whether_the_model_of_outcomes_is_right_or_wrong(
    world: World, fit: Callable[..., FloatArray]
) -> None:
    seen = simulated(world, fit, 1000)
    assert all(0.93 <= share <= 0.97 for share in covered(world, seen)), covered(world, seen)
    width = np.mean([[e.high - e.low for e in of] for of in seen], axis=0)
    if fit is least_squares:  # what the model is for
        assert width[2] < 0.9 * width[0]
    assert max(map(abs, bias(world, seen))) < 4


def test_with_wrong_propensities_a_right_model_keeps_the_doubly_robust_estimate_consistent(world: World) -> None:
    weighted, _, robust = bias(world, simulated(world, least_squares, 200, logged_propensity=False))
    assert abs(weighted) > 20 and abs(robust) < 4
    weighted, _, robust = bias(world, simulated(world, wrong_model, 200, logged_propensity=False))
    assert abs(robust) > 20  # with both wrong nothing helps


def test_equal_calls_tell_no_more_than_one() -> None:
    values = np.random.default_rng(3).random(50)
    once = mean_estimate(values, np.arange(50))
    thrice = mean_estimate(np.repeat(values, 3), np.repeat(np.arange(50), 3))
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert (once.high - once.low) / 2 == pytest.approx(1.959964 * values.std(ddof=1) / 50**0.5)


def test_the_estimates_are_their_formulas() -> None:
    logged = Logged(np.array([0, 1, 1]), np.array([0.5, 0.25, 1.0]), np.arange(3))
    chance, outcome = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), np.array([1.0, 0.0, 0.5])
    weights = logged.weights(chance)
    assert weights.tolist() == [2.0, 2.0, 1.0] and effective_requests(weights, logged.item) == pytest.approx(25 / 9)
    assert inverse_propensity(weights, outcome, logged.item).mean == pytest.approx(2.5 / 3)
    assert self_normalised(weights, outcome, logged.item).mean == pytest.approx(2.5 / 5)
    # Its interval does not depend on how the weights are scaled either.
    of_weights, of_others = (self_normalised(w, outcome, logged.item) for w in (weights, 10 * weights))
    assert (of_others.low, of_others.high) == pytest.approx((of_weights.low, of_weights.high))
    predicted = np.array([[0.5, 0.5], [0.2, 0.4], [0.0, 0.5]])
    outcomes = doubly_robust_outcomes(predicted, outcome, logged)
    np.testing.assert_allclose(outcomes, [[1.5, 0.5], [0.2, -1.2], [0.0, 0.5]])


def test_overlap_is_refused_if_few_calls_count_or_the_router_does_what_the_log_never_tried() -> None:
    item, calls = np.arange(4000), 4000
    generator = np.random.default_rng(4)
    assert lack_of_overlap(np.ones(calls), item) == ""
    fair = generator.random(calls) < 0.5
    assert lack_of_overlap(fair / 0.5, item) == ""
    # A rule that sent half of the traffic to each model, and says so: the other half is not known.
    assert "mean weight is 0.5" in lack_of_overlap(fair.astype(float), item)
    rare = np.zeros(calls)
    rare[: MIN_EFFECTIVE - 1] = calls / (MIN_EFFECTIVE - 1)
    assert f"{MIN_EFFECTIVE - 1} effective requests" in lack_of_overlap(rare, item)
    assert "0 effective requests" in lack_of_overlap(np.zeros(calls), item)
    # A request that was asked again and again is one.
    assert "50 effective requests" in lack_of_overlap(np.ones(calls), item % 50)
    assert "propensities are too small" in lack_of_overlap(np.full(calls, 2.0), item)


def test_outcomes_are_predicted_by_calls_of_other_items_alone() -> None:
    item = np.repeat(np.arange(20), 3)

    def predict(known, wanted):  # type: ignore[no-untyped-def]
        assert not set(item[known]) & set(item[wanted]) and len(known) + len(wanted) == len(item)
        return item[wanted][:, None] * 1.0

    assert cross_fitted(predict, item, 1)[:, 0].tolist() == item.tolist()


def test_ridge_finds_each_models_outcomes_and_takes_the_mean_of_all_for_one_that_hardly_answered() -> None:
    generator = np.random.default_rng(5)
    vectors, action = generator.normal(size=(400, 3)), np.arange(400) % 2
    slopes = np.array([[1.0, 0.0, 0.0], [0.0, -2.0, 0.0]])
    outcome = np.column_stack([(slopes[action] * vectors).sum(axis=1), 1.0 + action])
    action[:2] = 2
    found = ridge_outcomes(vectors, action, outcome, vectors, 3)
    np.testing.assert_allclose(found[:, 0, 0], vectors[:, 0], atol=0.02)
    np.testing.assert_allclose(found[:, 1, 0], -2 * vectors[:, 1], atol=0.02)
    np.testing.assert_allclose(found[:, :2, 1], np.tile([1.0, 2.0], (400, 1)), atol=0.02)
    np.testing.assert_allclose(found[:, 2], np.tile(outcome.mean(axis=0), (400, 1)))
