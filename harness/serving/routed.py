"""A router over a pool as one model: what answers queries that belong to no task, for lm-eval and for serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.runs.checkpoints import shipped_path
from harness.runs.manifest import origin
from harness.runs.source import DEFAULT_HOPS, RESULTS, check_weights_folder, same_models
from pools.cost import COST_WEIGHT, MAX_RATE, CostModel
from pools.data.recording import RecordedGenerator, load_recording
from pools.data.store import TransitionStore
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.models.generator import LiveGenerator
from pools.pool import Pool, load_pool
from pools.types import Context, GenerationSettings, Generator, Item
from routers import Router, RouterRequest, RoutingStates, load
from routers.checkpoint import read_checkpoint
from routers.registry import explores, learns, row_name
from routers.router import VotingRouter

Query = tuple[str, GenerationSettings]


@dataclass(frozen=True)
class Routed:
    """A router, the pool that it routes over, and what answers for the pool: the models, or a recording of them.

    begun: of the recorded questions that an answer's beginning belongs to, by both as one text: the two apart.
    """

    name: str
    router: Router
    pool: Pool
    generator: Generator
    cost_model: CostModel
    max_hops: int
    begun: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def tree(self, queries: Sequence[Query]) -> Tree:
        """The tree of these queries, of which nothing is known yet."""
        apart = [(*self.begun.get(text, (text, "")), settings) for text, settings in queries]
        items = [
            Item("query", n, query, settings, "test", prefill=prefill)
            for n, (query, prefill, settings) in enumerate(apart)
        ]
        unscored = lambda answers: [0.0] * len(answers)  # noqa: E731
        return Tree(items, self.pool.model_names, self.max_hops, self.cost_model, self.generator, unscored)

    def behind_servers(self) -> bool:
        """Whether servers answer for every model, so that the queries need no batches."""
        return isinstance(self.generator, LiveGenerator) and self.generator.behind_servers()

    def warm_up(self) -> None:
        """Load what answers, so that what is missing is said now, and no first client waits for it."""
        if isinstance(self.generator, LiveGenerator):
            for model in range(len(self.pool.models)):
                self.generator.language_model(model)
        with suppress(UserError):  # of a router that knows recorded queries alone
            actions = np.full((1, self.max_hops), -1)
            self.router.act(RoutingStates([Context("Hello")], np.zeros(1, np.int64), np.zeros(1), actions))


def routed(
    router: str,
    pool: str,
    *,
    recording: Path | None = None,
    weights: Path | None = None,
    store: Path | None = None,
    checkpoint: Path | None = None,
    max_hops: int | None = None,
    allow_stop: bool = True,
    cost: str = "paper",
    cost_weight: float = COST_WEIGHT,
    seed: int = 1,
) -> Routed:
    """A router over a pool by their names.

    recording: folder to replay; else the models answer, their weights in `weights`, and what they answered is kept in
    `store`, if one is named. A router that learns is `checkpoint`, or what ships for the pool and `seed`; if nothing
    does, one that learns in moments does so from the recording, or from the pool's that ships.
    max_hops: by default the recording's or the checkpoint's, else 3. cost: the cost model's name.
    Raises UserError for what is not there, or does not fit together.
    """
    if not 0 <= cost_weight <= MAX_RATE:
        raise UserError(f"--cost-weight {cost_weight}: expected a number >= 0, and at most {MAX_RATE:g}")
    generator: Generator
    known = None
    if recording is not None:
        known = load_recording(recording, cost)
        of_pool, hops, generator = known.pool, known.tree.max_hops, RecordedGenerator(known.tree)
    else:
        check_weights_folder(weights)
        of_pool, hops = load_pool(pool), DEFAULT_HOPS
        generator = LiveGenerator(of_pool, weights, None if store is None else TransitionStore(store, origin(of_pool)))
    shipped = RESULTS / "recordings" / f"{of_pool.name}-offline"
    if learns(router):
        checkpoint = checkpoint or shipped_path(shipped.name, router, seed)
    elif checkpoint is not None:
        raise UserError(f"router {router} learns nothing, so it has no checkpoint; omit --checkpoint")
    if checkpoint is not None:
        hops = read_checkpoint(checkpoint).header.problem.max_hops
    elif known is None and not explores(router) and shipped.is_dir():
        known = load_recording(shipped, cost)
    hops = max_hops or hops
    fits = known is not None and same_models(known.pool.models, of_pool.models) and known.tree.max_hops >= hops
    tree = known.tree.shortened(hops) if known is not None and fits else None
    request = RouterRequest(
        models=of_pool.model_names,
        max_hops=hops,
        allow_stop=allow_stop,
        cost_model=of_pool.cost_model(cost),
        cost_weight=cost_weight,
        seed=seed,
        weights=weights,
        train=None if tree is None else tree.select("train"),
        validation=None if tree is None else tree.select("validation"),
    )
    if learns(router) and checkpoint is None and (tree is None or explores(router)):
        raise UserError(
            f"no checkpoint of router {router} ships for pool {of_pool.name} and seed {seed}; name one (--checkpoint), "
            "which python -m harness train makes"
        )
    made = load(router, request, checkpoint=checkpoint)
    if isinstance(made, VotingRouter):
        raise UserError(f"{router} asks every model and routes nothing; it is evaluated by python -m harness run")
    items = [] if recording is None or known is None else known.tree.items
    begun = {item.query + item.prefill: (item.query, item.prefill) for item in items if item.prefill}
    return Routed(row_name(router), made, of_pool, generator, of_pool.cost_model(cost), hops, begun)
