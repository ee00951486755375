"""How often the intervals of `estimate` hold the truth: on logs drawn from a recording, which knows all answers.

A log draws test items, and a model for each, with known probabilities. python benchmarks/off_policy_coverage.py prints
the table of docs/results/traffic.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from harness.evaluation.evaluate import action_probabilities
from harness.evaluation.off_policy import (
    Logged,
    cross_fitted,
    doubly_robust_outcomes,
    effective_requests,
    inverse_propensity,
    lack_of_overlap,
    mean_estimate,
    ridge_outcomes,
    self_normalised,
)
from harness.evaluation.rollout import states_at
from pools.data.recording import load_recording
from pools.types import Context
from routers import RouterRequest, load
from routers.encoders.base import ContextEncoder, build_encoder

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
WAYS = ("inverse propensity", "self-normalised", "doubly robust")


@dataclass(frozen=True)
class Options:
    """What is measured."""

    recording: Path = Path("results/recordings/lightweight-offline")
    """The recording; its first hop is what models answer."""
    routers: tuple[str, ...] = ("ridge", "random")
    """Routers to estimate; those that learn do so on its train items."""
    calls: tuple[int, ...] = (300, 600, 1200, 2400)
    """Lengths of logs."""
    rarest: tuple[float, ...] = (1.0, 0.25)
    """How probable the most expensive model is in the log, relative to each other model."""
    logs: int = 400
    """Logs of each kind."""
    cost_weight: float = 2.0
    """The lambda of the value, whose intervals are measured."""


def main(options: Options) -> None:
    """Print a row for each router, kind of log and length."""
    tree = load_recording(options.recording).tree.shortened(1)
    models, test = len(tree.models), tree.select("test")
    value = test.score[:, 1:] - options.cost_weight * test.cost[:, 1:]
    expensive = test.cost[:, 1:].mean(axis=0).argmax()
    queries = [Context(item.query) for item in test.items]
    vectors = ContextEncoder(build_encoder("hashing", queries), ("query",))(queries)
    request = RouterRequest(
        models=tree.models, cost_model=tree.cost_model, cost_weight=options.cost_weight, train=tree.select("train"),
        validation=tree.select("validation"),
    )  # fmt: skip
    numbers = np.arange(len(queries))
    states = states_at(test, numbers, 0 * numbers, np.zeros(len(queries)), test.pipelines())
    print("| router | rarest model | calls | effective | refused | " + " | ".join(f"{w} | width" for w in WAYS) + " |")
    print("|---|" + "---:|" * (4 + 2 * len(WAYS)))
    for name in options.routers:
        policy = action_probabilities(load(name, request), states, models)[:, :models]
        truth = float((policy * value).sum(axis=1).mean())
        for rarest in options.rarest:
            logging = np.where(np.arange(models) == expensive, rarest, 1.0)
            for calls in options.calls:
                rows = [
                    measured(np.random.default_rng(n), calls, logging / logging.sum(), policy, value, vectors)
                    for n in range(options.logs)
                ]
                effective, refused, estimates = (np.array(column) for column in zip(*rows, strict=True))
                cells = [f"{effective.mean():,.0f}", f"{refused.mean():.0%}"]
                for way in range(len(WAYS)):
                    low, high = estimates[:, way].T
                    cells += [f"{((low <= truth) & (truth <= high)).mean():.1%}", f"{(high - low).mean():.3f}"]
                share = f"{logging.min() / logging.sum():.1%}"
                print(f"| {name} | {share} | {calls:,} | " + " | ".join(cells) + " |", flush=True)


def measured(
    drawn: np.random.Generator,
    calls: int,
    logging: FloatArray,
    policy: FloatArray,
    value: FloatArray,
    vectors: NDArray[np.float32],
) -> tuple[float, bool, list[tuple[float, float]]]:
    """Of one log: the router's effective requests, whether it is refused, and the intervals of its value."""
    query = drawn.integers(len(policy), size=calls)
    action = drawn.choice(len(logging), size=calls, p=logging)
    logged, seen = Logged(action, logging[action], np.arange(calls)), value[query, action]

    def predict(known: IntArray, wanted: IntArray) -> FloatArray:
        outcome = seen[known][:, None]
        return ridge_outcomes(vectors[query[known]], action[known], outcome, vectors[query[wanted]], len(logging))

    robust = doubly_robust_outcomes(cross_fitted(predict, logged.item, 1)[..., 0], seen, logged)
    weights = logged.weights(policy[query])
    estimates = (
        inverse_propensity(weights, seen, logged.item),
        self_normalised(weights, seen, logged.item),
        mean_estimate((policy[query] * robust).sum(axis=1), logged.item),
    )
    refused = bool(lack_of_overlap(weights, logged.item))
    return effective_requests(weights, logged.item), refused, [(e.low, e.high) for e in estimates]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
