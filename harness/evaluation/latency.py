"""How long users wait: the seconds of whole pipelines, their quantiles, and the router's own share by a clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation import router_output
from harness.evaluation.rollout import draw_actions, states_at
from pools.mdp.tree import Tree
from routers.encoders.cache import forget
from routers.router import Router, VotingRouter

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
EPISODES = 32
"""Of so many items the router's own decisions are timed."""
MAX_WEIGHTS = 100_000_000
"""Resamples times episodes up to which the quantile of each resample is exact."""
THRESHOLDS = 256
"""Else it is one of so many seconds."""


@dataclass(frozen=True)
class Waits:
    """The episodes that the items may have, `E` in all; a deterministic router has one for each item.

    item: `[E]`. seconds: `[E]` of all calls, one after another; of a vote, whose calls need no answer of each other,
    the longest. hops: `[E]` calls made. chance: `[E]`, those of an item sum to 1. items: how many there are.
    """

    item: IntArray
    seconds: FloatArray
    hops: FloatArray
    chance: FloatArray
    items: int

    @property
    def mean(self) -> FloatArray:
        """`[I]` expected seconds."""
        return np.asarray(np.bincount(self.item, self.chance * self.seconds, self.items), np.float64)


def waits_of(tree: Tree, end: FloatArray) -> Waits:
    """Those of a router whose episodes end at each node with the probabilities `end` `[I, N]`."""
    item, node = np.nonzero(end)
    hops = tree.depth[node].astype(np.float64)
    return Waits(item, tree.path_seconds(item, node), hops, end[item, node], len(tree.items))


def waits_of_items(seconds: FloatArray) -> Waits:
    """One episode for each item, of so many seconds `[I]`; the calls made are not known, and none."""
    ones = np.ones(len(seconds))
    return Waits(np.arange(len(seconds)), seconds, 0 * ones, ones, len(seconds))


def mean_waits(several: Sequence[Waits]) -> Waits:
    """Those of one of several routers over the same items, drawn with equal chances for each item."""
    item, seconds, hops, chance = (
        np.concatenate([getattr(waits, name) for waits in several]) for name in ("item", "seconds", "hops", "chance")
    )
    return Waits(item, seconds, hops, chance / len(several), several[0].items)


def quantile(waits: Waits, p: float, weights: FloatArray | None = None) -> FloatArray:
    """`[R]` the p-quantile of the seconds, for weights `[R, I]` of the items; by default `[1, I]`, the same for each.

    The least number of seconds that a share of at least `p` of the episodes does not exceed, each episode with its
    item's weight times its chance: the inverse of the distribution function (definition 1 of Hyndman and Fan, 1996).
    Of more than `MAX_WEIGHTS` weights of episodes, the quantile is the next of `THRESHOLDS` seconds, which have equal
    steps of share from `2 p - 1` on.
    """
    if weights is None:
        weights = np.full((1, waits.items), 1 / waits.items)
    order = np.argsort(waits.seconds, kind="stable")
    item, seconds, chance = waits.item[order], waits.seconds[order], waits.chance[order]
    if len(weights) * len(order) > MAX_WEIGHTS:
        shares = np.linspace(2 * p - 1, 1, THRESHOLDS)
        below = (chance / waits.items).cumsum()
        thresholds = np.unique(seconds[np.searchsorted(below, shares - 1e-9).clip(max=len(order) - 1)])
        longest = np.searchsorted(thresholds, seconds).clip(max=len(thresholds) - 1)
        within = np.zeros((waits.items, len(thresholds)))
        np.add.at(within, (item, longest), chance)
        return np.asarray(thresholds[_first(weights @ within, p)])
    block = max(1, MAX_WEIGHTS // (10 * len(order)))
    parts = [weights[start : start + block][:, item] * chance for start in range(0, len(weights), block)]
    return np.concatenate([seconds[_first(part, p)] for part in parts])


def _first(weights: FloatArray, p: float) -> IntArray:
    """`[R]` the first column up to which the rows of `weights` `[R, S]` have the share `p` of their sums."""
    total = weights.cumsum(axis=1)
    # Shares that are equal may differ in their last bits.
    return np.asarray((total >= (p - 1e-9) * total[:, -1:]).argmax(axis=1))


def tail_hops(waits: Waits, p: float) -> float:
    """Mean number of calls of the episodes that take as long as the p-quantile, or longer."""
    tail = waits.seconds >= quantile(waits, p)
    return float(waits.chance[tail] @ waits.hops[tail] / waits.chance[tail].sum())


def decision_seconds(router: Router, tree: Tree, end: FloatArray, seed: int) -> float:
    """What a router takes for all decisions of an episode, by this machine's clock: the median of some items.

    One state at a time, along the pipeline that is the likeliest to be the last, `end` `[I, N]`. Embeddings that other
    decisions left behind are forgotten before each item.
    """
    generator = np.random.default_rng(seed)
    models, pipelines, taken = len(tree.models), tree.pipelines(), []
    chosen = np.unique(np.linspace(0, len(tree.items) - 1, EPISODES).astype(np.int64))
    for item in chosen.tolist():
        forget()
        if isinstance(router, VotingRouter):
            responses = [[tree.generation(item, node).response for node in tree.level(1).tolist()]]
            start = time.perf_counter()
            router_output.chosen_responses(router, responses, models)
            taken.append(time.perf_counter() - start)
            continue
        node, cost, spent = 0, 0.0, 0.0
        steps = [*tree.pipeline(int(end[item].argmax())), models]
        for action in steps[: tree.max_hops]:
            states = states_at(tree, np.array([item]), np.array([node]), np.array([cost]), pipelines)
            start = time.perf_counter()
            draw_actions(router, states, models, generator)
            spent += time.perf_counter() - start
            if action < models:
                node = int(tree.child(node, action))
                cost += float(tree.cost[item, node])
        taken.append(spent)
    return float(np.median(taken))
