"""What the operator tells Prometheus of itself. Labels are kinds, reasons and outcomes, never objects: cardinality stays fixed."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from keyturn import __version__
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import KeyPhase
from keyturn.records import Kind


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
            "keyturn_operator_last_sweep_timestamp_seconds",
            "When the last complete sweep ended: the sweep's age is the time since.",
            registry=registry,
        )
        self.sweep_failures = Counter(
            "keyturn_operator_sweep_failures_total", "Sweeps that could not list all.", registry=registry
        )
        self.drift = Counter(
            "keyturn_operator_drift_repaired_total",
            "Rows found changed behind the operator's back, and put right.",
            ["kind"],
            registry=registry,
        )
        self.leader = Gauge("keyturn_operator_leader", "1 while this process holds the Lease.", registry=registry)
        self.epoch = Gauge("keyturn_operator_epoch", "The epoch under which this process writes.", registry=registry)
        self.replicas = Gauge(
            "keyturn_operator_replicas", "API replicas that the store has heard of in the last 30 s.", registry=registry
        )
        self.objects = Gauge(
            "keyturn_operator_objects",
            "Objects by kind, and by status and reason of their condition Ready.",
            ["kind", "ready", "reason"],
            registry=registry,
        )
        self.keys_expiring = Gauge(
            "keyturn_operator_clients_keys_expiring",
            "Clients with the condition KeysExpiring: a registered key in use ends soon.",
            registry=registry,
        )
        self.registrations_pending = Gauge(
            "keyturn_operator_registrations_pending", "Registered clients that wait for approval.", registry=registry
        )
        self.signing_keys = Gauge(
            "keyturn_operator_signing_keys", "The installation's signing keys by phase.", ["phase"], registry=registry
        )
        self.key_activated = Gauge(
            "keyturn_operator_signing_key_activated_timestamp_seconds",
            "Since when the active signing key signs: its age is the time since. 0 without one.",
            registry=registry,
        )
        self.next_rotation = Gauge(
            "keyturn_operator_signing_key_next_rotation_timestamp_seconds",
            "When the schedule rotates the signing key next; 0 without a schedule.",
            registry=registry,
        )
        self.store_failures = Counter(
            "keyturn_operator_store_failures_total",
            "Work of the operator (reconcile, sweep) that the store failed.",
            ["use"],
            registry=registry,
        )
        self.kubernetes_failures = Counter(
            "keyturn_operator_kubernetes_failures_total",
            "Work of the operator (reconcile, sweep) that the Kubernetes API refused or did not answer.",
            ["use"],
            registry=registry,
        )
        # What an alert looks at is there from the start, so that its first rise is seen.
        for use in ("reconcile", "sweep"):
            self.store_failures.labels(use)
            self.kubernetes_failures.labels(use)
        for kind in Kind:
            self.drift.labels(str(kind))
        for phase in KeyPhase:
            self.signing_keys.labels(phase.value).set(0)
        build = Gauge(
            "keyturn_operator_build_info", "1, labelled with the program's version.", ["version"], registry=registry
        )
        build.labels(__version__).set(1)

    def show_keys(self, ring: KeyRing, next_rotation: float | None) -> None:
        """The signing keys as they are now; `next_rotation` in seconds since the epoch."""
        for phase in KeyPhase:
            self.signing_keys.labels(phase.value).set(len(ring.in_phase(phase)))
        self.key_activated.set(max((key.activated_at or 0.0 for key in ring.in_phase(KeyPhase.ACTIVE)), default=0.0))
        self.next_rotation.set(next_rotation or 0.0)
