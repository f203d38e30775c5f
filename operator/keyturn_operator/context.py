"""What every reconciler works with, and the steps that all kinds share: status, events, rows."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keyturn import reasons
from keyturn.grants import Grants
from keyturn.records import Kind, Record, StoredRecord
from keyturn.store.interface import Store, Taken, Written
from keyturn.timestamps import format_rfc3339, parse_rfc3339
from keyturn_operator import audit, conditions
from keyturn_operator.census import Census
from keyturn_operator.conditions import Verdict
from keyturn_operator.kube.client import Kube, Object, collection
from keyturn_operator.kube.errors import Conflict, Forbidden, KubeError, KubeUnavailable, NotFound
from keyturn_operator.logs import get_logger
from keyturn_operator.metrics import Metrics
from keyturn_operator.queue import Done, Key, Priority
from keyturn_operator.replicas import Replicas, Wait
from keyturn_operator.rows import Rows, drifted
from keyturn_operator.scope import Scope
from keyturn_operator.settings import API_VERSION, PAUSED_ANNOTATION, PLURALS, OperatorSettings

log = get_logger("reconcile")

PATIENCE = 1.0
"""Seconds for which a status is held back while replicas apply the change: most do so at once, and one write is enough."""


def path_of(key: Key) -> str:
    """The object's path in the Kubernetes API."""
    return f"{collection(API_VERSION, PLURALS[key.kind], key.namespace)}/{key.name}"


def created_at(obj: Mapping[str, Any]) -> float:
    """The object's creationTimestamp in seconds since the epoch."""
    return parse_rfc3339(obj["metadata"]["creationTimestamp"])


def is_paused(obj: Mapping[str, Any]) -> bool:
    """Whether someone has asked that changes to the object's effect stop for now."""
    annotations = obj["metadata"].get("annotations") or {}
    return str(annotations.get(PAUSED_ANNOTATION, "")).lower() == "true"


@dataclass
class Context:
    """The collaborators of the reconcilers."""

    kube: Kube
    store: Store
    rows: Rows
    replicas: Replicas
    settings: OperatorSettings
    metrics: Metrics
    enqueue: Callable[[Key, Priority], None]
    scope: Scope
    grants: Grants
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    waiting_since: dict[Key, tuple[int, float]] = field(default_factory=dict)
    census: Census = field(init=False)
    active_kid: str = conditions.ANY_KID
    """The signing key that a replica must have loaded before a client can get a token from it."""

    def __post_init__(self) -> None:
        self.census = Census(self.metrics)

    async def write_row(self, key: Key, obj: Object, record: Record, before: StoredRecord | None) -> Written | Taken:
        """Puts the row; a repair of drift and a change of grants leave their traces. `before` is the live row as just read."""
        known = self.rows.known(key)
        if known is not None and known.uid != record.uid:
            # The object of this name that was before is gone, whether or not the new one gets a row.
            await self.rows.remove(key, known.uid)
        drift = drifted(before, known, record)
        outcome = await self.rows.put(record, before)
        if isinstance(outcome, Taken):
            return outcome
        if drift and outcome.changed:
            self.metrics.drift.labels(kind=str(key.kind)).inc()
            members = ", ".join(drift)
            log.warning(
                "the row was changed behind the operator's back and is put right", object=str(key), members=members
            )
            text = f"The store's row had been changed behind the operator's back and was put right: {members}."
            await self.event(key, obj, Verdict("Unknown", conditions.DRIFT_REPAIRED, text))
        if outcome.changed:
            self._audit_change(key, obj, None if before is None else before.record, record)
        return outcome

    def _audit_change(self, key: Key, obj: Object, before: Record | None, record: Record) -> None:
        old = None if before is None else before.body
        if key.kind is Kind.CLIENT:
            change = audit.changes(None if old is None else audit.grant_view(old), audit.grant_view(record.body))
        elif key.kind is Kind.ACCESS_RULE:
            change = audit.changes(old, record.body)
        else:
            states = [
                None if body is None else [(k.get("kid"), k.get("phase")) for k in body.get("keys") or ()]
                for body in (old, record.body)
            ]
            change = {} if states[0] == states[1] else {"keys": {"old": states[0], "new": states[1]}}
        if change:
            log.info("in force now", object=str(key), generation=record.generation)
            audit.changed("grant_changed", obj=str(key), uid=record.uid, who=audit.editor_of(obj), change=change)

    async def withdraw(self, key: Key, uid: str, cause: str) -> bool:
        """Removes the row of an object that is gone; one event, one log line, one audit record. Whether there was a row."""
        before = await self.rows.get(key, uid)
        if await self.rows.remove(key, uid) is None:
            return False
        log.info("withdrawn", object=str(key), uid=uid, cause=cause)
        old = {} if before is None else (audit.grant_view(before.record.body) if key.kind is Kind.CLIENT else {})
        audit.changed("withdrawn", obj=str(key), uid=uid, who=None, change=audit.changes(old, None), cause=cause)
        text = f"{key.kind} {key.name} is no longer in force ({cause})."
        await self.event(key, {"metadata": {"uid": uid}}, Verdict("True", conditions.DELETED, text))
        return True

    async def propagation(self, key: Key, revision: int, kid: str | None = None) -> tuple[Verdict, Done | None]:
        """Ready as far as the replicas go. A `Done` means: too early to say, come again."""
        verdict = conditions.of_propagation(await self.replicas.live(), revision, kid)
        if verdict.status == "True":
            self.replicas.forget(key)
            self.waiting_since.pop(key, None)
            return verdict, None
        self.replicas.wait_for(key, Wait(revision, kid))
        if verdict.reason == reasons.NO_REPLICA:
            return verdict, None
        seen, since = self.waiting_since.get(key, (-1, 0.0))
        if seen != revision:
            since = self.clock()
            self.waiting_since[key] = (revision, since)
        left = since + PATIENCE - self.clock()
        return verdict, Done(again=left + 0.01) if left > 0 else None

    async def write_status(
        self,
        key: Key,
        obj: Object,
        verdicts: Sequence[Verdict],
        fields: Mapping[str, Any] | None = None,
        *,
        absent: Collection[str] = (),
    ) -> None:
        """Writes the status where it differs, and an Event for each transition. An object that is gone meanwhile needs none.

        Conditions of the types in `absent` are taken out: what they were about is gone.
        """
        self.census.note(key, obj, verdicts)
        metadata = obj["metadata"]
        present = obj.get("status") or {}
        generation = int(metadata.get("generation") or 0)
        merged, transitions = conditions.merge_conditions(
            present.get("conditions"), verdicts, generation=generation, now=self.now(), absent=absent
        )
        wanted: dict[str, Any] = {"observedGeneration": generation, "conditions": merged, **(fields or {})}
        # The order of conditions means nothing: someone else's order is no difference.
        if _sorted_conditions(present.get("conditions")) == merged:
            del wanted["conditions"]
        patch = conditions.status_patch(present, wanted)
        if patch is None:
            return
        try:
            # The uid guards a namesake that was made since: it would get a status that is not its own.
            await self.kube.patch_status(path_of(key), {"metadata": {"uid": metadata["uid"]}, "status": patch})
        except (NotFound, Conflict):
            return
        for transition in transitions:
            if conditions.worth_an_event(transition):
                await self.event(key, obj, transition.verdict)

    async def event(self, key: Key, obj: Mapping[str, Any], verdict: Verdict) -> None:
        """Posts an Event, best effort: it is for people, and no reconcile fails for it."""
        good = verdict.status == ("False" if verdict.type in reasons.WARNINGS else "True")
        stamp = format_rfc3339(self.now())
        uid = str(obj["metadata"]["uid"])
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{key.name[:200]}.", "namespace": key.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": str(key.kind),
                "namespace": key.namespace,
                "name": key.name,
                "uid": uid,
            },
            "reason": verdict.reason,
            "message": conditions.shorten(verdict.message),
            "type": "Normal" if good else "Warning",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "source": {"component": "keyturn-operator"},
            "reportingComponent": "keyturn-operator",
        }
        try:
            await self.kube.create(collection("v1", "events", key.namespace), body)
        except Forbidden as error:
            if not error.terminating:
                log.warning("an Event could not be written", object=str(key), cause=str(error))
        except (KubeError, KubeUnavailable) as error:
            log.warning("an Event could not be written", object=str(key), cause=str(error))


def _sorted_conditions(present: object) -> list[Any]:
    if not isinstance(present, list) or not all(isinstance(one, Mapping) for one in present):
        return []
    return sorted(present, key=lambda one: str(one.get("type")))
