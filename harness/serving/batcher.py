"""Queries of many clients, answered together: one thread owns router and models and takes all that has queued up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from harness.evaluation.rollout import rollout

if TYPE_CHECKING:
    from harness.serving.routed import Query, Routed
    from pools.mdp.tree import Tree


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


class Dispatcher:
    """Answers queries in batches of at most `batch_size`, in the order in which they came.

    open: makes router and models, in the thread that will use them. waiting: how many queries may wait.
    A future that is cancelled gives up its place at once. bill: see `Bill`; called in the thread.
    """

    def __init__(self, open: Callable[[], Routed], batch_size: int = 64, waiting: int = 256) -> None:
        self._open, self._batch_size, self._room = open, batch_size, waiting
        self._waiting: dict[Future[Answer], Query] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._ready: Future[Routed] = Future()
        self._answered = 0
        self.bill: Bill = _nobody
        self._thread = threading.Thread(target=self._work, name="dispatcher", daemon=True)
        self._thread.start()

    def ready(self) -> Routed:
        """What answers, once it has been made. Raises the UserError of what could not be."""
        return self._ready.result()

    def submit(self, query: Query) -> Future[Answer]:
        """The answer to come. Raises Overloaded where too many queries wait already."""
        future: Future[Answer] = Future()
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
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            left = list(self._waiting)
        for future in left:
            future.cancel()
        return not self._thread.is_alive()

    def _forget(self, future: Future[Answer]) -> None:
        with self._changed:
            self._waiting.pop(future, None)

    def _work(self) -> None:
        try:
            routed = self._open()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(routed)
        while batch := self._take():
            self._answer(routed, batch)

    def _take(self) -> list[tuple[Query, Future[Answer]]]:
        """The next batch, once something waits; none at the end."""
        batch: list[tuple[Query, Future[Answer]]] = []
        while not batch:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                taken = list(islice(self._waiting.items(), self._batch_size))
                for future, _ in taken:
                    del self._waiting[future]
            if not taken:
                break
            batch = [(query, future) for future, query in taken if future.set_running_or_notify_cancel()]
        return batch

    def _answer(self, routed: Routed, batch: Sequence[tuple[Query, Future[Answer]]]) -> None:
        try:
            answers = answer(routed, [query for query, _ in batch], self._answered, self.bill)
        except Exception as error:  # whatever a model's library raises
            if len(batch) > 1:
                for alone in batch:  # one of them cannot be answered: which?
                    self._answer(routed, [alone])
            else:
                batch[0][1].set_exception(error)
            return
        self._answered += len(batch)
        for (_, future), made in zip(batch, answers, strict=True):
            future.set_result(made)


def _nobody(calls: Sequence[Hop], routing_cost: float) -> None:
    """The bill that nobody reads."""


def answer(routed: Routed, queries: Sequence[Query], seed: int = 0, bill: Bill = _nobody) -> list[Answer]:
    """The episode of each query; equal ones share theirs. Raises UserError where a model cannot answer.

    The calls that were made are billed then, too.
    """
    distinct = {query: index for index, query in enumerate(dict.fromkeys(queries))}
    tree, routing_cost = routed.tree(list(distinct)), 0.0
    try:
        episodes = rollout(routed.router, tree, routed.cost_model, seed)
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
