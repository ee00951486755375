"""A forest of extremely randomised trees as plain arrays: fitted by scikit-learn, kept and read without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]
ForestArrays = dict[str, NDArray[Any]]
"""`roots` `[T]` the first node of each tree; of each of the `N` nodes of all trees `children` `[N, 2]` (a leaf is its
own), `feature` and `threshold` `[N]`, and `value` `[N, K]`, zero if it is not a leaf."""

_STEPS = 4  # down a tree, before the rows that have come to a leaf are dropped
_AT_ONCE = 1 << 14  # rows, or pairs of row and tree: what they read stays in the processor's cache


def fit_forest(
    columns: NDArray[np.floating], target: FloatArray, *, trees: int, leaf: int, share: float = 1.0, seed: int = 0
) -> ForestArrays:
    """Fit extremely randomised trees (Geurts, Ernst and Wehenkel 2006) to `target` `[n, K]`, all outputs in one forest.

    leaf: the fewest rows of a leaf. share: of the columns, that are tried at each split.
    The number of threads changes nothing.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    model = ExtraTreesRegressor(trees, min_samples_leaf=leaf, max_features=share, random_state=seed, n_jobs=-1)
    # A single output must be given flat.
    model.fit(np.asarray(columns, np.float32), target if target.shape[1] > 1 else target.ravel())
    grown = [estimator.tree_ for estimator in model.estimators_]
    sizes = [tree.node_count for tree in grown]
    roots = np.cumsum([0, *sizes[:-1]])
    own = np.arange(sum(sizes), dtype=np.int32)[:, None]
    below = np.concatenate([np.stack([tree.children_left, tree.children_right], axis=1) for tree in grown])
    children = below + np.repeat(roots, sizes)[:, None]
    leaf_at = below[:, 0] < 0
    feature = np.concatenate([tree.feature for tree in grown])
    value = np.concatenate([tree.value[:, :, 0] for tree in grown])
    return {
        "roots": roots.astype(np.int32),
        "children": np.where(leaf_at[:, None], own, children).astype(np.int32),
        "feature": np.where(leaf_at, 0, feature).astype(np.int32),
        "threshold": np.concatenate([tree.threshold for tree in grown]),
        "value": np.where(leaf_at[:, None], value, 0.0),
    }


def forest_mean(
    columns: NDArray[np.floating],
    /,
    roots: IntArray,
    children: IntArray,
    feature: IntArray,
    threshold: FloatArray,
    value: FloatArray,
) -> FloatArray:
    """`[n, K]` the mean over the trees of the leaf that each row `[n, d]` comes to, as scikit-learn's, to the bit."""
    found = np.zeros((len(columns), value.shape[1]))
    for start in range(0, len(columns), _AT_ONCE):
        rows = np.ascontiguousarray(columns[start : start + _AT_ONCE], np.float32)  # what scikit-learn splits
        total = found[start : start + _AT_ONCE]
        block = _AT_ONCE // len(rows)  # of few rows many trees at once
        for first in range(0, len(roots), block):
            for leaf in _leaves(rows, roots[first : first + block], children, feature, threshold):
                total += value[leaf]
    return found / len(roots)


def _leaves(
    rows: NDArray[np.float32], roots: IntArray, children: IntArray, feature: IntArray, threshold: FloatArray
) -> IntArray:
    """`[T, n]` the leaf that each row comes to in each of the trees."""
    seen, below = rows.ravel(), children.ravel()
    at = np.repeat(roots, len(rows)).astype(np.intp)
    start_of_row = np.tile(np.arange(len(rows)) * rows.shape[1], len(roots))
    leaf, moving = at.astype(np.int32), np.arange(len(at))
    while len(moving):
        for _ in range(_STEPS):  # a leaf leads to itself
            right = seen.take(start_of_row + feature.take(at)) > threshold.take(at)
            at = below.take(2 * at + right).astype(np.intp)
        leaf[moving] = at
        on = np.flatnonzero(below.take(2 * at) != at)
        at, moving, start_of_row = at[on], moving[on], start_of_row[on]
    return leaf.reshape(len(roots), len(rows))


def check_forest(width: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError if arrays are not a forest that reads rows of `width` columns."""
    children, feature, roots = (np.asarray(arrays[name]) for name in ("children", "feature", "roots"))
    nodes = len(feature)
    forms = {"children": (nodes, 2), "feature": (nodes,), "threshold": (nodes,)}
    if any(np.shape(arrays[name]) != form for name, form in forms.items()) or np.shape(arrays["value"])[:1] != (nodes,):
        raise ValueError(f"the arrays of a forest are { ({name: np.shape(array) for name, array in arrays.items()}) }")
    if not all(np.issubdtype(array.dtype, np.integer) for array in (children, feature, roots)):
        raise ValueError("the places in a forest are no whole numbers")
    # Each child comes after its parent, so every way down ends.
    own = np.arange(nodes)[:, None]
    inner = (children > own) & (children < nodes)
    if not (inner.all(axis=1) | (children == own).all(axis=1)).all():
        raise ValueError("a node of the forest leads nowhere")
    if not (len(roots) and (roots >= 0).all() and (roots < nodes).all()):
        raise ValueError("a tree of the forest begins nowhere")
    if not ((feature >= 0) & (feature < width)).all():
        raise ValueError(f"the forest reads columns that are not among {width}")
