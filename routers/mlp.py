"""`mlp`: each model's score by a small network over the query's embedding."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial

from routers._one_hop import Examples, OneHopRouter, Predict, fit_one_hop, predicted
from routers.registry import RouterRequest, register

PENALTIES = (0.01, 1.0)


@register("mlp")
def mlp(request: RouterRequest) -> OneHopRouter:
    """One hop: a network with 64 hidden units predicts each model's score from the query's embedding."""

    def candidates(learnt: Examples) -> Iterator[Predict]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor
        from threadpoolctl import threadpool_limits

        for penalty in PENALTIES:
            model = MLPRegressor(
                hidden_layer_sizes=(64,), alpha=penalty, solver="lbfgs", max_iter=500, random_state=request.seed
            )
            # Hundreds of steps make of the last bit, which the number of threads decides, another network.
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a bounded number of steps is meant
                # A single column must be given flat.
                model.fit(learnt.vectors, learnt.score if learnt.score.shape[1] > 1 else learnt.score.ravel())
            yield partial(predicted, model)

    return fit_one_hop(request, "mlp", candidates)
