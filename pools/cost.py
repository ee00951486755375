"""What a hop costs: the paper's cost model, dollars, or what was recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pools.errors import UserError
from pools.numbers import read_number
from pools.registry import Registry
from pools.types import Generation

if TYPE_CHECKING:
    from pools.pool import Pool

MAX_RATE = 1e15
"""Of a cost per token, a price per million tokens, and a cost weight: beyond any unit, and every sum stays finite.

A call of 2 * 2^31 tokens then costs less than MAX_COST, all calls of the largest tree (2e8 nodes) less than 2e33, and
even the square of what that weighs, below 1e97, is far from a float's 1.8e308.
"""
COST_WEIGHT = 2.0
"""The lambda if nobody says another. It is made for T param-tokens, of which a call of the code model costs 0.06."""
MAX_COST = 1e25
"""Of what one call cost, where that was recorded itself."""

RECORDED = "billed"
"""Name of the cost model of responses that were recorded with their costs."""


@dataclass(frozen=True)
class CostModel:
    """A price per token read and per token written, for each of `M` models.

    name: how it is chosen (`paper`, `dollars`). unit: what one unit of cost is; every table states it.
    input_rate, output_rate: cost per token, `M` each; None if every response was recorded with its cost.
    source: where the rates are from and of what date; it goes into every manifest.
    """

    name: str
    unit: str
    input_rate: tuple[float, ...] | None
    output_rate: tuple[float, ...] | None
    source: str = ""

    def hop_cost(self, model: int, generation: Generation) -> float:
        """Cost of a response: as recorded, else `input_rate * tokens_in + output_rate * tokens_out`.

        With equal rates this is the paper's `base_rate * (tokens_in + tokens_out)` (arXiv 2511.09873).
        Raises UserError if there are no rates and the response does not say what it cost.
        """
        if generation.cost is not None:
            return generation.cost
        if self.input_rate is None or self.output_rate is None:
            raise UserError("a response lacks what it cost, and there are no rates; record its cost too")
        return self.input_rate[model] * generation.tokens_in + self.output_rate[model] * generation.tokens_out

    def of(self, models: Sequence[int]) -> CostModel:
        """That of some of the models, by their numbers."""
        if self.input_rate is None or self.output_rate is None:
            return self
        read, written = (tuple(rates[m] for m in models) for rates in (self.input_rate, self.output_rate))
        return replace(self, input_rate=read, output_rate=written)

    def scaled(self, factors: Sequence[float]) -> CostModel:
        """With the prices of the models times these factors, `M` of them."""
        if self.input_rate is None or self.output_rate is None:
            return self
        sides = (self.input_rate, self.output_rate)
        read, written = (tuple(rate * f for rate, f in zip(rates, factors, strict=True)) for rates in sides)
        return replace(self, input_rate=read, output_rate=written)


COST_MODELS: Registry[Callable[[Pool], CostModel]] = Registry("cost model", "harness.cost_models", "pools")
"""What is registered are functions that make the cost model of a pool."""


def register_cost_model(name: str) -> Callable[[Callable[[Pool], CostModel]], Callable[[Pool], CostModel]]:
    """Decorate such a function to make it known by a name. Raises UserError for an invalid or a reserved one."""
    if name == RECORDED:
        raise UserError(f"{name!r} is the name of recorded costs; register the cost model by another one")
    return COST_MODELS.register(name)


@register_cost_model("paper")
def paper(pool: Pool) -> CostModel:
    """The paper's cost model, `base_rate * (tokens_in + tokens_out)`."""
    return paper_cost(tuple(model.base_rate for model in pool.models), pool.cost_unit, pool.rates)


@register_cost_model("dollars")
def dollars(pool: Pool) -> CostModel:
    """US$, from the models' prices per million tokens. Raises UserError if a model has none."""
    prices = [model.price for model in pool.models if model.price is not None]
    if len(prices) < len(pool.models):
        unpriced = ", ".join(model.name for model in pool.models if model.price is None)
        raise UserError(f"no price for {unpriced} in pool {pool.name}: add `price:` to the pool file, or --cost paper")
    source = "; ".join(sorted({price.source for price in prices}))
    read, written = (tuple(getattr(price, side) / 1e6 for price in prices) for side in ("input", "output"))
    return CostModel("dollars", "US$", read, written, source)


def recorded_cost(unit: str, source: str = "") -> CostModel:
    """What was recorded with every response; without a unit there are no costs at all."""
    return CostModel(RECORDED, unit, None, None, source)


def paper_cost(base_rates: tuple[float, ...], unit: str, source: str = "") -> CostModel:
    """The paper's cost model from the rates alone."""
    return CostModel("paper", unit, base_rates, base_rates, source)


def read_prices(texts: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Of each model in MODEL=INPUT,OUTPUT its prices, in US$ per million tokens. Raises UserError for another text."""
    price_of: dict[str, tuple[float, float]] = {}
    for text in texts:
        model, _, pair = text.rpartition("=")
        try:
            read, written = (read_number(part, float) for part in pair.split(","))
        except ValueError:
            read = written = math.nan
        if not (model and 0 <= read <= MAX_RATE and 0 <= written <= MAX_RATE):
            raise UserError(
                f"--prices {text}: expected MODEL=INPUT,OUTPUT in US$ per million tokens, each from 0 to {MAX_RATE:g}"
            )
        price_of[model] = read, written
    return price_of
