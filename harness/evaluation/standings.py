"""Routers in the order of their value, with groups of those that are not told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.metrics import NOISE, Bootstrap, Estimate, FloatArray
from harness.evaluation.paired import Figures


@dataclass(frozen=True)
class Standing:
    """A router among others on the same items. groups: its letters, empty for a bound. cost: None if not recorded."""

    router: str
    value: Estimate
    quality: Estimate
    cost: Estimate | None
    groups: str = ""


def standings(
    routers: Mapping[str, Figures], bounds: frozenset[str], cost_weight: float, seed: int = 1
) -> list[Standing]:
    """The routers, best value first, then the bounds; intervals are 95%, over items. Costs are none's or all's."""
    values = {
        name: of.quality if of.cost is None else of.quality - cost_weight * of.cost for name, of in routers.items()
    }
    ranked = sorted(routers, key=lambda name: (name in bounds, -values[name].mean(), name))
    contenders = [name for name in ranked if name not in bounds]
    bootstrap = Bootstrap.draw(len(values[ranked[0]]), seed)
    letters: dict[str, str] = {}
    if contenders:
        alike = not_told_apart(np.stack([values[name] for name in contenders]), bootstrap)
        letters = dict(zip(contenders, group_letters(alike), strict=True))
    found = []
    for name in ranked:
        quality, cost = routers[name].quality, routers[name].cost
        estimates = bootstrap.mean(values[name]), bootstrap.mean(quality)
        found.append(Standing(name, *estimates, None if cost is None else bootstrap.mean(cost), letters.get(name, "")))
    return found


def not_told_apart(values: FloatArray, bootstrap: Bootstrap) -> NDArray[np.bool_]:
    """`[K, K]` which of `K` routers may be equal in mean, of their values `[K, I]` on the same items.

    All pairs at once with 95% confidence: the largest studentised difference of a resample decides how many standard
    errors a difference must have (the single-step method of Romano and Wolf, 2005).
    """
    resampled = bootstrap.weights @ values.T  # [R, K]
    mean = values.mean(axis=1)
    difference = mean[:, None] - mean
    around = resampled[:, :, None] - resampled[:, None] - difference
    error = around.std(axis=0)
    differs = error > NOISE
    largest = (np.abs(around[:, differs]) / error[differs]).max(axis=1, initial=0.0)
    return np.asarray(np.abs(difference) <= np.quantile(largest, 0.95) * error + NOISE)


def group_letters(alike: NDArray[np.bool_]) -> list[str]:
    """For each of `K` routers the letters of its groups: two share one if they are alike `[K, K]`."""
    sets = sorted(_cliques(alike, [], list(range(len(alike))), []))
    return ["".join(_letter(n) for n, members in enumerate(sets) if i in members) for i in range(len(alike))]


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26) + "'" * (number // 26)


def _cliques(
    alike: NDArray[np.bool_], chosen: list[int], left: list[int], gone: list[int]
) -> Iterator[tuple[int, ...]]:
    """The largest sets in which all are alike (Bron and Kerbosch 1973, with the pivot of Tomita and others 2006)."""
    if not left and not gone:
        yield tuple(sorted(chosen))
        return
    pivot = max([*left, *gone], key=lambda each: alike[each, left].sum())
    for each in [each for each in left if each == pivot or not alike[pivot, each]]:
        yield from _cliques(
            alike,
            [*chosen, each],
            [o for o in left if alike[each, o] and o != each],
            [o for o in gone if alike[each, o]],
        )
        left.remove(each)
        gone.append(each)
