"""A forest kept as arrays predicts what scikit-learn's does."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from routers.forest import check_forest, fit_forest, forest_mean


@pytest.mark.parametrize(("rows", "outputs", "leaf"), [(20_000, 1, 20), (300, 4, 1), (5, 2, 9)])
def test_predictions_are_scikit_learns_to_the_bit(rows: int, outputs: int, leaf: int) -> None:
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((rows, 6))
    target = (columns[:, :outputs] > 0) + rng.standard_normal((rows, outputs))
    arrays = fit_forest(columns, target, trees=7, leaf=leaf, share=0.5, seed=3)
    theirs = ExtraTreesRegressor(7, min_samples_leaf=leaf, max_features=0.5, random_state=3)
    theirs.fit(columns, target if outputs > 1 else target.ravel())
    unseen = rng.standard_normal((rows, 6))
    np.testing.assert_array_equal(forest_mean(unseen, **arrays), theirs.predict(unseen).reshape(rows, outputs))
    for few in (1, 3):  # many trees at once
        np.testing.assert_array_equal(
            forest_mean(unseen[:few], **arrays), theirs.predict(unseen[:few]).reshape(few, -1)
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [("children", "leads nowhere"), ("roots", "begins nowhere"), ("feature", "not among"), ("value", "arrays of a")],
)
def test_arrays_that_are_no_forest_are_refused(name: str, message: str) -> None:
    columns = np.random.default_rng(0).standard_normal((50, 3))
    arrays = fit_forest(columns, columns[:, :2], trees=3, leaf=5)
    check_forest(3, arrays)
    broken = {**arrays, name: arrays[name][1:] if name == "value" else arrays[name] + 1000 * (arrays[name] == 0)}
    broken = {**broken, "children": np.zeros_like(arrays["children"])} if name == "children" else broken
    with pytest.raises(ValueError, match=message):
        check_forest(3, broken)
