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

    edges: `[L, C - 1]` the longest text of each class but the last, inf where a hop has fewer classes. most:
    `[L, C, M]`. ranking: `[M]` models by the mean score of their first hop, the best first, of equals the cheaper.
    independent: whether the text is the query alone, since no model reads earlier answers.
    """

    edges: FloatArray
    most: FloatArray
    ranking: IntArray
    independent: bool = False

    @staticmethod
    def learn(tree: Tree) -> CallBounds:
        """From a complete tree with items.

        The most of `n` calls is exceeded by another call of the same class with probability `1 / (n + 1)` at most, if
        they are exchangeable (as in split conformal prediction, Vovk et al. 2005).
        """
        classes = max(1, min(CLASSES, len(tree.items) // ITEMS_OF_A_CLASS))
        length = lengths_at(tree)
        edges = np.full((tree.max_hops, classes - 1), np.inf)
        most = np.zeros((tree.max_hops, classes, len(tree.models)))
        for hop in range(tree.max_hops):
            nodes = tree.level(hop)
            found = _edges(length[:, nodes], classes)
            edges[hop, : len(found)] = found
            cost = tree.cost[:, tree.child(nodes[:, None], np.arange(len(tree.models)))]
            np.maximum.at(most[hop], (length[:, nodes, None] > edges[hop]).sum(axis=-1), cost)
        first = tree.level(1)
        ranking = np.lexsort((tree.cost[:, first].mean(axis=0), -tree.score[:, first].mean(axis=0)))
        return CallBounds(edges, most, ranking, tree.independent)

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


def _edges(length: IntArray, classes: int) -> list[int]:
    """The longest text of each class but the last; a length between two classes is then in that of the longer ones.

    Classes are of equally many of these lengths, as far as equal ones can be told apart, and none is small.
    """
    edges, below = [], 0
    for each in np.unique(np.quantile(length, np.arange(1, classes) / classes, method="lower")).tolist():
        up_to = int((length <= each).sum())
        if min(up_to - below, length.size - up_to) >= ITEMS_OF_A_CLASS:
            edges.append(each)
            below = up_to
    return edges


def lengths(contexts: Sequence[Context], independent: bool = False) -> IntArray:
    """`[n]` how many characters a model reads in each context: query, responses and what the next one begins with.

    independent: no model reads the responses.
    """
    read = ([c.query, c.prefill] if independent else [c.query, c.prefill, *c.responses] for c in contexts)
    return np.array([sum(map(len, texts)) for texts in read], np.int64)


def lengths_at(tree: Tree) -> IntArray:
    """`[I, D]` of the contexts at the decision nodes, which are known."""
    ids = tree.context_ids(np.arange(len(tree.items))[:, None], np.arange(tree.decision_nodes))
    return lengths(tree.contexts, tree.independent)[ids]
