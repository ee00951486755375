"""What routers that learn share: the items they may learn from and choose on, and scores as shares of right answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pools.errors import UserError
from pools.mdp.tree import Tree
from routers.registry import RouterRequest

HELD_OUT_EVERY = 5


def items_to_learn_from(request: RouterRequest, name: str, hops: int | None = None) -> tuple[Tree, Tree]:
    """Trees of the items to fit on and of those to choose hyper-parameters on, which are others.

    The request's train and validation items; where there are no validation items, every fifth train item is held out.
    hops: only the responses of so many hops are needed; by default all.
    Raises UserError where there is nothing to learn from, and for an argument.
    """
    if request.argument:
        raise UserError(f"router {name} takes no argument, got {request.argument!r}")
    tree, validation = request.train, request.validation
    if tree is None or request.cost_model is None or not tree.items:
        raise UserError(f"router {name} learns from train items, and there are none: raise --limit, or add tasks")
    if not tree.known[:, tree.depth <= (tree.max_hops if hops is None else hops)].all():
        raise UserError(f"router {name} learns from every model's responses: evaluate it on a recording, not --live")
    if validation is not None and validation.items:
        return tree, validation
    numbers = np.arange(len(tree.items))
    held_out = numbers % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return (tree.subset(numbers[~held_out]), tree.subset(numbers[held_out])) if held_out.any() else (tree, tree)


class Constant:
    """A classifier that always gives the same chance."""

    def __init__(self, chance: float) -> None:
        self.chance = chance

    def predict_proba(self, features: ArrayLike) -> NDArray[np.float64]:
        """`[n, 2]` chances of wrong and right."""
        return np.tile([1 - self.chance, self.chance], (len(np.asarray(features)), 1))


def fit_share(features: NDArray[Any], score: NDArray[np.float64], strength: float = 1.0) -> Any:
    """Logistic regression of scores `[n]` in [0, 1] on features `[n, f]`; gives what has `predict_proba`.

    A score between 0 and 1 counts as right and wrong in proportion.
    """
    from sklearn.linear_model import LogisticRegression

    weight = np.concatenate([score, 1 - score])
    used, right = weight > 0, np.repeat([1, 0], len(score))
    if len(set(right[used].tolist())) < 2:  # always right, or always wrong
        return Constant(float(score.mean()))
    model = LogisticRegression(C=strength, max_iter=1000)
    return model.fit(np.concatenate([features, features])[used], right[used], weight[used])
