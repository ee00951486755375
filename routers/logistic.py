"""`logistic`: the chance that each model is right, by logistic regression on the query's embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routers._learning import fit_share
from routers._one_hop import Examples, FloatArray, OneHopRouter, Predict, fit_one_hop
from routers.registry import RouterRequest, register

STRENGTHS = (0.1, 1.0, 10.0, 100.0)


@register("logistic")
def logistic(request: RouterRequest) -> OneHopRouter:
    """One hop: logistic regression of each model's score on the query's embedding; strength by validation items."""
    return fit_one_hop(request, "logistic", _candidates)


def _candidates(learnt: Examples) -> Iterator[Predict]:
    for strength in STRENGTHS:
        columns = [fit_share(learnt.vectors, score, strength) for score in learnt.score.T]
        yield partial(_all, columns)


def _all(columns: Sequence[Any], vectors: NDArray[np.float32]) -> FloatArray:
    return np.stack([column.predict_proba(vectors)[:, 1] for column in columns], axis=1)
