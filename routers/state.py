"""What the policy sees of a state beside the context's embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Part = Literal["query", "response", "agreement", "length", "models"]
"""What a state may be made of: the query's and the last response's embeddings (the paper's context embedding, as we
read it), whether the last response agrees with earlier ones, its length, and which models have spoken."""
DEFAULT: tuple[Part, ...] = ("query", "response")


@dataclass(frozen=True)
class StateFeatures:
    """Turns hop, cost, the models called so far and the cost weight into numbers of about unit size.

    max_hops: `L`. models: `M`. cost_scale: what costs are divided by, about the cost of a whole episode.
    sees_models: whether the last model and the set of models called so far are shown; the paper's state has neither.
    sees_weight: whether the cost weight (lambda) of the episode is shown, so that one policy serves many.
    """

    max_hops: int
    models: int
    cost_scale: float
    sees_models: bool = False
    sees_weight: bool = False

    @property
    def dimension(self) -> int:
        """How many numbers there are."""
        return self.max_hops + 1 + 2 * self.models * self.sees_models + self.sees_weight

    def __call__(
        self, hop: ArrayLike, cost: ArrayLike, actions: NDArray[np.int64], cost_weight: ArrayLike
    ) -> NDArray[np.float32]:
        """float32 `[B, dimension]` of hops `[B]`, costs `[B]`, actions `[B, L]` padded with -1, and cost weights `[B]`.

        The first column is 1 at hop 0 and 0 later.
        """
        hops = np.asarray(hop, np.int64)
        columns = [np.eye(self.max_hops)[hops], np.asarray(cost, np.float64)[:, None] / self.cost_scale]
        if self.sees_models:
            called = np.zeros((len(hops), self.models + 1))  # the last column collects the padding
            np.put_along_axis(called, np.where(actions < 0, self.models, actions), 1.0, axis=1)
            last = np.zeros_like(called)
            place = np.where(hops > 0, actions[np.arange(len(hops)), np.maximum(hops - 1, 0)], self.models)
            last[np.arange(len(hops)), place] = 1.0
            columns += [called[:, :-1], last[:, :-1]]
        if self.sees_weight:
            weights = np.broadcast_to(np.asarray(cost_weight, np.float64), hops.shape)
            columns.append(np.log1p(weights * self.cost_scale)[:, None])
        return np.concatenate(columns, axis=1).astype(np.float32)
