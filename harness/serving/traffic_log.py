"""A log of queries and answers, as `import` and `estimate` read it, and of what a shadow router would have done."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.evaluation.evaluate import action_probabilities
from harness.serving.metrics import ServingMetrics
from harness.serving.routed import routed
from pools.errors import UserError
from pools.types import Context
from routers import Router, RoutingStates

if TYPE_CHECKING:
    from harness.serving.batcher import Answer

ROOM = 1024
"""So many calls may wait to be written; one more is dropped, and counted."""

_log = logging.getLogger(__name__)


class Shadow(Protocol):
    """Decides and calls nobody."""

    @property
    def name(self) -> str:
        """Of the router."""
        ...

    @property
    def max_hops(self) -> int:
        """How many models it may call for a query."""
        ...

    def choices(self, query: str) -> dict[str, float]:
        """The first decision: the probability of each model that it may call. Raises UserError for an invalid one."""
        ...


@dataclass(frozen=True)
class RouterShadow:
    """A router as a shadow. models: of its actions. max_hops: the horizon that it is for."""

    name: str
    router: Router
    models: tuple[str, ...]
    max_hops: int

    def choices(self, query: str) -> dict[str, float]:
        """What the router decides at the query."""
        states = RoutingStates(
            [Context(query)], np.zeros(1, np.int64), np.zeros(1), np.full((1, self.max_hops), -1, np.int64)
        )
        (chance,) = action_probabilities(self.router, states, len(self.models)).tolist()
        return {model: share for model, share in zip(self.models, chance, strict=False) if share > 0}


class ShadowProcess:
    """A shadow in a process of its own, of the lowest priority, so that it takes no turns from the server.

    opened: makes the shadow there; it is pickled. Raises UserError if it does.
    """

    def __init__(self, opened: Callable[[], Shadow]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share the locks of libraries that run threads
        self._pipe, theirs = context.Pipe()
        context.Process(target=_decide, args=(theirs, opened), daemon=True).start()
        theirs.close()  # so that its end is noticed
        self.name: str
        self.max_hops: int
        self.name, self.max_hops = self._told()

    def choices(self, query: str) -> dict[str, float]:
        """What the shadow decides. Raises UserError if it fails, or is gone."""
        self._pipe.send(query)
        choices: dict[str, float] = self._told()
        return choices

    def _told(self) -> Any:
        try:
            result, error = self._pipe.recv()
        except EOFError:
            raise UserError("the process of the shadow router has ended") from None
        if error:
            raise UserError(error)
        return result


def _decide(pipe: Connection, opened: Callable[[], Shadow]) -> None:
    """Send the shadow's name and horizon, then for each query its choices; beside each what failed, else ''."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which closes the pipe at its end
    os.nice(19)
    try:
        shadow = opened()
    except UserError as error:
        pipe.send((None, str(error)))
        return
    pipe.send(((shadow.name, shadow.max_hops), ""))
    while True:
        try:
            query = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((shadow.choices(query), ""))
        except Exception as error:  # whatever a router raises
            pipe.send((None, f"{type(error).__name__}: {error}"))


def router_shadow(**given: Any) -> RouterShadow:
    """The shadow of a router over a pool; its arguments are those of `routed`."""
    opened = routed(**given)
    return RouterShadow(opened.name, opened.router, opened.pool.model_names, opened.max_hops)


@dataclass(frozen=True)
class ServedCall:
    """A query that was answered. request, completion: as the client sent and got them. seconds: until the answer."""

    request: Mapping[str, Any]
    completion: Mapping[str, Any]
    query: str
    answer: Answer
    seconds: float


class TrafficLog:
    """Appends calls to a file as JSON lines, in a thread of its own, so that nobody waits for the disk or the shadow.

    unit: of the costs. metrics: are told of each call that was written or dropped. Raises OSError if the file cannot be
    opened.
    """

    def __init__(self, file: Path, unit: str, metrics: ServingMetrics, shadow: Shadow | None = None) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("a", encoding="utf-8", buffering=1)  # a line at a time
        self._unit, self._metrics, self._shadow = unit, metrics, shadow
        self._waiting: deque[ServedCall] = deque()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def add(self, call: ServedCall) -> None:
        """Have a call written, soon; it is dropped if too many wait."""
        with self._changed:
            if len(self._waiting) < ROOM:
                self._waiting.append(call)
                self._changed.notify()
                return
        self._metrics.logged.labels("dropped").inc()

    def close(self, seconds: float) -> bool:
        """Write what waits, without asking the shadow any more; whether that was done in so many seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    self._file.close()
                    return
                call = self._waiting.popleft()
            try:
                self._file.write(json.dumps(self._line(call), ensure_ascii=False) + "\n")
            except OSError as error:
                _log.error("the log: %s; the call is dropped", error)
                self._metrics.logged.labels("dropped").inc()
            else:
                self._metrics.logged.labels("written").inc()

    def _line(self, call: ServedCall) -> dict[str, Any]:
        """The call in the form of `pools.data.traffic.LoggedCall`; of several hops, the model is the pipeline."""
        answer = call.answer
        line = {
            "request": call.request,
            "response": call.completion,
            "model": " > ".join(hop.model for hop in answer.hops),
            "cost": answer.cost,
            "cost_unit": self._unit,
            "seconds": round(call.seconds, 4),
            "propensity": answer.propensity,
        }
        if self._shadow is not None and not self._closed:
            try:
                choices = self._shadow.choices(call.query)
                line["shadow"] = {"router": self._shadow.name, "max_hops": self._shadow.max_hops, "choices": choices}
            except Exception as error:  # whatever a router raises; the call is logged all the same
                _log.error("shadow router %s: %s", self._shadow.name, " ".join(str(error).split()))
        return line
