"""Queries of many clients: in batches of all that wait for local models, a thread for each where servers answer."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from harness.evaluation.rollout import ALONE, rollout
from pools.errors import QueryError, UserError
from pools.models.api import Waiting, asked_by
from pools.types import UpstreamError

if TYPE_CHECKING:
    from harness.serving.routed import Query, Routed
    from pools.mdp.tree import Tree

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
    """The last response of an episode, and the hops that led to it. routing_cost: of the router's encoder, if any."""

    response: str
    finish_reason: str
    hops: tuple[Hop, ...]
    routing_cost: float

    @property
    def cost(self) -> float:
        """Of all hops."""
        return sum(hop.cost for hop in self.hops)


Bill = Callable[[Sequence[Hop], float], None]
"""Is told of the calls that a batch made, each once, and the cost of the router's own encoder."""


class Overloaded(Exception):
    """So many queries wait that one more is not taken."""


class Awaited(Future[Answer]):
    """The answer to a query, for which somebody waits some seconds. To cancel it says that nobody does, at any time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.waiting = Waiting(time.monotonic() + seconds)

    def cancel(self) -> bool:
        """As of every future; servers that are being asked for it are asked no longer."""
        with suppress(InvalidStateError):  # said before
            self.waiting.gone.set_result(None)
        return super().cancel()


class Dispatcher:
    """Answers queries in the order in which they came, at most `batch_size` at a time.

    Models in this process are asked by one thread that takes all that waits as one batch. Where every model is behind a
    server, as many threads take one query each, so that nobody waits for what a server fails at or takes long over.
    open: makes router and models, in the first thread. waiting: how many queries may wait.
    A future that is cancelled gives up its place at once. bill: see `Bill`; called in the threads.
    """

    def __init__(self, open: Callable[[], Routed], batch_size: int = 64, waiting: int = 256) -> None:
        self._open, self._batch_size, self._room = open, batch_size, waiting
        self._waiting: dict[Awaited, Query] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._ready: Future[Routed] = Future()
        self._taken = 0
        self._deciding: AbstractContextManager[Any] = ALONE
        self.bill: Bill = _nobody
        self._threads = [threading.Thread(target=self._begin, name="dispatcher", daemon=True)]
        self._threads[0].start()

    def ready(self) -> Routed:
        """What answers, once it has been made. Raises the UserError of what could not be."""
        return self._ready.result()

    def submit(self, query: Query, seconds: float = math.inf) -> Awaited:
        """The answer to come; models are asked for so many seconds. Raises Overloaded where too many queries wait."""
        future = Awaited(seconds)
        with self._changed:
            if len(self._waiting) >= self._room:
                raise Overloaded
            self._waiting[future] = query
            self._changed.notify()
        future.add_done_callback(self._forget)
        return future

    @property
    def length(self) -> int:
        """Queries that wait."""
        return len(self._waiting)

    def close(self, seconds: float | None = None) -> bool:
        """Answer what waits, and end; whether that was done in so many seconds. What still waits then is cancelled."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        until = math.inf if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if seconds is None else max(0.0, until - time.monotonic()))
        with self._changed:
            left = list(self._waiting)
        for future in left:
            future.cancel()
        return not any(thread.is_alive() for thread in self._threads)

    def _forget(self, future: Future[Answer]) -> None:
        with self._changed:
            self._waiting.pop(future, None)  # type: ignore[call-overload]

    def _begin(self) -> None:
        try:
            routed = self._open()
            if routed.behind_servers():
                self._deciding, at_once, self._batch_size = threading.Lock(), self._batch_size, 1
                more = [threading.Thread(target=self._work, args=(routed,), daemon=True) for _ in range(at_once - 1)]
                self._threads += more
                try:
                    for thread in more:
                        thread.start()
                except RuntimeError:  # the system gives no more
                    raise UserError(f"--batch-size {at_once}: no room for so many threads; name fewer") from None
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(routed)
        self._work(routed)

    def _work(self, routed: Routed) -> None:
        while batch := self._take():
            self._answer(routed, *batch)

    def _take(self) -> tuple[int, list[tuple[Query, Awaited]]] | None:
        """The next batch, once something waits, and how many were taken before; None at the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                taken = list(islice(self._waiting.items(), self._batch_size))
                for future, _ in taken:
                    del self._waiting[future]
                if not taken:
                    return None
                before = self._taken
                self._taken += len(taken)
            batch = [(query, future) for future, query in taken if future.set_running_or_notify_cancel()]
            if batch:
                return before, batch

    def _answer(self, routed: Routed, seed: int, batch: Sequence[tuple[Query, Awaited]]) -> None:
        try:
            with asked_by(_all(future.waiting for _, future in batch)):
                answers = answer(routed, [query for query, _ in batch], seed, self.bill, self._deciding)
        except Exception as error:  # whatever a model's library raises
            self._fail(routed, seed, batch, error)
        else:
            for (_, future), made in zip(batch, answers, strict=True):
                future.set_result(made)

    def _fail(self, routed: Routed, seed: int, batch: Sequence[tuple[Query, Awaited]], error: Exception) -> None:
        """Fail the queries that an error is of; answer the others that are awaited, alone if nobody knows of which."""
        of = error.queries if isinstance(error, UpstreamError) else ()
        culprits = [one for one in batch if len(batch) == 1 or one[0] in of]
        others = [one for one in batch if one not in culprits and one[1].waiting.left]
        for _, future in culprits:
            if isinstance(error, UserError) and not isinstance(error, QueryError) and not future.waiting.left_early:
                _log.error("%s", " ".join(str(error).split()))  # whoever asked is not told
        for one in batch:
            if one not in others:
                one[1].set_exception(error)
        for number, group in enumerate([others] if culprits else [[one] for one in others]):
            if group:
                self._answer(routed, seed + number, group)


def _all(waiting: Iterable[Waiting]) -> Waiting:
    """Until the last of them waits no more."""
    several = list(waiting)
    if len(several) == 1:
        return several[0]
    gone: Future[None] = Future()
    left, lock = len(several), threading.Lock()

    def leave(_: Future[None]) -> None:
        nonlocal left
        with lock:
            left -= 1
            if not left:
                gone.set_result(None)

    for one in several:
        one.gone.add_done_callback(leave)
    return Waiting(max(one.until for one in several), gone, alone=True)


def _nobody(calls: Sequence[Hop], routing_cost: float) -> None:
    """The bill that nobody reads."""


def answer(
    routed: Routed,
    queries: Sequence[Query],
    seed: int = 0,
    bill: Bill = _nobody,
    deciding: AbstractContextManager[Any] = ALONE,
) -> list[Answer]:
    """The episode of each query; equal ones share theirs. deciding: see `rollout`.

    Raises UserError where a model cannot answer. The calls that were made are billed then, too.
    """
    distinct = {query: index for index, query in enumerate(dict.fromkeys(queries))}
    tree, routing_cost = routed.tree(list(distinct)), 0.0
    try:
        episodes = rollout(routed.router, tree, routed.cost_model, seed, deciding=deciding)
        routing_cost = float(episodes.routing_cost.sum())
    finally:
        bill(calls(routed, tree), routing_cost)
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


def calls(routed: Routed, tree: Tree) -> list[Hop]:
    """The calls that made what is known of a tree: equal requests were one."""
    made = []
    for model, name in enumerate(tree.models):
        generations = [generation for _, _, generation in tree.generations(model)]
        tokens_in, tokens_out = [g.tokens_in for g in generations], [g.tokens_out for g in generations]
        costs = routed.cost_model.hop_cost(model, tokens_in, tokens_out).tolist()
        made += [Hop(name, *counts) for counts in zip(tokens_in, tokens_out, costs, strict=True)]
    return made
