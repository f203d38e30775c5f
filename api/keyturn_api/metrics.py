"""The API's metrics: few, and cheap where it counts."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """All metrics of one process. With several worker processes they are summed on one port; gauges show the worst."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self._requests = Counter(
            "keyturn_api_requests_total",
            "Requests by endpoint and outcome.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self._children: dict[tuple[str, str], Counter] = {}
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
        """One request more. `outcome` comes from a small fixed set, never from the request."""
        child = self._children.get((endpoint, outcome))
        if child is None:
            child = self._children[endpoint, outcome] = self._requests.labels(endpoint, outcome)
        child.inc()
