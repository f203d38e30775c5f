"""What the dashboard shows: its rows, each with panels and their queries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_RATE = "$__rate_interval"


def of(metric: str, *matchers: str) -> str:
    """The metric of the chosen namespaces. A Prometheus that sets no such label has them all in `.*`."""
    chosen = ", ".join(['namespace=~"$namespace"', *matchers])
    return f"{metric}{{{chosen}}}"


def rate(metric: str, *matchers: str) -> str:
    """How much a counter rises in a second."""
    return f"rate({of(metric, *matchers)}[{_RATE}])"


def each(together: str, expression: str) -> str:
    """One value for each installation, since what one lacks must not be made up for by another's."""
    return f"{together} by (namespace) ({expression})"


def quantile(share: float, metric: str, *matchers: str, by: str = "") -> str:
    """Below which duration this share of what a histogram has seen lies."""
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({kept}) ({rate(metric + '_bucket', *matchers)}))"


@dataclass(frozen=True)
class Chart:
    """Curves over time: an expression for each legend. `width` of 24 columns."""

    title: str
    meaning: str
    curves: dict[str, str]
    unit: str = "short"
    width: int = 8


@dataclass(frozen=True)
class Number:
    """A single value of each installation, now: by namespace. `bad`: from where it is shown in red; with `low`, below which."""

    title: str
    meaning: str
    expression: str
    unit: str = "short"
    bad: float | None = None
    low: bool = False
    width: int = 4


@dataclass(frozen=True)
class Row:
    """A part of the dashboard under a heading."""

    title: str
    panels: Sequence[Chart | Number] = field(default=())


NAMESPACE = "{{namespace}}"
# Without the Prometheus Operator, pods may have no name here but an address.
_REPLICA = "{{namespace}} {{pod}} {{instance}}"
_AUTH = 'endpoint="auth"'
_TOKEN = 'endpoint="token"'
_SECONDS = "keyturn_api_request_seconds"
_REQUESTS = "keyturn_api_requests_total"
_RECONCILE = "keyturn_operator_reconcile_seconds"
_FAILED = 'outcome=~"unavailable|temporarily_unavailable|server_error|failed"'

_NOT_READY = of("keyturn_operator_objects", 'ready!="True"')

ROWS = (
    Row(
        "Overview",
        (
            Number(
                "Replicas ready",
                "API processes that may get requests.",
                each("sum", of("keyturn_api_ready")),
                bad=1,
                low=True,
            ),
            Number(
                "Operator acts",
                "Whether one holds the Lease.",
                each("sum", of("keyturn_operator_leader")),
                bad=1,
                low=True,
            ),
            Number(
                "Failing requests",
                "Answered 5xx, of all.",
                f"({each('sum', rate(_REQUESTS, _FAILED))} or 0 * {each('sum', rate(_REQUESTS))}) / {each('sum', rate(_REQUESTS))}",
                "percentunit",
                bad=0.01,
            ),
            Number(
                "Snapshot age",
                "Since the replica that is furthest behind has heard from the store.",
                f"time() - {each('min', of('keyturn_api_snapshot_checked_timestamp_seconds'))}",
                "s",
                bad=30,
            ),
            Number(
                "Objects not ready",
                "ClientCredentials, AccessRules and SigningKeys whose condition Ready is not True.",
                f"{each('sum', _NOT_READY)} or 0 * {each('sum', of('keyturn_operator_leader'))}",
                bad=1,
            ),
            Number("Clients", "In memory of the replicas.", each("max", of("keyturn_api_clients"))),
            Chart(
                "Requests",
                "By endpoint, of all replicas.",
                {"{{endpoint}}": f"sum by (endpoint) ({rate(_REQUESTS)})"},
                "reqps",
                12,
            ),
            Chart(
                "Applied revision",
                "Of each replica: curves of one namespace that part are replicas that lag.",
                {_REPLICA: of("keyturn_api_applied_revision")},
                width=12,
            ),
        ),
    ),
    Row(
        "Token service",
        (
            Chart(
                "Token requests",
                "By outcome: ok, or the error that the client got.",
                {"{{outcome}}": f"sum by (outcome) ({rate(_REQUESTS, _TOKEN)})"},
                "reqps",
                6,
            ),
            Chart(
                "Tokens by client",
                "As far as KEYTURN_METRICS_CLIENTS names clients.",
                {"{{client}}": f"topk(10, sum by (client) ({rate('keyturn_api_tokens_issued_total')}))"},
                "reqps",
                6,
            ),
            Chart(
                "Duration of a token",
                "From the request's arrival to its answer.",
                {"half": quantile(0.5, _SECONDS, _TOKEN), "99 of 100": quantile(0.99, _SECONDS, _TOKEN)},
                "s",
                6,
            ),
            Chart(
                "Clients not proven",
                "Failed authentication, by way and reason.",
                {
                    "{{method}}: {{reason}}": "sum by (method, reason) "
                    f"({rate('keyturn_api_client_authentication_failures_total')})"
                },
                "reqps",
                6,
            ),
        ),
    ),
    Row(
        "Gateway",
        (
            Chart(
                "Decisions by outcome",
                "At /auth.",
                {"{{outcome}}": f"sum by (outcome) ({rate(_REQUESTS, _AUTH)})"},
                "reqps",
            ),
            Chart(
                "Decisions by reason",
                "Why requests pass and why they do not.",
                {"{{reason}}": f"sum by (reason) ({rate('keyturn_api_decisions_total')})"},
                "reqps",
            ),
            Chart(
                "Decisions by rule",
                "The ten that decide most.",
                {"{{rule}}": f"topk(10, sum by (rule) ({rate('keyturn_api_decisions_total')}))"},
                "reqps",
            ),
            Chart(
                "Duration of a decision",
                "From the question's arrival to its answer.",
                {"half": quantile(0.5, _SECONDS, _AUTH), "99 of 100": quantile(0.99, _SECONDS, _AUTH)},
                "s",
            ),
            Chart(
                "Snapshot age",
                "Since each replica has heard from the store.",
                {_REPLICA: f"time() - {of('keyturn_api_snapshot_checked_timestamp_seconds')}"},
                "s",
            ),
            Chart(
                "Would be denied",
                "What rules of mode Audit would have denied.",
                {"{{rule}}": f"sum by (rule) ({rate('keyturn_api_audit_denials_total')})"},
                "reqps",
            ),
        ),
    ),
    Row(
        "Operator",
        (
            Chart(
                "Queue",
                "Objects that wait to be reconciled.",
                {
                    "now": f"sum({of('keyturn_operator_queue_depth')})",
                    "later": f"sum({of('keyturn_operator_queue_delayed')})",
                },
            ),
            Chart(
                "Reconciles",
                "By kind and outcome.",
                {"{{kind}}: {{outcome}}": f"sum by (kind, outcome) ({rate(_RECONCILE + '_count')})"},
                "ops",
            ),
            Chart(
                "Duration of a reconcile",
                "99 of 100, by kind.",
                {"{{kind}}": quantile(0.99, _RECONCILE, by="kind")},
                "s",
            ),
            Chart(
                "Age of the sweep",
                "Since the store was last held against all objects.",
                {NAMESPACE: f"time() - {each('max', of('keyturn_operator_last_sweep_timestamp_seconds'))}"},
                "s",
            ),
            Chart(
                "Drift repaired",
                "Rows changed behind the operator's back, in an hour.",
                {"{{kind}}": f"sum by (kind) (increase({of('keyturn_operator_drift_repaired_total')}[1h]))"},
            ),
            Chart(
                "Store failures",
                "Calls that failed, by who needed them.",
                {
                    "API: {{use}}": f"sum by (use) ({rate('keyturn_api_store_failures_total')})",
                    "operator: {{use}}": f"sum by (use) ({rate('keyturn_operator_store_failures_total')})",
                },
                "ops",
            ),
            Chart(
                "Objects",
                "By kind and the reason of their condition Ready.",
                {"{{kind}}: {{reason}}": f"sum by (kind, reason) ({of('keyturn_operator_objects')})"},
                width=12,
            ),
            Chart(
                "Replicas",
                "That the store has heard of.",
                {NAMESPACE: each("max", of("keyturn_operator_replicas"))},
                width=12,
            ),
        ),
    ),
    Row(
        "Keys",
        (
            Number(
                "Signing key's age",
                "Since the active one signs.",
                f"time() - {each('max', of('keyturn_operator_signing_key_activated_timestamp_seconds'))}",
                "s",
            ),
            Number(
                "Next rotation",
                "By the schedule.",
                f"1000 * {each('max', of('keyturn_operator_signing_key_next_rotation_timestamp_seconds'))}",
                "dateTimeFromNow",
            ),
            Number(
                "Keys expire",
                "Clients with a registered key in use that ends soon.",
                each("max", of("keyturn_operator_clients_keys_expiring")),
                bad=1,
            ),
            Number(
                "Wait for approval",
                "Registered clients without a grant.",
                each("max", of("keyturn_operator_registrations_pending")),
            ),
            Chart(
                "Signing keys",
                "By phase.",
                {"{{namespace}} {{phase}}": f"max by (namespace, phase) ({of('keyturn_operator_signing_keys')})"},
            ),
        ),
    ),
)
