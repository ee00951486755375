"""What a server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import prometheus_client as prometheus

if TYPE_CHECKING:
    from harness.serving.batcher import Hop

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class ServingMetrics:
    """Counters of requests, hops, tokens and cost. waiting: gives how many queries wait.

    requests: by status. seconds: of answered queries. open: how many requests are being answered or wait. logged: calls
    for the log, written and dropped.
    """

    media_type = prometheus.CONTENT_TYPE_LATEST

    def __init__(self, cost_unit: str, waiting: Callable[[], int]) -> None:
        self._registry = registry = prometheus.CollectorRegistry()
        named = {"namespace": "harness", "registry": registry}
        self.requests = prometheus.Counter(
            "requests", "Queries that were answered, and all that was refused, by HTTP status.", ["status"], **named
        )
        self.seconds = prometheus.Histogram(
            "request_seconds", "From a query's arrival to its answer.", buckets=_SECONDS, **named
        )
        self._hops = prometheus.Counter("hops", "Calls of a candidate model.", ["model"], **named)
        self._tokens = prometheus.Counter("tokens", "Tokens read and written.", ["model", "direction"], **named)
        self._cost = prometheus.Counter("cost", f"Cost of all hops, in {cost_unit}.", ["model"], **named)
        self.logged = prometheus.Counter(
            "logged", "Answered queries for the log, by what became of them.", ["outcome"], **named
        )
        self._routing = prometheus.Counter("routing_cost", "Cost of the router's own encoder.", **named)
        self.open = 0
        is_open = prometheus.Gauge("requests_open", "Requests that are being answered or wait.", **named)
        is_open.set_function(lambda: self.open)
        prometheus.Gauge("queries_waiting", "Queries that no model has been asked yet.", **named).set_function(waiting)

    def called(self, calls: Sequence[Hop], routing_cost: float) -> None:
        """Count calls that were made, whatever becomes of the responses."""
        self._routing.inc(routing_cost)
        for call in calls:
            self._hops.labels(call.model).inc()
            self._cost.labels(call.model).inc(call.cost)
            self._tokens.labels(call.model, "read").inc(call.tokens_in)
            self._tokens.labels(call.model, "written").inc(call.tokens_out)

    def text(self) -> bytes:
        """All of it, in Prometheus's format."""
        return prometheus.generate_latest(self._registry)
