"""What the operator tells Prometheus of itself. Labels are kinds and outcomes, never objects: cardinality stays fixed."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The operator's metrics; a registry of its own in tests."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.queue_depth = Gauge(
            "keyturn_operator_queue_depth", "Objects that wait to be reconciled now.", registry=registry
        )
        self.queue_delayed = Gauge(
            "keyturn_operator_queue_delayed", "Objects that wait for a retry or a due time.", registry=registry
        )
        self.reconciles = Histogram(
            "keyturn_operator_reconcile_seconds",
            "Duration of a reconcile by kind and outcome.",
            ["kind", "outcome"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
            registry=registry,
        )
        self.last_sweep = Gauge(
            "keyturn_operator_last_sweep_timestamp_seconds", "When the last complete sweep ended.", registry=registry
        )
        self.sweep_failures = Counter(
            "keyturn_operator_sweep_failures_total", "Sweeps that could not list all.", registry=registry
        )
        self.drift = Counter(
            "keyturn_operator_drift_repaired_total",
            "Rows found changed behind the operator's back.",
            ["kind"],
            registry=registry,
        )
        self.leader = Gauge("keyturn_operator_leader", "1 while this process holds the Lease.", registry=registry)
        self.epoch = Gauge("keyturn_operator_epoch", "The epoch under which this process writes.", registry=registry)
