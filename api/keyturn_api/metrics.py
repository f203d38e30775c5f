"""The API's metrics: few, and cheap where it counts."""

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

_FLUSH_EVERY: Final = 1.0


class Metrics:
    """All metrics of one process. With several worker processes they are summed on one port; gauges show the worst.

    Requests are counted here and handed on once a second, because a count in the files that worker processes share costs
    ten times as much. A scrape of one process shows all; of several, what was counted up to a second ago. A worker that is
    killed takes its last second with it.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self._counted: dict[tuple[str, str], int] = {}
        self._flushed: dict[tuple[str, str], int] = {}
        self._flushing = threading.Lock()
        # First of all: collectors are asked in the order of their registration.
        registry.register(_BeforeScrape(self.flush))
        self._requests = Counter(
            "keyturn_api_requests_total",
            "Requests by endpoint and outcome.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self.audit_denials = Counter(
            "keyturn_api_audit_denials_total",
            "Requests let through that a rule of mode Audit would have denied, by rule and outcome.",
            ["rule", "outcome"],
            registry=registry,
        )
        self.token_seconds = Histogram(
            "keyturn_api_token_seconds",
            "Time from a whole token request to its answer.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=registry,
        )
        self.revision = Gauge(
            "keyturn_api_applied_revision",
            "The store's revision that is applied.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.synchronized = Gauge(
            "keyturn_api_snapshot_checked_timestamp_seconds",
            "When the store was last asked for changes with success.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.ready = Gauge(
            "keyturn_api_ready", "Whether the process is ready.", multiprocess_mode="livemin", registry=registry
        )
        self.clients = Gauge(
            "keyturn_api_clients", "Clients in memory.", multiprocess_mode="livemax", registry=registry
        )
        self.store_failures = Counter(
            "keyturn_api_store_failures_total", "Calls to the store that failed.", ["use"], registry=registry
        )
        self.store_replaced = Counter(
            "keyturn_api_store_replaced_total", "Times that another store was found than before.", registry=registry
        )

    def count(self, endpoint: str, outcome: str) -> None:
        """One request more. `outcome` comes from a small fixed set, never from the request. For the event loop's thread alone."""
        key = (endpoint, outcome)
        self._counted[key] = self._counted.get(key, 0) + 1

    def flush(self) -> None:
        """Hands on what was counted since the last time. From any thread: scrapes come in their own."""
        with self._flushing:
            # Totals only grow, so a count that comes meanwhile is in this difference or in the next.
            for key, total in list(self._counted.items()):
                self._requests.labels(*key).inc(total - self._flushed.get(key, 0))
                self._flushed[key] = total

    async def run(self) -> None:
        """Flushes until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_EVERY)
            self.flush()


class _BeforeScrape(Collector):
    """Has nothing of its own to tell."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def collect(self) -> list[Metric]:
        self._act()
        return []
