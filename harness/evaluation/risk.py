"""A point of a router's curve whose quality is, with a stated confidence, not below a model's by more than a margin.

Pure functions on arrays. Nothing is assumed of the scores but that they lie in [0, 1] and that the items are drawn
independently from what the statement is about; it holds for any number of items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

FloatArray = NDArray[np.float64]
BETS = np.arange(1, 101) / 100
"""What is bet on each item, as a share of the most that may be: all at once, since the best is not known before."""


def p_value(ahead: FloatArray, margin: float) -> float:
    """Of the null hypothesis that the mean of what `ahead` is drawn from is at most `-margin`.

    ahead: `[I]` quality of a router minus that of a model on each item, in [-1, 1], in an order that has nothing to do
    with them. margin: in [0, 1).
    By betting (Waudby-Smith and Ramdas 2024, JRSS B 86, arXiv 2010.09686): whoever bets the share `b` on each item
    being ahead of the null has after `t` items `K_t(b) = prod_i (1 + b * (ahead_i + margin) / (1 - margin))` times what
    there was at first. Under the null the mean of `K_t` over `b` is a nonnegative supermartingale, so by Ville's
    inequality `p = min(1, 1 / max_t mean_b K_t(b))` is valid, for any number of items.
    """
    with np.errstate(divide="ignore"):  # all is lost: log 0
        capital = np.log1p(BETS[:, None] * np.maximum((ahead + margin) / (1 - margin), -1.0)).cumsum(axis=1)
    highest = (logsumexp(capital, axis=0) - np.log(len(BETS))).max(initial=0.0)
    return float(np.exp(-highest))


def passing(ahead: FloatArray, margin: float, confidence: float) -> int:
    """How many points pass, in their order, before the first one that does not.

    ahead: `[P, I]` of each point; their order must not depend on these items. Each is tested at level
    `1 - confidence`. Fixed-sequence testing (Maurer, Hothorn and Lehmacher 1995; for thresholds in Learn then Test,
    Angelopoulos et al. 2021, arXiv 2110.01052): since it ends at the first that fails, the chance that any point passes
    that is below by more than the margin is at most `1 - confidence`, however many are tested. So any of those that
    pass may be chosen, by whatever is seen on the same items.
    """
    for count, of_point in enumerate(ahead):
        if p_value(of_point, margin) > 1 - confidence:
            return count
    return len(ahead)


def least_margin(items: int, confidence: float) -> float | None:
    """The least margin, in thousandths, that a router passes at that equals the model on each item; None if none."""
    margins = np.arange(1, 1000) / 1000
    return next((m for m in margins.tolist() if p_value(np.zeros(items), m) <= 1 - confidence), None)
