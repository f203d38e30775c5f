"""The API's metrics: what is counted for each request costs next to nothing, the rest is seldom."""

import asyncio
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from keyturn import __version__

_FLUSH_EVERY: Final = 1.0
# The extension of the ASGI scope that holds when the request was taken up, by the clock that only goes forward.
STARTED: Final = "keyturn.started"
# Upper ends in seconds. A check takes microseconds, a hashed secret a quarter of a second.
BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# As many rules and reasons as labels may name; what comes later stands under `other`.
MAX_RULES: Final = 200
MAX_REASONS: Final = 100
OTHER: Final = "other"
NO_RULE: Final = "none"
STORE_USES: Final = ("changes", "heartbeat", "jti", "revoke")


class Bounded:
    """Label values of which no more than so many are kept apart: the first ones of this process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def label(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(value)
        return value


class _Tally:
    """Requests of one endpoint and outcome."""

    __slots__ = ("buckets", "seconds", "total")

    def __init__(self) -> None:
        self.total = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)


class Metrics:
    """All metrics of one process. With several worker processes they are summed on one port; gauges show the worst.

    Requests and decisions are counted here and handed on once a second, because a count in the files that worker processes share
    costs ten times as much. A scrape of one process shows all; of several, what was counted up to a second ago. A worker that is
    killed takes its last second with it.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, named_clients: int = 0) -> None:
        """`named_clients`: as many clients are told apart, by each worker; the others' tokens count as `other`."""
        self.registry = registry
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._decided: dict[tuple[str, str], int] = {}
        self._granted: dict[str, int] = {}
        self._rules, self._reasons = Bounded(MAX_RULES), Bounded(MAX_REASONS)
        self._clients = Bounded(named_clients)
        self._flushed: dict[tuple[int, tuple[str, ...]], float] = {}
        self._flushing = threading.Lock()
        # First of all: collectors are asked in the order of their registration.
        registry.register(_BeforeScrape(self.flush))
        self._make_of_requests(registry)
        self._make_of_state(registry)

    def _make_of_requests(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "keyturn_api_requests_total",
            "Requests by endpoint and outcome.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "keyturn_api_request_seconds",
            "Time from a request's arrival to its answer, by endpoint and outcome.",
            ["endpoint", "outcome"],
            buckets=BOUNDS,
            registry=registry,
        )
        self._decisions = Counter(
            "keyturn_api_decisions_total",
            f"Decisions at the gateway check by deciding rule (namespace/name; {NO_RULE} where no rule decided) and reason.",
            ["rule", "reason"],
            registry=registry,
        )
        self._tokens = Counter(
            "keyturn_api_tokens_issued_total",
            "Access tokens issued, by client as far as KEYTURN_METRICS_CLIENTS names them.",
            ["client"],
            registry=registry,
        )
        self.authentication_failures = Counter(
            "keyturn_api_client_authentication_failures_total",
            "Clients that did not prove who they are, by way (assertion, secret) and reason.",
            ["method", "reason"],
            registry=registry,
        )
        self.audit_denials = Counter(
            "keyturn_api_audit_denials_total",
            "Requests let through that a rule of mode Audit would have denied, by rule and outcome.",
            ["rule", "outcome"],
            registry=registry,
        )

    def _make_of_state(self, registry: CollectorRegistry) -> None:
        self.revision = Gauge(
            "keyturn_api_applied_revision",
            "The store's revision that is applied.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.synchronized = Gauge(
            "keyturn_api_snapshot_checked_timestamp_seconds",
            "When the store was last asked for changes with success: the snapshot's age is the time since.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.ready = Gauge(
            "keyturn_api_ready", "Whether the process is ready.", multiprocess_mode="livemin", registry=registry
        )
        self.clients = Gauge(
            "keyturn_api_clients", "Clients in memory.", multiprocess_mode="livemax", registry=registry
        )
        self.certificate_end = Gauge(
            "keyturn_api_tls_certificate_expiry_timestamp_seconds",
            "When the certificate that is served with ends; 0 without TLS of its own.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.store_failures = Counter(
            "keyturn_api_store_failures_total", "Calls to the store that failed, by use.", ["use"], registry=registry
        )
        self.store_replaced = Counter(
            "keyturn_api_store_replaced_total", "Times that another store was found than before.", registry=registry
        )
        # What an alert looks at is there from the start, so that its first rise is seen.
        for use in STORE_USES:
            self.store_failures.labels(use)
        self._requests.labels("http", "failed")
        build = Gauge(
            "keyturn_api_build_info",
            "1, labelled with the program's version.",
            ["version"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        build.labels(__version__).set(1)

    def count(self, endpoint: str, outcome: str, scope: MutableMapping[str, Any] | None = None) -> None:
        """One request more. `outcome` comes from a small fixed set, never from the request. For the event loop's thread alone.

        `scope`: the request's, for how long it took; where it has no `STARTED` in it, it is only counted.
        """
        tally = self._tallies.get((endpoint, outcome))
        if tally is None:
            tally = self._tallies[endpoint, outcome] = _Tally()
        tally.total += 1
        if scope is not None and (started := scope.get(STARTED)) is not None:
            seconds = time.perf_counter() - started
            tally.seconds += seconds
            tally.buckets[bisect_left(BOUNDS, seconds)] += 1

    def decided(self, rule: str | None, reason: str, scope: MutableMapping[str, Any]) -> None:
        """One decision more at the gateway check. For the event loop's thread alone. `scope`: for those who tell of each."""
        key = (rule or NO_RULE, reason)
        counted = self._decided.get(key)
        if counted is None:
            # A rule that is gone stays a label, so that only so many of each come to be.
            key = (self._rules.label(key[0]) if rule else NO_RULE, self._reasons.label(reason))
            counted = self._decided.get(key, 0)
        self._decided[key] = counted + 1

    def issued(self, client_id: str) -> None:
        """One token more."""
        label = self._clients.label(client_id)
        self._granted[label] = self._granted.get(label, 0) + 1

    def not_proven(self, method: str, reason: str) -> None:
        """One client that did not prove who it is."""
        self.authentication_failures.labels(method, self._reasons.label(reason)).inc()

    def flush(self) -> None:
        """Hands on what was counted since the last time. From any thread: scrapes come in their own."""
        with self._flushing:
            # Totals only grow, so a count that comes meanwhile is in this difference or in the next.
            for key, tally in list(self._tallies.items()):
                self._hand_on(self._requests, key, tally.total)
                self._hand_on_times(key, tally)
            for key, total in list(self._decided.items()):
                self._hand_on(self._decisions, key, total)
            for client, total in list(self._granted.items()):
                self._hand_on(self._tokens, (client,), total)

    def _hand_on(self, counter: Counter, labels: tuple[str, ...], total: float) -> None:
        more = self._since((id(counter), labels), total)
        if more:
            counter.labels(*labels).inc(more)

    def _hand_on_times(self, labels: tuple[str, ...], tally: _Tally) -> None:
        # What `observe` does, for many at a time: its buckets are not cumulative, a scrape adds them up.
        counts = list(tally.buckets)
        if not any(counts):
            return
        shown = self._seconds.labels(*labels)
        shown._sum.inc(self._since((id(self._seconds), labels), tally.seconds))
        for number, count in enumerate(counts):
            more = self._since((number, labels), count)
            if more:
                shown._buckets[number].inc(more)

    def _since(self, key: tuple[int, tuple[str, ...]], total: float) -> float:
        before = self._flushed.get(key, 0)
        self._flushed[key] = total
        return total - before

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
