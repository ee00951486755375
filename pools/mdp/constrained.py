"""The exact optimum under limits: a budget on the mean over items of what is spent, and a cap on what each spends.

Pure functions on arrays: an item's options are columns, each with a quality and with what it spends, of any resource.
`Gen` is a function, so a policy of a tree is no more than the node at which each item's episode ends, and the options
of an item are its nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.mdp.tree import Tree

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
ROUNDING = 1e-9
"""Sums of the same hops in another order differ by such a share: that breaks no limit."""


@dataclass(frozen=True)
class Mix:
    """Two options for each of `I` items, mixed at random with the same share for all.

    first, second: `[I]` the columns of the options. share: of the second, in [0, 1]. price: the quality that one more
    unit of the budget would bring, which is the cost weight at which both are optimal; 0 if the budget is not spent.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    share: float
    price: float

    def of(self, values: FloatArray) -> FloatArray:
        """`[I]` the expectation of values `[I, N]` of the options."""
        items = np.arange(len(values))
        return (1 - self.share) * values[items, self.first] + self.share * values[items, self.second]


def best_mix(quality: FloatArray, spent: FloatArray, budget: float = np.inf) -> Mix | None:
    """The best mean quality for which `budget` is spent on average; None if even the cheapest options spend more.

    quality: `[I, N]`, -inf where an option is closed. spent: `[I, N]`, >= 0. At least one option of each item is open.
    Of equally good ones the cheaper is taken.

    The constraint couples items only through a sum, so it has a price: at some cost weight `w` the options with the
    best `quality - w * spent` meet the budget, or two such choices lie on either side of it, and mixing them spends it
    exactly (Everett 1963, Operations Research 11; with mixing there is no gap: it is the linear relaxation of the
    multiple-choice knapsack, Sinha and Zoltners 1979, Operations Research 27). The two are found on the upper hull of
    all choices, from its ends inwards: each step asks for the best choice at the slope between the two so far.
    """
    closed = np.isneginf(quality)
    # Beyond each item's cheapest option, else what all options share hides in its last digits what tells them apart.
    least = np.where(closed, np.inf, spent).min(axis=1, keepdims=True)
    spent, rounding = spent - least, ROUNDING * budget
    budget -= float(least.mean())

    def choice(value: FloatArray, otherwise: FloatArray) -> tuple[NDArray[np.int64], float, float]:
        """Columns of the best value, of equals that of the best `otherwise`; mean quality, and what is spent."""
        top = value >= value.max(axis=1, keepdims=True) - 1e-12
        columns = np.where(top, otherwise, -np.inf).argmax(axis=1)
        rows = np.arange(len(columns))
        return columns, float(quality[rows, columns].mean()), float(spent[rows, columns].mean())

    first = choice(np.where(closed, -np.inf, -spent), quality)
    second = choice(quality, -spent)
    if first[2] > budget + rounding:
        return None
    if second[2] <= budget + rounding:
        return Mix(second[0], second[0], 0.0, 0.0)
    while True:
        price = (second[1] - first[1]) / (second[2] - first[2])
        between = choice(quality - price * spent, -spent)
        better = between[1] - price * between[2] > first[1] - price * first[2] + 1e-12
        if not (better and first[2] < between[2] < second[2]):
            share = max(0.0, (budget - first[2]) / (second[2] - first[2]))
            return Mix(first[0], second[0], share, price)
        if between[2] <= budget:
            first = between
        else:
            second = between


def within_cap(tree: Tree, spent: FloatArray, cap: float = np.inf) -> tuple[FloatArray, BoolArray]:
    """The quality `[I, N]` of ending at each node, -inf where an episode cannot end, and `[I]` who can be answered.

    spent: `[I, N]` on the pipeline that leads to each node; it never falls along a pipeline, so to remove the nodes
    that spend more than `cap` is to close them as ends. An item whose every call spends more is not answered: its
    episode ends at the root, with quality 0, for nothing. STOP is open. Every node is known.
    """
    open_ = (spent <= cap * (1 + ROUNDING)) & (tree.depth > 0)
    answered = np.asarray(open_.any(axis=1))
    open_[:, 0] = ~answered
    return np.where(open_, tree.score.astype(np.float64), -np.inf), answered
