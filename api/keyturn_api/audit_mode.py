"""What rules under Audit would have denied: counted by rule, and logged as far as the log can bear."""

from typing import Final

from keyturn.rules.decision import Decision
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics

_log = get_logger("audit_mode")
LINES_PER_SECOND: Final = 10
# As many rules as a metric's label may name; what is counted for further ones stands under `other`.
MAX_LABELS: Final = 200
OTHER: Final = "other"


class AuditedDenials:
    """Each worker's own: its limits are those of one worker."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._labels: set[str] = set()
        self._second = 0
        self._lines = 0
        self._unsaid = 0

    def note(
        self,
        rule: str,
        decision: Decision,
        *,
        method: str,
        path: str,
        client_id: str | None,
        request_id: str,
        now: float,
    ) -> None:
        """One request that was let through and that this rule (`namespace/name`) would have denied."""
        if rule not in self._labels and len(self._labels) < MAX_LABELS:
            self._labels.add(rule)
        label = rule if rule in self._labels else OTHER
        self._metrics.audit_denials.labels(label, decision.outcome.value).inc()
        if int(now) != self._second:
            self._second, self._lines = int(now), 0
        if self._lines >= LINES_PER_SECOND:
            self._unsaid += 1
            return
        self._lines += 1
        _log.info(
            "would_be_denied",
            rule=rule,
            outcome=decision.outcome.value,
            reason=decision.reason,
            cause=decision.description,
            decided_by=decision.rule,
            route=decision.route,
            client_id=client_id,
            method=method,
            path=path,
            request_id=request_id,
            not_logged_before=self._unsaid,
        )
        self._unsaid = 0
