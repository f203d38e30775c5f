"""What to make of a Secret that is gone, or that is an older one than the store knows of: it was deleted, or restored from a backup.

The rule: states only move on. A Secret that was written later than what the store holds wins; of an older one just those private halves
are used whose keys still sign by what is known since.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from keyturn import reasons
from keyturn.keys.plan import ordered, withdraw
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import KeyPhase, RingKey, SigningKeyState


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A key as the object's status shows it; times in seconds since the epoch, cut to whole ones."""

    kid: str
    phase: KeyPhase
    created_at: float | None = None
    remove_at: float | None = None


@dataclass(frozen=True, slots=True)
class Recalled:
    """The ring to go on with. `older`: the Secret was written before what is known otherwise. `lost`: there was one, and it is gone."""

    ring: KeyRing | None
    older: bool = False
    lost: bool = False


def compromised_kids(
    last: SigningKeyState | None, shown: Iterable[ShownKey], remembered: Collection[str] = ()
) -> frozenset[str]:
    """Every kid that the store or the status calls compromised: no restored Secret brings one back.

    `remembered`: what the store knows from objects before this one.
    """
    known = last.refused if last is not None else frozenset()
    return known | frozenset(remembered) | {key.kid for key in shown if key.phase is KeyPhase.COMPROMISED}


def recall(
    ring: KeyRing | None,
    *,
    last: SigningKeyState | None,
    shown: Collection[ShownKey],
    requested: str | None,
    now: float,
) -> Recalled:
    """Holds the Secret's ring (None: there is no Secret, or nothing in it) against what the store and the status know."""
    if ring is None:
        if not (last is not None and last.keys) and not shown:
            return Recalled(None)
        return Recalled(_after_loss(last, shown, requested=requested, now=now), lost=True)
    if last is not None and last.serial > ring.serial:
        return Recalled(_carried_on(ring, last.keys, last, requested=requested, now=now), older=True)
    there = {key.kid for key in ring.keys}
    written = ring.serial / 1000
    if any(key.created_at is not None and key.created_at > written and key.kid not in there for key in shown):
        carried = _carried_on(ring, _as_shown(ring, shown), last, requested=requested, now=now)
        # Of the newer keys not even the public halves are left.
        return Recalled(carried.with_incident(reasons.SIGNING_KEYS_LOST, now), older=True)
    return Recalled(ring)


def _after_loss(
    last: SigningKeyState | None, shown: Collection[ShownKey], *, requested: str | None, now: float
) -> KeyRing:
    """No key is left. Nothing that was compromised may ever come back, and the serial goes on, so that an old Secret can be told."""
    ring = KeyRing(handled_rotation=requested, serial=0 if last is None else last.serial)
    return withdraw(ring, compromised_kids(last, shown)).with_incident(reasons.SIGNING_KEYS_LOST, now)


def _carried_on(
    ring: KeyRing,
    known: Iterable[RingKey],
    last: SigningKeyState | None,
    *,
    requested: str | None,
    now: float,
) -> KeyRing:
    """The states that are known, with those private halves of the older ring that still sign by them."""
    keys = []
    private = {}
    for key in known:
        signs = key.phase in (KeyPhase.ACTIVE, KeyPhase.NEXT)
        leaving = key.phase is KeyPhase.RETIRED and key.remove_at is None
        if key.kid in ring.private and (signs or leaving):
            private[key.kid] = ring.private[key.kid]
            keys.append(key)
        elif key.phase is KeyPhase.ACTIVE:
            # Its private half is lost; what it signed still counts.
            keys.append(replace(key, phase=KeyPhase.RETIRED, retired_at=now))
        elif key.phase is not KeyPhase.NEXT:
            keys.append(key)
    carried = replace(
        ring,
        keys=ordered(keys),
        private=private,
        # An older Secret has an older handled value: that is no request.
        handled_rotation=requested,
        withdrawn=tuple(dict.fromkeys((*ring.withdrawn, *(() if last is None else last.withdrawn)))),
        serial=max(ring.serial, 0 if last is None else last.serial),
    )
    return withdraw(carried, ring.refused).with_incident(reasons.OLDER_SECRET, now)


def _as_shown(ring: KeyRing, shown: Iterable[ShownKey]) -> list[RingKey]:
    """The ring's keys in the states that the status shows; one that it does not show has left since."""
    states = {key.kid: key for key in shown}
    return [
        replace(key, phase=states[key.kid].phase, remove_at=states[key.kid].remove_at)
        for key in ring.keys
        if key.kid in states
    ]


def restricted(last: SigningKeyState, kids: Collection[str], *, revoke_before: float | None) -> SigningKeyState:
    """What is in force, less what is withdrawn: for as long as the Secret cannot be read or written."""
    ring = withdraw(KeyRing(last.keys, withdrawn=last.withdrawn), kids)
    return replace(last, keys=ring.keys, withdrawn=ring.withdrawn, revoke_before=revoke_before)
