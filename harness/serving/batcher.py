"""Queries of many clients: in batches of all that wait for local models, a thread for each where servers answer."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from harness.evaluation.rollout import ALONE, rollout
from harness.serving.metrics import ServingMetrics
from pools.errors import QueryError, UserError
from pools.models.api import Waiting, asked_by
from pools.types import Generation, UpstreamError

if TYPE_CHECKING:
    from harness.serving.routed import Query, Routed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hop:
    """One call of a model. cost: in the pool's unit."""

    model: str
    tokens_in: int
    tokens_out: int
    cost: float


@dataclass(frozen=True)
class Answer:
    """The last response of an episode, and the hops that led to it. routing_cost: of the router's encoder, if any.

    propensity: the probability with which the router chose these hops.
    """

    response: str
    finish_reason: str
    hops: tuple[Hop, ...]
    routing_cost: float
    propensity: float

    @property
    def cost(self) -> float:
        """Of all hops."""
        return sum(hop.cost for hop in self.hops)


class Overloaded(Exception):
    """So many queries wait that one more is not taken."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """A query, the future of its answer, and how long somebody waits for that; `waiting.gone` is the future."""

    query: Query
    future: Future[Any]
    waiting: Waiting


class Dispatcher:
    """Answers queries in the order in which they came, at most `batch_size` at a time.

    Models in this process are asked by one thread that takes all that waits as one batch. Where every model is behind a
    server, as many threads take one query each, so that nobody waits for what a server fails at or takes long over.
    waiting: how many queries may wait. seed: of what a router draws, other numbers for each query. metrics: are told of
    each call that was made, once, whatever became of it.
    """

    def __init__(self, routed: Routed, batch_size: int = 64, waiting: int = 256, seed: int = 0) -> None:
        self.routed = routed
        self.metrics = ServingMetrics(routed.cost_model.unit, lambda: len(self._waiting))
        self._waiting: dict[Future[Any], _Asked] = {}
        self._changing = threading.Lock()
        self._room, self._seeds = waiting, count(seed << 32)
        servers = routed.behind_servers()
        self._batch_size = 1 if servers else batch_size
        self._deciding: AbstractContextManager[Any] = threading.Lock() if servers else ALONE
        self._threads = ThreadPoolExecutor(batch_size if servers else 1)
        self._at_work: set[Future[None]] = set()

    def submit(self, query: Query, seconds: float = math.inf) -> Future[Answer]:
        """The answer to come; models are asked for so many seconds. Raises Overloaded if too many wait, or once closed.

        To cancel the future says that nobody waits for it any more, at any time: it gives up its place, and servers
        that are being asked for it are asked no longer.
        """
        future: Future[Any] = Future()  # never marked as running, so that it can be cancelled until it is answered
        with self._changing:
            if len(self._waiting) >= self._room:
                raise Overloaded
            try:
                work = self._threads.submit(self._work)  # which waits for the query below
            except RuntimeError:  # closed
                raise Overloaded from None
            self._waiting[future] = _Asked(query, future, Waiting(time.monotonic() + seconds, future))
        future.add_done_callback(self._forget)
        self._at_work.add(work)
        work.add_done_callback(self._at_work.discard)
        return future

    def close(self, seconds: float | None = None) -> bool:
        """End with what is being answered, and not with what waits; whether that was done in so many seconds."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not wait(list(self._at_work), seconds).not_done

    def _forget(self, future: Future[Answer]) -> None:
        with self._changing:
            self._waiting.pop(future, None)

    def _work(self) -> None:
        """Answer a batch of what waits, if anything does: an earlier batch may have taken it."""
        with self._changing:
            batch = list(islice(self._waiting.values(), self._batch_size))
            for asked in batch:
                del self._waiting[asked.future]
        batches = [batch]
        while batches:
            awaited = [asked for asked in batches.pop() if not asked.future.done()]
            if awaited:
                batches += self._answer(awaited)

    def _answer(self, batch: list[_Asked]) -> list[list[_Asked]]:
        """Answer the queries. On an error, fail those that it is of, and return the others, to be tried again.

        If nobody knows of which it is, each is to be tried alone.
        """
        # Of several, servers are asked until the last one's time is up: a batch is not broken off for those that left.
        together = Waiting(max(asked.waiting.until for asked in batch), alone=True)
        try:
            with asked_by(batch[0].waiting if len(batch) == 1 else together):
                answers = self._episodes([asked.query for asked in batch])
        except Exception as error:  # whatever a model's library raises
            of = error.queries if isinstance(error, UpstreamError) else ()
            failed = batch if len(batch) == 1 else [asked for asked in batch if asked.query in of]
            for asked in failed:
                if isinstance(error, UserError) and not isinstance(error, QueryError) and not asked.waiting.left_early:
                    _log.error("%s", " ".join(str(error).split()))  # whoever asked is not told
                with suppress(InvalidStateError):  # cancelled meanwhile
                    asked.future.set_exception(error)
            others = [asked for asked in batch if asked not in failed]
            return [others] if failed else [[asked] for asked in others]
        for asked, answer in zip(batch, answers, strict=True):
            with suppress(InvalidStateError):
                asked.future.set_result(answer)
        return []

    def _episodes(self, queries: Sequence[Query]) -> list[Answer]:
        """The episode of each query. The calls that were made are billed, also if a model cannot answer."""
        routed, tree, routing_cost = self.routed, self.routed.tree(queries), 0.0
        try:
            episodes = rollout(routed.router, tree, next(self._seeds), deciding=self._deciding)
            routing_cost = float(episodes.routing_cost.sum())
        finally:
            models = range(len(tree.models))
            calls = [self._hop(model, generation) for model in models for _, _, generation in tree.generations(model)]
            self.metrics.called(calls, routing_cost)
        answers = []
        for index, node in enumerate(episodes.node.tolist()):
            pipeline = tree.pipeline(node)
            made = [tree.generation(index, tree.node(pipeline[: hop + 1])) for hop in range(len(pipeline))]
            hops = tuple(map(self._hop, pipeline, made))
            own, propensity = float(episodes.routing_cost[index]), float(episodes.chance[index])
            answers.append(Answer(made[-1].response, made[-1].finish_reason, hops, own, propensity))
        return answers

    def _hop(self, model: int, made: Generation) -> Hop:
        cost = self.routed.cost_model.hop_cost(model, made)
        return Hop(self.routed.pool.model_names[model], made.tokens_in, made.tokens_out, cost)
