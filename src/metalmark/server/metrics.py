"""What Prometheus reads: counters of this process, and the state of the queue at the time of reading."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from metalmark.model import JobStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_KNOWN_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "WEBSOCKET"))


class Metrics:
    """The metrics of one server process; each has its own registry, so that tests can have many."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._channels = 0
        self._last_closed = anyio.Event()
        self._requests = Counter(
            "metalmark_requests",
            "Requests by method, route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "metalmark_request_seconds", "Seconds from a request to the end of its answer.", registry=self._registry
        )
        self._connections = Gauge("metalmark_runner_connections", "Runners' open channels.", registry=self._registry)
        self._claims = Histogram(
            "metalmark_claim_seconds",
            "Seconds from a job's submission to its claim.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120, 600, 3600, 86400),
            registry=self._registry,
        )
        self._jobs = Gauge(
            "metalmark_jobs",
            "Jobs that wait and run, by state. Those that ended only grow: see the changes.",
            ("status",),
            registry=self._registry,
        )
        self._transitions = Counter(
            "metalmark_job_transitions",
            "Changes of jobs' states, by the state that they came into.",
            ("status",),
            registry=self._registry,
        )
        for status in JobStatus:
            # A series that begins with its first change has no rate for it.
            self._transitions.labels(status.value)

    def count_request(self, *, method: str, route: str, status: int, took_s: float) -> None:
        """Count a request that has ended.

        Args:
            method: Its method; WEBSOCKET for a channel.
            route: The route's pattern, never the path itself: that would be a series for each identifier.
            status: Status of the answer; 0 when there was none.
            took_s: Seconds until the answer's end; not recorded for channels, which last as long as they like.
        """
        self._requests.labels(method if method in _KNOWN_METHODS else "other", route, str(status)).inc()
        if method != "WEBSOCKET":
            self._durations.observe(took_s)

    def channel_opened(self) -> None:
        """Count a runner's channel in."""
        self._connections.inc()
        self._channels += 1

    def channel_closed(self) -> None:
        """Count a runner's channel out."""
        self._connections.dec()
        self._channels -= 1
        if not self._channels:
            self._last_closed.set()

    async def no_channels(self) -> None:
        """Wait until no channel is open."""
        while self._channels:
            self._last_closed = anyio.Event()
            await self._last_closed.wait()

    def job_claimed(self, waited_s: float) -> None:
        """Record how long a job waited from its submission to its claim."""
        self._claims.observe(max(0.0, waited_s))

    def job_moved(self, status: str) -> None:
        """Count a job's change into a state."""
        self._transitions.labels(status).inc()

    def exposition(self, jobs: Mapping[str, int]) -> bytes:
        """Return all metrics in Prometheus' text format.

        Args:
            jobs: How many jobs are in each state now.
        """
        for status, count in jobs.items():
            self._jobs.labels(status).set(count)
        return generate_latest(self._registry)
