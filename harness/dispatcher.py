"""Queries of many clients, answered together: one thread owns router and models and takes all that has queued up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pools.errors import UserError

if TYPE_CHECKING:
    from harness.routed import Query, Routed


@dataclass(frozen=True)
class Hop:
    """One call of a model. cost: in the pool's unit."""

    model: str
    tokens_in: int
    tokens_out: int
    cost: float


@dataclass(frozen=True)
class Answer:
    """The last response of an episode, and the hops that led to it. routing_cost: of the router's encoder, if any."""

    response: str
    finish_reason: str
    hops: tuple[Hop, ...]
    routing_cost: float

    @property
    def cost(self) -> float:
        """Of all hops."""
        return sum(hop.cost for hop in self.hops)


class Overloaded(Exception):
    """So many queries wait that one more is not taken."""


class Dispatcher:
    """Answers queries in batches of at most `batch_size`, in the order in which they came.

    open: makes router and models, in the thread that will use them. waiting: how many queries may wait.
    """

    def __init__(self, open: Callable[[], Routed], batch_size: int = 64, waiting: int = 256) -> None:
        self._open, self._batch_size = open, batch_size
        self._queue: queue.Queue[tuple[Query, Future[Answer]] | None] = queue.Queue(waiting)
        self._ready: Future[Routed] = Future()
        self._answered = 0
        self._thread = threading.Thread(target=self._work, name="dispatcher", daemon=True)
        self._thread.start()

    def ready(self) -> Routed:
        """What answers, once it has been made. Raises the UserError of what could not be."""
        return self._ready.result()

    def submit(self, query: Query) -> Future[Answer]:
        """The answer to come. Raises Overloaded where too many queries wait already."""
        future: Future[Answer] = Future()
        try:
            self._queue.put_nowait((query, future))
        except queue.Full:
            raise Overloaded from None
        return future

    @property
    def length(self) -> int:
        """Queries that wait."""
        return self._queue.qsize()

    def close(self) -> None:
        """Answer what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            routed = self._open()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(routed)
        going = True
        while going:
            batch = []
            taken = self._queue.get()
            while taken is not None:
                if taken[1].set_running_or_notify_cancel():  # else its client is gone
                    batch.append(taken)
                if len(batch) == self._batch_size or self._queue.empty():
                    break
                taken = self._queue.get()
            going = taken is not None
            if batch:
                self._answer(routed, batch)

    def _answer(self, routed: Routed, batch: Sequence[tuple[Query, Future[Answer]]]) -> None:
        try:
            answers = answer(routed, [query for query, _ in batch], self._answered)
        except Exception as error:
            if len(batch) > 1 and isinstance(error, UserError):
                for alone in batch:  # one of them cannot be answered: which?
                    self._answer(routed, [alone])
                return
            for _, future in batch:
                future.set_exception(error)
            return
        self._answered += len(batch)
        for (_, future), made in zip(batch, answers, strict=True):
            future.set_result(made)


def answer(routed: Routed, queries: Sequence[Query], seed: int = 0) -> list[Answer]:
    """The episode of each query; equal ones share theirs. Raises UserError where a model cannot answer."""
    distinct = {query: index for index, query in enumerate(dict.fromkeys(queries))}
    tree, episodes = routed.answer(list(distinct), seed)
    made = []
    for index, node in enumerate(episodes.node.tolist()):
        hops, here = [], node
        while here:
            generation, model = tree.generation(index, here), int(tree.action(here))
            cost = float(tree.hop_cost(routed.cost_model, index, here))
            hops.append(Hop(tree.models[model], generation.tokens_in, generation.tokens_out, cost))
            here = int(tree.parent(here))
        last = tree.generation(index, node)
        own = float(episodes.routing_cost[index])
        made.append(Answer(last.response, last.finish_reason, tuple(reversed(hops)), own))
    return [made[distinct[query]] for query in queries]
