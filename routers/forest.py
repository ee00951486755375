"""A forest of extremely randomised trees as plain arrays: fitted by scikit-learn, kept and read without it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]
ForestArrays = dict[str, NDArray[Any]]
"""`roots` `[T]` the first node of each tree; of each of the `N` nodes of all trees `children` `[N, 2]` (a leaf is its
own), `feature` and `threshold` `[N]`, and `value` `[N, K]`, zero if it is not a leaf."""

_ROWS = 1 << 14  # at once: what they read of a tree stays in the processor's cache


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
    flat = children.ravel()
    for start in range(0, len(columns), _ROWS):
        rows = np.ascontiguousarray(columns[start : start + _ROWS], np.float32)  # what scikit-learn splits
        width, seen, total = rows.shape[1], rows.ravel(), found[start : start + _ROWS]
        for root in roots.tolist():
            leaf = np.full(len(rows), root, np.int32)
            at, moving = leaf, np.arange(len(rows))
            while len(moving):
                right = seen[moving * width + feature[at]] > threshold[at]
                below = flat[2 * at + right]
                left_over = below != at
                leaf[moving] = below
                at, moving = below[left_over], moving[left_over]
            total += value[leaf]
    return found / len(roots)
