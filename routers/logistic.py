"""`logistic`: the chance that each model is right, by logistic regression on the query's embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from routers._one_hop import Examples, FloatArray, OneHopRouter, Predict, fit_one_hop
from routers.registry import RouterRequest, register

STRENGTHS = (0.1, 1.0, 10.0, 100.0)


@register("logistic")
def logistic(request: RouterRequest) -> OneHopRouter:
    """One hop: logistic regression of each model's score on the query's embedding; strength by validation items."""
    return fit_one_hop(request, "logistic", _candidates)


def _candidates(learnt: Examples) -> Iterator[Predict]:
    for strength in STRENGTHS:
        columns = [_column(learnt, model, strength) for model in range(learnt.score.shape[1])]
        yield partial(_all, columns)


def _all(columns: Sequence[Predict], vectors: NDArray[np.float32]) -> FloatArray:
    return np.stack([column(vectors) for column in columns], axis=1)


def _column(learnt: Examples, model: int, strength: float) -> Predict:
    """A score between 0 and 1 counts as right and wrong in proportion."""
    from sklearn.linear_model import LogisticRegression

    score = learnt.score[:, model]
    weight = np.concatenate([score, 1 - score])
    right = np.repeat([1, 0], len(score))[weight > 0]
    if len(set(right.tolist())) < 2:  # always or never right
        return lambda vectors: np.full(len(vectors), score.mean())
    vectors = np.concatenate([learnt.vectors, learnt.vectors])[weight > 0]
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(vectors, right, weight[weight > 0])

    def predict(vectors: NDArray[np.float32]) -> FloatArray:
        return np.asarray(fitted.predict_proba(vectors)[:, 1])

    return predict
