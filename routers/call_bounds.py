"""What a call costs at most, told before it is made; and what is done instead of a call that does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pools.mdp.constrained import ROUNDING
from pools.mdp.tree import Tree
from pools.types import Context

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
CLASSES, ITEMS_OF_A_CLASS = 10, 20
"""Lengths of text are told apart in so many classes, fewer if a class would have fewer items than that."""


@dataclass(frozen=True, eq=False)
class CallBounds:
    """The most that a call cost on the items it was learnt from: by hop, length of the text that is read, and model.

    A call that could spend more than what is left of a cap is not made. The router stops instead; before the first
    answer, when it cannot stop, the first model of `ranking` that fits is called, and if none fits the one with the
    least bound, since some model must answer.

    edges: `[L, C - 1]` lengths at which the next class begins. most: `[L, C, M]`. ranking: `[M]` models by the mean
    score of their first hop, the best first, of equals the cheaper.
    """

    edges: FloatArray
    most: FloatArray
    ranking: IntArray

    @staticmethod
    def learn(tree: Tree) -> CallBounds:
        """From a complete tree with items. Classes hold equal numbers of a hop's states.

        The most of `n` calls is exceeded by another call of the same class with probability `1 / (n + 1)` at most, if
        they are exchangeable (as in split conformal prediction, Vovk et al. 2005).
        """
        classes = max(1, min(CLASSES, len(tree.items) // ITEMS_OF_A_CLASS))
        length = lengths_at(tree)
        edges = np.zeros((tree.max_hops, classes - 1))
        most = np.zeros((tree.max_hops, classes, len(tree.models)))
        for hop in range(tree.max_hops):
            nodes = tree.level(hop)
            edges[hop] = np.quantile(length[:, nodes], np.arange(1, classes) / classes)
            cost = tree.cost[:, tree.child(nodes[:, None], np.arange(len(tree.models)))]
            np.maximum.at(most[hop], (length[:, nodes, None] > edges[hop]).sum(axis=-1), cost)
        first = tree.level(1)
        ranking = np.lexsort((tree.cost[:, first].mean(axis=0), -tree.score[:, first].mean(axis=0)))
        return CallBounds(edges, most, ranking)

    def __call__(self, length: ArrayLike, hop: ArrayLike) -> FloatArray:
        """`[..., M]` for a call of each model at states whose text has these lengths `[...]`, after `hop` hops."""
        beyond = np.asarray(length)[..., None] > self.edges[np.asarray(hop)]
        return np.asarray(self.most[np.asarray(hop), beyond.sum(axis=-1)])

    def fitting(self, bound: FloatArray, left: ArrayLike, hop: ArrayLike) -> tuple[BoolArray, IntArray]:
        """`[..., M]` which calls fit, and `[...]` the action that is taken instead of one that does not; `M` is STOP.

        bound: `[..., M]` of each call. left: `[...]` of the cap. hop: `[...]` hops made.
        """
        fits = bound <= np.asarray(left)[..., None] + ROUNDING * bound
        ranked = self.ranking[fits[..., self.ranking].argmax(axis=-1)]
        first = np.where(fits.any(axis=-1), ranked, bound.argmin(axis=-1))
        return fits, np.where(np.asarray(hop) > 0, len(self.ranking), first)


def moved(chance: FloatArray, fits: BoolArray, instead: IntArray) -> FloatArray:
    """Probabilities `[..., M + 1]` of what is done: those of calls that do not fit go to `instead` `[...]`."""
    done = chance.copy()
    done[..., :-1] *= fits
    at, refused = instead[..., None], (chance[..., :-1] * ~fits).sum(axis=-1, keepdims=True)
    np.put_along_axis(done, at, np.take_along_axis(done, at, -1) + refused, -1)
    return done


def lengths(contexts: Sequence[Context]) -> IntArray:
    """`[n]` how many characters a model reads in each context: query, responses and what the next one begins with."""
    read = [len(context.query) + len(context.prefill) + sum(map(len, context.responses)) for context in contexts]
    return np.array(read, np.int64)


def lengths_at(tree: Tree) -> IntArray:
    """`[I, D]` of the contexts at the decision nodes, which are known."""
    ids = tree.context_ids(np.arange(len(tree.items))[:, None], np.arange(tree.decision_nodes))
    return lengths(tree.contexts)[ids]
