"""What a server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import prometheus_client as prometheus

if TYPE_CHECKING:
    from harness.dispatcher import Answer

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class ServingMetrics:
    """Counters of requests, hops, tokens and cost. waiting: gives how many queries wait."""

    media_type = prometheus.CONTENT_TYPE_LATEST

    def __init__(self, cost_unit: str, waiting: Callable[[], int]) -> None:
        self._registry = registry = prometheus.CollectorRegistry()
        named = {"namespace": "harness", "registry": registry}
        self._requests = prometheus.Counter("requests", "Requests that ended, by HTTP status.", ["status"], **named)
        self._seconds = prometheus.Histogram(
            "request_seconds", "From a query's arrival to its answer.", buckets=_SECONDS, **named
        )
        self._hops = prometheus.Counter("hops", "Calls of a candidate model.", ["model"], **named)
        self._tokens = prometheus.Counter("tokens", "Tokens read and written.", ["model", "direction"], **named)
        self._cost = prometheus.Counter("cost", f"Cost of all hops, in {cost_unit}.", ["model"], **named)
        self._routing = prometheus.Counter("routing_cost", "Cost of the router's own encoder.", **named)
        self.open = prometheus.Gauge("requests_open", "Requests that are being answered or wait.", **named)
        prometheus.Gauge("queries_waiting", "Queries that no model has been asked yet.", **named).set_function(waiting)

    def answered(self, answer: Answer, seconds: float) -> None:
        """Count an answer that took so long."""
        self._seconds.observe(seconds)
        self._routing.inc(answer.routing_cost)
        for hop in answer.hops:
            self._hops.labels(hop.model).inc()
            self._cost.labels(hop.model).inc(hop.cost)
            self._tokens.labels(hop.model, "read").inc(hop.tokens_in)
            self._tokens.labels(hop.model, "written").inc(hop.tokens_out)

    def ended(self, status: int) -> None:
        """Count a request by how it ended."""
        self._requests.labels(str(status)).inc()

    def text(self) -> bytes:
        """All of it, in Prometheus's format."""
        return prometheus.generate_latest(self._registry)
