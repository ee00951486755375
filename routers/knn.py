"""`knn`: the model that did best on the most similar train queries."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from routers._one_hop import Examples, OneHopRouter, Predict, fit_one_hop, predicted
from routers.registry import RouterRequest, register

NEIGHBOURS = (1, 3, 5, 10, 20, 40, 80)


@register("knn")
def knn(request: RouterRequest) -> OneHopRouter:
    """One hop: mean score on the k nearest train queries (cosine); k is chosen on validation items."""
    return fit_one_hop(request, "knn", _candidates)


def _candidates(learnt: Examples) -> Iterator[Predict]:
    from sklearn.neighbors import KNeighborsRegressor

    for k in NEIGHBOURS:
        if k <= len(learnt.vectors):
            # Vectors have unit length, so the nearest are the most similar.
            model = KNeighborsRegressor(k).fit(learnt.vectors, learnt.score)
            yield partial(predicted, model)
