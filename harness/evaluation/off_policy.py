"""Off-policy evaluation: what a one-hop router would have attained on traffic that another policy answered.

Each of `n` logged calls has the outcome of one model, and the probability with which that model was chosen. Weighted by
how much more often the router chooses it, the outcomes estimate the router's mean without bias (Horvitz and Thompson
1952). With a model of the outcomes besides, the estimate is doubly robust: consistent if the propensities or the model
are right (Dudik, Langford and Li 2011, arXiv 1103.4601). Intervals are of the influence function, with calls of one
item as one observation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.metrics import NOISE, Estimate

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MIN_EFFECTIVE = 100
"""Of fewer effective requests no interval is given: it would rest on the normal approximation of a few heavy ones."""
MAX_DEVIATION = 4.0
"""Standard errors that the mean weight may be from 1, which it is in expectation if every model that the router chooses
could have been chosen."""
FOLDS = 5
PENALTIES = (0.1, 1.0, 10.0, 100.0)
_NORMAL = 1.959964  # the 97.5% quantile


@dataclass(frozen=True)
class Logged:
    """`n` calls. action: int `[n]` the model that answered. propensity: `[n]` the probability that it was chosen.

    item: int `[n]` numbers from 0; calls of one item ask the same.
    """

    action: IntArray
    propensity: FloatArray
    item: IntArray

    def of(self, calls: NDArray[np.bool_]) -> Logged:
        """Those of some calls `[n]`."""
        return Logged(self.action[calls], self.propensity[calls], self.item[calls])

    def weights(self, chance: FloatArray) -> FloatArray:
        """`[n]` how much more often a policy chooses each call's model, by its probabilities `[n, M]`."""
        return chance[np.arange(len(self.action)), self.action] / self.propensity


@dataclass(frozen=True)
class Estimates:
    """A mean with its 95% interval, three ways."""

    inverse_propensity: Estimate
    self_normalised: Estimate
    doubly_robust: Estimate


@dataclass(frozen=True)
class RouterEstimate:
    """What a router would have attained per call. refused: why nothing is estimated, then the rest is None; else empty.

    effective_requests: how many of equal weight would tell as much. undecided: calls left out, as the log lacks the
    router's decision. routing_cost: of the router's own encoder.
    value: quality - cost_weight * cost. value_ahead: of what was logged, doubly robust, paired.
    """

    effective_requests: float
    refused: str = ""
    undecided: int = 0
    routing_cost: float = 0.0
    quality: Estimates | None = None
    cost: Estimates | None = None
    value: Estimates | None = None
    value_ahead: Estimate | None = None


@dataclass(frozen=True)
class TrafficSummary:
    """Routers on logged traffic.

    calls, requests: that the estimates are over; split: of which items. left_out: calls of the log that lack something,
    by what. models: all that answered, in the order of a router's actions. cost_unit: empty if no costs were logged.
    logged: what was attained by whoever answered.
    """

    calls: int
    requests: int
    split: str
    left_out: Mapping[str, int]
    models: tuple[str, ...]
    cost_unit: str
    cost_weight: float
    logged: RouterEstimate
    routers: Mapping[str, RouterEstimate]


def effective_requests(weights: FloatArray, item: IntArray) -> float:
    """How many items of equal weight would tell as much: `sum(w)^2 / sum(w^2)` of the items' weights (Kish 1965)."""
    of_item = np.bincount(item, weights)
    squares = float((of_item**2).sum())
    return float(of_item.sum() ** 2 / squares) if squares else 0.0


def lack_of_overlap(weights: FloatArray, item: IntArray) -> str:
    """Why weights `[n]` allow no estimate, in a few words; empty if they do.

    Too few effective requests (below `MIN_EFFECTIVE`), or a mean that is not 1 (by more than `MAX_DEVIATION` standard
    errors): then the router chooses what the log never tried there, or the propensities are wrong.
    """
    effective = effective_requests(weights, item)
    if effective < MIN_EFFECTIVE:
        return f"too little overlap: {effective:.0f} effective requests, {MIN_EFFECTIVE} are needed"
    mean = float(weights.mean())
    if abs(mean - 1) > MAX_DEVIATION * standard_error(weights - mean, item) + NOISE:
        why = "it chooses models that the log never tried there" if mean < 1 else "propensities are too small"
        return f"no overlap: the mean weight is {mean:.2f}, not 1; {why}"
    return ""


def standard_error(influence: FloatArray, item: IntArray) -> float:
    """Of a mean, from each call's influence `[n]` on it, which averages 0; calls of one item are one observation."""
    of_item = np.bincount(item, influence)
    items = np.count_nonzero(np.bincount(item))
    return float(np.sqrt((of_item**2).sum() * items / max(1, items - 1)) / len(influence))


def with_interval(mean: float, influence: FloatArray, item: IntArray) -> Estimate:
    """A mean with the 95% interval of its influence function `[n]`."""
    half = _NORMAL * standard_error(influence, item)
    return Estimate(mean, mean - half, mean + half)


def inverse_propensity(weights: FloatArray, outcome: FloatArray, item: IntArray) -> Estimate:
    """Horvitz and Thompson's: the mean of `w * outcome`, both `[n]`. Unbiased, and the widest."""
    return mean_estimate(weights * outcome, item)


def self_normalised(weights: FloatArray, outcome: FloatArray, item: IntArray) -> Estimate:
    """Hajek's: `sum(w * outcome) / sum(w)`, both `[n]`; within the range of the outcomes."""
    mean = float(weights @ outcome / weights.sum())
    return with_interval(mean, weights * (outcome - mean) / weights.mean(), item)


def mean_estimate(values: FloatArray, item: IntArray) -> Estimate:
    """The mean of values `[n]`, as of the outcomes that were logged themselves."""
    mean = float(values.mean())
    return with_interval(mean, values - mean, item)


def doubly_robust_outcomes(predicted: FloatArray, outcome: FloatArray, logged: Logged) -> FloatArray:
    """`[n, M]` an outcome of every model for each call: as predicted `[n, M]`, and corrected for the one that answered.

    The correction is the error of the prediction over the propensity, so outcomes may be out of the range of real ones.
    The mean over calls of `sum_a chance[a] * outcomes[a]` is the doubly robust estimate of a policy.
    """
    calls, corrected = np.arange(len(outcome)), predicted.copy()
    corrected[calls, logged.action] += (outcome - predicted[calls, logged.action]) / logged.propensity
    return corrected


def estimate_router(
    chance: FloatArray, logged: Logged, outcome: FloatArray, robust: FloatArray, cost_weight: float
) -> RouterEstimate:
    """What a router attains by its probabilities `[n, M]`, or why that cannot be told.

    outcome: `[n, 2]` quality and cost. robust: `[n, M, 2]` `doubly_robust_outcomes` of both.
    """
    weights = logged.weights(chance)
    effective = effective_requests(weights, logged.item)
    if refused := lack_of_overlap(weights, logged.item):
        return RouterEstimate(effective, refused)
    weigh = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -cost_weight]])  # quality, cost and value of quality and cost
    observed, expected = outcome @ weigh, np.einsum("nm,nmk->nk", chance, robust) @ weigh
    quality, cost, value = (
        Estimates(
            inverse_propensity(weights, observed[:, k], logged.item),
            self_normalised(weights, observed[:, k], logged.item),
            mean_estimate(expected[:, k], logged.item),
        )
        for k in range(3)
    )
    ahead = mean_estimate(expected[:, 2] - observed[:, 2], logged.item)
    return RouterEstimate(effective, quality=quality, cost=cost, value=value, value_ahead=ahead)


def as_logged(logged: Logged, outcome: FloatArray, cost_weight: float) -> RouterEstimate:
    """What was attained by whoever answered: plain means of the outcomes `[n, 2]`."""
    values = outcome[:, 0], outcome[:, 1], outcome[:, 0] - cost_weight * outcome[:, 1]
    means = [Estimates(*[mean_estimate(of, logged.item)] * 3) for of in values]
    effective = effective_requests(np.ones(len(outcome)), logged.item)
    return RouterEstimate(effective, quality=means[0], cost=means[1], value=means[2])


def cross_fitted(predict: Callable[[IntArray, IntArray], FloatArray], item: IntArray, seed: int) -> FloatArray:
    """`[n, ...]` predictions for each call by what was fitted on calls of other items.

    predict: is given the numbers of the calls to fit on and of those to predict for; gives the predictions of these.
    """
    numbers = np.random.default_rng(seed).permutation(int(item.max()) + 1)
    fold = numbers[item] % FOLDS
    held_out = [np.flatnonzero(fold == f) for f in np.unique(fold)]
    parts = [predict(np.setdiff1d(np.arange(len(item)), wanted), wanted) for wanted in held_out]
    return np.concatenate(parts)[np.argsort(np.concatenate(held_out))]


def ridge_outcomes(
    known: NDArray[np.floating], action: IntArray, outcome: FloatArray, wanted: NDArray[np.floating], models: int
) -> FloatArray:
    """`[w, M, K]` outcomes of every model, by ridge regression on its calls, with the best penalty in leave-one-out.

    known: `[k, d]` embeddings of calls that the models `action` `[k]` answered with the outcomes `[k, K]`. wanted:
    `[w, d]`. A model with fewer than `FOLDS` calls is predicted by the mean of all.
    """
    from sklearn.linear_model import RidgeCV

    predicted = np.broadcast_to(outcome.mean(axis=0), (len(wanted), models, outcome.shape[1])).copy()
    for model in range(models):
        mine = action == model
        if mine.sum() >= FOLDS:
            fitted = RidgeCV(PENALTIES, alpha_per_target=True).fit(known[mine], outcome[mine])
            predicted[:, model] = fitted.predict(wanted).reshape(len(wanted), -1)
    return predicted
