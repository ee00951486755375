"""Validate router outputs: a wrong action or probability is an error, never a wrong figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from routers.registry import ROUTERS
from routers.router import Router, RoutingStates, StochasticRouter, VotingRouter, routing_cost

FloatArray = NDArray[np.float64]
# How far the sum of a state's probabilities may be from 1: it covers the rounding of single precision.
TOLERANCE = 1e-6


def actions(router: Router, states: RoutingStates, models: int) -> NDArray[np.int64]:
    """`[B]` what `act` chose: whole numbers from 0 to `models`, which is STOP. Raises UserError for anything else."""
    expected = f"expected [{len(states.contexts)}] whole numbers from 0 to {models}, where {models} is STOP"
    return _indices(router, "act", router.act(states), len(states.contexts), models, expected)


def probabilities(router: StochasticRouter, states: RoutingStates, models: int) -> FloatArray:
    """`[B, A]` chance of each action, `A` being `models` or one more for STOP. Raises UserError for an invalid one."""
    count = len(states.contexts)
    expected = (
        f"expected [{count}, {models}] probabilities, or [{count}, {models + 1}] with STOP, each >= 0 and every row "
        "summing to 1"
    )
    shapes = (count, models), (count, models + 1)
    given = _numbers(router, "probabilities", router.probabilities(states), expected, *shapes)
    chance = given.astype(np.float64, copy=False)
    # Written so that what is not a number fails.
    good = (chance >= 0).all(axis=1) & (np.abs(chance.sum(axis=1) - 1) <= TOLERANCE)
    if not good.all():
        row = chance[~good][0].tolist()
        shown = f"[{', '.join(f'{value:.7g}' for value in row)}]"
        raise _refused(router, "probabilities", f"{shown}, which sums to {sum(row):.7g}", expected)
    return chance


def chosen_responses(router: VotingRouter, responses: Sequence[Sequence[str]], models: int) -> NDArray[np.int64]:
    """`[B]` the models whose responses `[B][M]` are taken: from 0 to `models - 1`. Raises UserError for others."""
    expected = f"expected [{len(responses)}] whole numbers from 0 to {models - 1}"
    given = router.choose_response(responses)
    return _indices(router, "choose_response", given, len(responses), models - 1, expected)


def own_cost(router: Router, states: RoutingStates) -> FloatArray:
    """`[B]` what deciding costs at each state. Raises UserError if that is no number, or below 0."""
    count = len(states.contexts)
    expected = f"expected [{count}] costs, each a finite number >= 0"
    cost = _numbers(router, "routing_cost", routing_cost(router, states), expected, (count,))
    good = (cost >= 0) & (cost < np.inf)
    if not good.all():
        raise _refused(router, "routing_cost", f"{cost[~good][0]}", expected)
    return cost


def stopped_at_once(router: object) -> UserError:
    """What to raise of a router that stopped before any model was asked."""
    return UserError(
        f"router {ROUTERS.name_of(router)} stopped before any model was asked; STOP is open from the first response on"
    )


def _indices(router: object, method: str, given: Any, count: int, highest: int, expected: str) -> NDArray[np.int64]:
    indices = _numbers(router, method, given, expected, (count,))
    good = (indices >= 0) & (indices <= highest) & (indices == np.floor(indices))
    if not good.all():
        raise _refused(router, method, f"{indices[~good][0]}", expected)
    return indices.astype(np.int64, copy=False)


def _numbers(router: object, method: str, given: Any, expected: str, *shapes: tuple[int, ...]) -> NDArray[Any]:
    try:
        numbers = np.asarray(given)
    except (RuntimeError, TypeError, ValueError):  # rows of several lengths, a tensor on an accelerator
        raise _refused(router, method, f"a {type(given).__name__} that is no array", expected) from None
    if numbers.dtype.kind not in "biuf":
        raise _refused(router, method, f"{type(given).__name__} of {numbers.dtype}", expected)
    if numbers.shape not in shapes:
        raise _refused(router, method, f"an array of shape {list(numbers.shape)}", expected)
    return numbers


def _refused(router: object, method: str, returned: str, expected: str) -> UserError:
    return UserError(f"router {ROUTERS.name_of(router)}: {method} returned {returned}; {expected}")
