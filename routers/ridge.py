"""`ridge`: each model's score as a linear function of the query's embedding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from routers._one_hop import Examples, OneHopRouter, Predict, fit_one_hop, predicted
from routers.registry import RouterRequest, register

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)


@register("ridge")
def ridge(request: RouterRequest) -> OneHopRouter:
    """One hop: ridge regression of each model's score on the query's embedding; penalty chosen on validation items."""
    return fit_one_hop(request, "ridge", _candidates)


def _candidates(learnt: Examples) -> Iterator[Predict]:
    from sklearn.linear_model import Ridge

    for penalty in PENALTIES:
        model = Ridge(penalty).fit(learnt.vectors, learnt.score)
        yield partial(predicted, model)
