"""How many objects there are of each sort, kept as their statuses are decided: nothing is listed to be counted."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keyturn import reasons
from keyturn.clients.registration import APPROVAL_LABEL, PENDING
from keyturn.records import Kind
from keyturn_operator.conditions import Verdict
from keyturn_operator.metrics import Metrics
from keyturn_operator.queue import Key


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: Kind
    ready: str
    reason: str
    keys_expire: bool
    waits: bool


class Census:
    """What each object that was reconciled came to. After a takeover every object is reconciled, so it is soon complete."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._entries: dict[Key, _Entry] = {}
        self._counts: Counter[tuple[Kind, str, str]] = Counter()
        self._expiring = 0
        self._waiting = 0

    def note(self, key: Key, obj: Mapping[str, Any], verdicts: Iterable[Verdict]) -> None:
        """The object's conditions as they are decided now."""
        found = {one.type: one for one in verdicts}
        ready = found.get(reasons.READY)
        before = self._entries.get(key)
        if ready is None and before is None:
            return
        expiring = found.get(reasons.KEYS_EXPIRING)
        labels = obj["metadata"].get("labels") or {}
        self._replace(
            key,
            _Entry(
                key.kind,
                ready.status if ready is not None else before.ready if before is not None else "",
                ready.reason if ready is not None else before.reason if before is not None else "",
                expiring is not None and expiring.status == "True",
                key.kind is Kind.CLIENT and labels.get(APPROVAL_LABEL) == PENDING,
            ),
        )

    def gone(self, key: Key) -> None:
        """The object is no more."""
        self._replace(key, None)

    def _replace(self, key: Key, entry: _Entry | None) -> None:
        before = self._entries.pop(key, None)
        if entry is not None:
            self._entries[key] = entry
        if before == entry:
            return
        for one, step in ((before, -1), (entry, 1)):
            if one is None:
                continue
            sort = (one.kind, one.ready, one.reason)
            self._counts[sort] += step
            self._expiring += step * one.keys_expire
            self._waiting += step * one.waits
            self._metrics.objects.labels(str(one.kind), one.ready, one.reason).set(self._counts[sort])
        self._metrics.keys_expiring.set(self._expiring)
        self._metrics.registrations_pending.set(self._waiting)
