"""Every metric of the product, declared once, in a registry of its own.

Each server instance has one `Metrics`; the layers update it in bulk (per commit, per flush), never per message. It never
holds a name that a user chose as a label, so its size is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from unbroken.errors import UnbrokenError
from unbroken.limits import DEFAULT_LIMITS, Limits

__all__ = ["Metrics"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_QUEUE_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0)
_LIMITS: Final = frozenset(field.name for field in fields(Limits))


class _Change(Protocol):
    @property
    def messages(self) -> list[bytes]: ...


class _Deliveries(Collector):
    """Exposes the plain numbers of a `Metrics` as counters."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The counters as they are now."""
        text = "handed to viewers' connections, counted once for each viewer."
        for what, value in (
            ("messages", self._metrics.delivered_messages),
            ("batches", self._metrics.delivered_batches),
        ):
            yield CounterMetricFamily(f"unbroken_delivered_{what}", f"{what.capitalize()} {text}", value=value)


class Metrics:
    """The counters, gauges and histograms of one server."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.registry = registry = CollectorRegistry()
        self.appended_messages = Counter("unbroken_appended_messages", "Messages made durable.", registry=registry)
        self.appended_bytes = Counter(
            "unbroken_appended_bytes", "Encoded bytes of messages made durable.", registry=registry
        )
        self.commits = Counter("unbroken_commits", "Group commits.", registry=registry)
        self.commit_seconds = Histogram(
            "unbroken_commit_seconds", "Duration of a group commit.", buckets=_SECONDS, registry=registry
        )
        self.delivered_messages = 0
        """Messages handed to viewers' connections, counted once for each viewer; plain numbers, for they change often."""
        self.delivered_batches = 0
        """Batches handed to viewers' connections, likewise."""
        registry.register(_Deliveries(self))
        self.store_batches = Counter(
            "unbroken_store_read_batches", "Batches that viewers got from the store, not the ring.", registry=registry
        )
        self.connections = Gauge("unbroken_connections", "Open connections.", ["face"], registry=registry)
        self.subscriptions = Gauge("unbroken_subscriptions", "Subscriptions of all connections.", registry=registry)
        self.lagging = Gauge(
            "unbroken_lagging_subscriptions",
            "Subscriptions that have not been handed everything yet.",
            registry=registry,
        )
        self.live_streams = Gauge("unbroken_live_streams", "Streams with at least one viewer.", registry=registry)
        self.pending_bytes = Gauge("unbroken_pending_bytes", "Bytes waiting for a commit.", registry=registry)
        self.reaped = Counter(
            "unbroken_reaped_streams", "Streams ended because their lease ran out.", registry=registry
        )
        self.expired = Counter("unbroken_expired_streams", "Streams deleted because they expired.", registry=registry)
        self.errors = Counter("unbroken_errors", "Errors by code.", ["code"], registry=registry)
        self.refusals = Counter(
            "unbroken_refusals", "Errors that name a limit, by limit.", ["limit"], registry=registry
        )
        self.redactions = Counter(
            "unbroken_redactions", "What was taken out before it was stored, by rule.", ["rule"], registry=registry
        )
        self._declare_runs(registry)
        self._declare_limits(registry, limits)

    def _declare_runs(self, registry: CollectorRegistry) -> None:
        self.runs = Gauge("unbroken_runs", "Runs that this process executes.", registry=registry)
        self.waiting_runs = Gauge(
            "unbroken_waiting_runs", "Runs that nobody executes yet, for want of room here.", registry=registry
        )
        self.run_queue_seconds = Histogram(
            "unbroken_run_queue_seconds",
            "Time from a run's start to its first execution.",
            buckets=_QUEUE_SECONDS,
            registry=registry,
        )
        self.run_attempts = Counter(
            "unbroken_run_attempts", "Executions of runs, by type.", ["type"], registry=registry
        )
        self.run_retries = Counter(
            "unbroken_run_retries",
            "Executions that failed and are repeated, by type of run.",
            ["type"],
            registry=registry,
        )
        self.run_ends = Counter(
            "unbroken_run_ends",
            "Runs that this process has ended, by type and state.",
            ["type", "state"],
            registry=registry,
        )

    def _declare_limits(self, registry: CollectorRegistry, limits: Limits) -> None:
        gauge = Gauge("unbroken_limit", "The limits of this process, each in its unit.", ["limit"], registry=registry)
        for field in fields(limits):
            gauge.labels(field.name).set(getattr(limits, field.name))
        self.limit = gauge

    def refused(self, error: UnbrokenError) -> None:
        """Count an error that somebody was told, and the limit that it names."""
        self.errors.labels(error.code).inc()
        limit = error.detail.get("limit")
        if limit in _LIMITS:
            self.refusals.labels(limit).inc()

    def committed(self, changes: Sequence[_Change]) -> None:
        """Count one commit."""
        self.commits.inc()
        self.appended_messages.inc(sum(len(change.messages) for change in changes))
        self.appended_bytes.inc(sum(sum(map(len, change.messages)) for change in changes))

    def expose(self) -> bytes:
        """The Prometheus text format of everything."""
        return generate_latest(self.registry)
