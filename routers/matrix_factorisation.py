"""`matrix-factorisation`: a vector for each model, matched with the query's embedding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routers._one_hop import Examples, OneHopRouter, Predict, fit_one_hop
from routers._threads import one_thread
from routers.registry import RouterRequest, register

DIMENSION, STEPS, RATE = 32, 300, 0.02
DECAYS = (1e-3, 1e-1)


@register("matrix-factorisation")
def matrix_factorisation(request: RouterRequest) -> OneHopRouter:
    """One hop: the bilinear form of RouteLLM (arXiv 2406.18665) between a model's vector and the query's embedding.

    `sigmoid(w2 . (v_m * (W1 v_q + b)))` is fitted to each model's score. RouteLLM fits the difference of two models to
    preferences; where every model's score is known, each can be fitted to its own.
    """

    def candidates(learnt: Examples) -> Iterator[Predict]:
        for decay in DECAYS:
            yield _fit(learnt, decay, request.seed)

    return fit_one_hop(request, "matrix-factorisation", candidates)


def _fit(learnt: Examples, decay: float, seed: int) -> Predict:
    import torch
    from torch import nn

    queries, models = learnt.vectors.shape[1], learnt.score.shape[1]
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(seed)
        project, of_model, combine = (
            nn.Linear(queries, DIMENSION),
            nn.Embedding(models, DIMENSION),
            nn.Linear(DIMENSION, 1),
        )
        parameters = [*project.parameters(), *of_model.parameters(), *combine.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=decay)

        def logits(vectors: Any) -> Any:
            matched = project(torch.from_numpy(np.asarray(vectors, np.float32)))[:, None] * of_model.weight
            return combine(matched).squeeze(2)

        target = torch.from_numpy(learnt.score.astype(np.float32))
        for _ in range(STEPS):
            loss = nn.functional.binary_cross_entropy_with_logits(logits(learnt.vectors), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def predict(vectors: NDArray[np.float32]) -> Any:
        with torch.inference_mode():
            return torch.sigmoid(logits(vectors)).double().numpy()

    return predict
