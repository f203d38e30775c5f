"""One SigningKey with all that a pass over it has found: the object, its Secret, and what the store knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyturn import reasons
from keyturn.keys.plan import Fleet, RingPlan, decide
from keyturn.keys.recovery import Recalled, ShownKey, recall
from keyturn.keys.ring import MAX_NAMED_KIDS, KeyRing
from keyturn.keys.schedule import Ceilings
from keyturn.keys.state import InvalidState, SigningKeyState
from keyturn.problems import Problem
from keyturn.records import StoredRecord
from keyturn_operator.key_secret import KeySecret
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.queue import Key
from keyturn_operator.signing_key_spec import SigningKeySpec, Withdrawal, rotation_request


def read_state(body: Mapping[str, Any] | None) -> SigningKeyState | None:
    """What the store says of the keys, as far as it can be read."""
    if body is None:
        return None
    try:
        return SigningKeyState.from_body(body)
    except (InvalidState, KeyError, TypeError, ValueError):
        return None


def revoke_before(wanted: float | None, last: SigningKeyState | None, *, valid: bool) -> float | None:
    """What revokes: in an invalid edit never less than before."""
    if valid or last is None or last.revoke_before is None:
        return wanted
    return last.revoke_before if wanted is None else max(wanted, last.revoke_before)


@dataclass
class Pass:
    """One object as this pass found it; `found` and `row` move on with what the pass writes.

    `last`: what the store says of the installation's keys, by the object's own row or, where it has none yet, by the one that an object of
    this name had before. `compromised`: kids that the store or the status ever called so; `asked`: what the annotation does.
    """

    key: Key
    obj: Object
    spec: SigningKeySpec
    problems: list[Problem]
    found: KeySecret
    row: StoredRecord | None
    last: SigningKeyState | None
    known: tuple[ShownKey, ...]
    compromised: frozenset[str]
    asked: Withdrawal
    paused: bool
    limits: Ceilings
    now: float
    revision: int = 0
    told: tuple[str, ...] = ()  # reasons of the incidents that this pass has written

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])

    @property
    def withdrawn(self) -> frozenset[str]:
        """Every kid that must not count."""
        return self.compromised | self.asked.kids

    @property
    def requested(self) -> str | None:
        return rotation_request(self.obj)

    @property
    def status(self) -> Mapping[str, Any]:
        return self.obj.get("status") or {}

    @property
    def path(self) -> str:
        return collection("v1", "secrets", self.key.namespace)

    @property
    def revoke_before(self) -> float | None:
        return revoke_before(self.spec.revoke_before, self.last, valid=not self.problems)

    def recall(self) -> Recalled:
        """The Secret held against what is known. An object without a row and without a Secret begins anew: nothing of its own was lost."""
        begins = self.row is None and self.found.ring is None
        last = None if begins else self.last
        return recall(self.found.ring, last=last, shown=self.known, requested=self.requested, now=self.now)

    def noted(self, ring: KeyRing | None) -> KeyRing | None:
        """The ring, with a note of annotated kids that no key was ever known to have: a mistyped one would look like a withdrawal."""
        if ring is None:
            return None
        known = (
            {key.kid for key in ring.keys} | set(ring.withdrawn) | {key.kid for key in self.known} | self.compromised
        )
        unknown = sorted(self.asked.kids - known)
        return ring.with_incident(reasons.UNKNOWN_KID, self.now, unknown[:MAX_NAMED_KIDS]) if unknown else ring

    def decide(self, ring: KeyRing | None, fleet: Fleet | None = None) -> RingPlan:
        return decide(
            ring,
            self.spec.policy,
            self.limits,
            now=self.now,
            owner=self.uid,
            requested=self.requested,
            compromised=self.withdrawn,
            fleet=fleet,
            paused=self.paused,
        )
