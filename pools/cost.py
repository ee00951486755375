"""What a hop costs: the paper's cost model, and dollars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_RATE = 1e15
"""Of a cost per token, a price per million tokens, and a cost weight: beyond any unit, and every sum stays finite.

A call of 2 * 2^31 tokens then costs less than MAX_COST, all calls of the largest tree (2e8 nodes) less than 2e33, and
even the square of what that weighs, below 1e97, is far from a float's 1.8e308.
"""
MAX_COST = 1e25
"""Of what one call cost, where that was recorded itself."""


@dataclass(frozen=True)
class CostModel:
    """A price per token read and per token written, for each of `M` models.

    name: how it is chosen (`paper`, `dollars`). unit: what one unit of cost is; every table states it.
    input_rate, output_rate: cost per token, `M` each.
    source: where the rates are from and of what date; it goes into every manifest.
    billed: the cost of every response was recorded with it; there are no rates then.
    """

    name: str
    unit: str
    input_rate: tuple[float, ...]
    output_rate: tuple[float, ...]
    source: str = ""
    billed: bool = False

    def hop_cost(self, models: ArrayLike, tokens_in: ArrayLike, tokens_out: ArrayLike) -> NDArray[np.float64]:
        """Cost of hops, elementwise: `input_rate * tokens_in + output_rate * tokens_out`.

        With equal rates this is the paper's `base_rate * (tokens_in + tokens_out)` (arXiv 2511.09873).
        """
        index = np.asarray(models, np.int64)
        cost = np.asarray(self.input_rate)[index] * np.asarray(tokens_in, np.float64)
        return cost + np.asarray(self.output_rate)[index] * np.asarray(tokens_out, np.float64)


def paper_cost(base_rates: tuple[float, ...], unit: str, source: str = "") -> CostModel:
    """The paper's cost model, `base_rate * (tokens_in + tokens_out)`."""
    return CostModel("paper", unit, base_rates, base_rates, source)


def dollar_cost(input_prices: tuple[float, ...], output_prices: tuple[float, ...], source: str = "") -> CostModel:
    """Dollars, from prices per million tokens read and written."""
    return CostModel(
        "dollars", "US$", tuple(p / 1e6 for p in input_prices), tuple(p / 1e6 for p in output_prices), source
    )
