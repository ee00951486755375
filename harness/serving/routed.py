"""A router over a pool as one model: what answers queries that belong to no task, for lm-eval and for serving."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.runs.checkpoints import shipped_checkpoint, shipped_path
from harness.runs.manifest import origin
from harness.runs.routers import UNTRAINED
from harness.runs.source import (
    DEFAULT_HOPS,
    RESULTS,
    check_positive,
    check_weights_folder,
    lessons_for,
    open_source,
    same_models,
)
from pools.cost import COST_WEIGHT, MAX_RATE, CostModel
from pools.data.recording import RecordedGenerator
from pools.data.store import TransitionStore
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.models.generator import LiveGenerator
from pools.models.progress import Progress
from pools.pool import Pool, load_pool
from pools.types import Context, GenerationSettings, Generator, Item
from routers import Router, RouterRequest, RoutingStates, load
from routers.checkpoint import read_checkpoint
from routers.registry import explores, learns, registered_name, row_name
from routers.router import VotingRouter, callable_models

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
        """Whether servers answer for every model that the router may call, so that the queries need no batches."""
        return isinstance(self.generator, LiveGenerator) and self.generator.behind_servers(self._called())

    def warm_up(self) -> None:
        """Load what the router may call, so that what is missing is said now, and no first client waits for it."""
        if isinstance(self.generator, LiveGenerator):
            for model in self._called():
                self.generator.language_model(model)
        with suppress(UserError):  # of a router that knows recorded queries alone
            actions = np.full((1, self.max_hops), -1)
            self.router.act(RoutingStates([Context("Hello")], np.zeros(1, np.int64), np.zeros(1), actions))

    def _called(self) -> list[int]:
        return callable_models(self.router, len(self.pool.models))


def routed(
    router: str,
    pool: str,
    *,
    recording: Path | None = None,
    train_on: Path | None = None,
    weights: Path | None = None,
    store: Path | None = None,
    checkpoint: Path | None = None,
    max_hops: int | None = None,
    allow_stop: bool = True,
    cost: str = "paper",
    cost_weight: float = COST_WEIGHT,
    seed: int = 1,
    say: Callable[[str], None] = lambda text: None,
    on_progress: Progress | None = None,
) -> Routed:
    """A router over a pool by their names.

    recording: folder to replay; else the models answer, their weights in `weights`, and what they answered is kept in
    `store`, if one is named. A router that learns is `checkpoint`, or learns from the train items of `train_on`, a
    recording of models of the same names; without either it is what ships for the pool and `seed`, and if nothing does,
    one that learns in moments does so from `recording`, or from the pool's that ships.
    max_hops: by default those of the checkpoint, of what is learnt from or of the recording, else 3. cost: the cost
    model's name. say: is told what is learnt from, and how long that took. on_progress: of live models,
    as `pools.models.progress` has it.
    Raises UserError for what is not there, or does not fit together.
    """
    if not 0 <= cost_weight <= MAX_RATE:
        raise UserError(f"--cost-weight {cost_weight}: expected a number >= 0, and at most {MAX_RATE:g}")
    if checkpoint is not None and not learns(router):
        raise UserError(f"router {router} learns nothing, so it has no checkpoint; omit --checkpoint")
    if train_on is not None and checkpoint is not None:
        raise UserError("--checkpoint is of a router that has learnt, and --train-on is for one to learn; name one")
    check_positive(max_hops=max_hops)
    if train_on is not None and registered_name(router) in UNTRAINED:
        raise UserError(f"router {router} learns nothing; omit --train-on")
    name = row_name(router)
    generator: Generator
    recorded = None if recording is None else open_source(recording=recording, cost=cost)
    if recorded is not None:
        of_pool, hops, generator = recorded.pool, recorded.tree.max_hops, RecordedGenerator(recorded.tree)
    else:
        check_weights_folder(weights)
        of_pool, hops = load_pool(pool), DEFAULT_HOPS
        kept = None if store is None else TransitionStore(store, origin(of_pool))
        generator = LiveGenerator(of_pool, weights, kept, progress=on_progress)
    shipped = RESULTS / "recordings" / f"{of_pool.name}-offline"
    if learns(router) and train_on is None:
        checkpoint = checkpoint or shipped_path(shipped.name, router, seed)
    lessons = None
    if train_on is not None:
        lessons = open_source(recording=train_on)
        hops = lessons.tree.max_hops
    elif checkpoint is not None:
        hops = read_checkpoint(checkpoint).header.problem.max_hops
    elif registered_name(router) not in UNTRAINED and not explores(router):
        known = recorded or (open_source(recording=shipped) if shipped.is_dir() else None)
        if known is not None and same_models(known.pool.models, of_pool.models):
            lessons = known if known.tree.max_hops >= (hops if max_hops is None else max_hops) else None
    hops = hops if max_hops is None else max_hops
    cost_model = of_pool.cost_model(cost)
    lessons = None if lessons is None else lessons_for(lessons, of_pool, hops, cost_model)
    request = RouterRequest(
        models=of_pool.model_names,
        max_hops=hops,
        allow_stop=allow_stop,
        cost_model=cost_model,
        cost_weight=cost_weight,
        seed=seed,
        weights=weights,
        train=None if lessons is None else lessons.tree.select("train"),
        validation=None if lessons is None else lessons.tree.select("validation"),
    )
    if train_on is not None and lessons is not None and learns(router):
        checkpoint = shipped_checkpoint(router, {}, request, lessons, whole=True)
    if learns(router) and checkpoint is None:
        if lessons is None:
            nothing = "" if explores(router) else ", nor a recording of it to learn from in moments"
            raise UserError(
                f"no checkpoint of router {router} ships for pool {of_pool.name} and seed {seed}{nothing}; name a "
                "recording to learn from (--train-on), or a checkpoint (--checkpoint), which python -m harness train "
                "makes"
            )
        items = sum(item.split == "train" for item in lessons.tree.items)
        say(f"training {name} on {items} items of {lessons.description['recording']} ...")
    start = time.perf_counter()
    made = load(router, request, checkpoint=checkpoint)
    if isinstance(made, VotingRouter):
        raise UserError(f"{router} asks every model and routes nothing; it is evaluated by python -m harness run")
    if learns(router):
        took = f"trained in {time.perf_counter() - start:.1f} s"
        say(f"{name}: {took if checkpoint is None else f'the policy {checkpoint}'}")
    told = [] if recorded is None else [item for item in recorded.tree.items if item.prefill]
    begun = {item.query + item.prefill: (item.query, item.prefill) for item in told}
    if isinstance(generator, LiveGenerator):
        generator.expect(callable_models(made, len(of_pool.models)))
    return Routed(name, made, of_pool, generator, cost_model, hops, begun)
