"""What is to be done to the key ring now: decisions only, keys are generated elsewhere.

An installation always has one Active key and one Next that is published already, so that a rotation waits for no mount. A rotation makes
Next the Active one, retires the one before, and adds a new Next, all in one write.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from keyturn import reasons
from keyturn.jose.signing import PrivateKey
from keyturn.keys.ring import MAX_KEYS, MAX_WITHDRAWN, KeyRing
from keyturn.keys.schedule import Ceilings, Policy, due_at, promotable_at, removable_at
from keyturn.keys.state import KeyPhase, RingKey

_EMPTY: Final = KeyRing()
# Rotations leave this much of a full ring to what cannot wait.
_ROOM_FOR_EMERGENCIES: Final = 16


class Cause(StrEnum):
    """Why a rotation is wanted."""

    REQUESTED = "Requested"
    SCHEDULED = "Scheduled"


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation that is wanted. `blocked`: the reason (of `keyturn.reasons`) for which it has to wait; None: it goes ahead.

    `until`: when it can go ahead (seconds since the epoch), where only time is missing.
    """

    cause: Cause
    blocked: str | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the live replicas say. `applied`: all act on the ring as it is. `loaded`: kids that all can sign with; None: none is there."""

    applied: bool
    loaded: frozenset[str] | None

    def can_sign(self, kid: str) -> bool:
        """Whether no live replica lacks the private half."""
        return self.loaded is None or kid in self.loaded


@dataclass(frozen=True, slots=True)
class RingPlan:
    """What is to be done to a ring.

    `ring`: with all changes that need no new key; when `changed` they are written first. `missing`: the phases for which a key of
    `algorithm` and `size` (bits) must be generated; when the plan `rotates`, the present Next becomes Active in the write that adds the new
    one. `compromised`: kids that never come back. `fresh`: no key has been published before, so nobody keeps a JWKS without these.
    """

    ring: KeyRing
    missing: tuple[KeyPhase, ...]
    algorithm: str
    size: int
    changed: bool
    compromised: frozenset[str]
    fresh: bool = False
    requested: str | None = None
    rotation: Rotation | None = None

    @property
    def rotates(self) -> bool:
        """Whether Next becomes Active now."""
        return self.rotation is not None and self.rotation.blocked is None

    @property
    def settled(self) -> bool:
        """Nothing to generate and nothing to write."""
        return not self.missing and not self.changed


def ensure(
    ring: KeyRing | None, *, algorithm: str, size: int, now: float, compromised: Collection[str] = ()
) -> RingPlan:
    """Brings a ring to one Active and one Next. `compromised`: kids that anything (store, status, annotation) ever called so.

    An Active key that was withdrawn is followed by Next at once, for verifiers know that one already. Keys that are there stay as they
    are when the algorithm or size asked for changes: those made from then on follow it.
    """
    before = _EMPTY if ring is None else ring
    current = _withdrawn(before, compromised, now=now)
    if not current.in_phase(KeyPhase.ACTIVE):
        current = _promote_next(current, now=now)
    plan = _plan(before, current, algorithm=algorithm, size=size, compromised=compromised)
    return replace(plan, fresh=ring is None)


def decide(
    ring: KeyRing | None,
    policy: Policy,
    limits: Ceilings,
    *,
    now: float,
    owner: str,
    requested: str | None = None,
    compromised: Collection[str] = (),
    fleet: Fleet | None = None,
    paused: bool = False,
) -> RingPlan:
    """Everything that is to be done now. `fleet` is None as long as the ring is not in the store: no replica can act on it then.

    `owner`: the object's uid; `requested`: its rotate annotation. One that is there when the object comes, rotates nothing.
    """
    before = _EMPTY if ring is None else ring
    current = ensure(before, algorithm=policy.algorithm, size=policy.size, now=now, compromised=compromised).ring
    if current.owner != owner:
        current = replace(current, owner=owner, handled_rotation=requested)
    current = _swept(current, now=now, limits=limits)
    if fleet is not None and fleet.applied and not paused:
        current = _confirmed(current, now=now, policy=policy, limits=limits)
    plan = _plan(before, current, algorithm=policy.algorithm, size=policy.size, compromised=compromised)
    plan = replace(plan, fresh=ring is None, requested=requested)
    if plan.missing or fleet is None:
        return plan
    rotation = _rotation(current, policy, limits, now=now, requested=requested, fleet=fleet, paused=paused)
    missing = (KeyPhase.NEXT,) if rotation is not None and rotation.blocked is None else ()
    return replace(plan, rotation=rotation, missing=missing)


def with_generated(plan: RingPlan, generated: Mapping[KeyPhase, PrivateKey], *, now: float) -> KeyRing:
    """The plan's ring with the keys that it asked for. Raises ValueError when they are not what it asked for."""
    if set(generated) != set(plan.missing):
        raise ValueError("the generated keys are not those that the plan asks for")
    taken = {key.kid for key in plan.ring.keys} | plan.compromised
    for key in generated.values():
        # A kid stands for one key for ever; a compromised one never comes back, not even by an import.
        if key.kid in taken:
            raise ValueError("a generated key has the kid of another or of a compromised key")
        taken.add(key.kid)
    ring = plan.ring
    if plan.rotates:
        ring = replace(_promote_next(_retire_active(ring, now=now), now=now), handled_rotation=plan.requested)
    # What signs now is published with it. The first keys come together: there never is a JWKS without the one that is Next.
    made = tuple(
        new_key(generated[phase], phase, now=now, published=plan.fresh or phase is KeyPhase.ACTIVE)
        for phase in plan.missing
    )
    private = {**ring.private, **{key.kid: key for key in generated.values()}}
    return replace(ring, keys=ordered((*ring.keys, *made)), private=private)


def new_key(key: PrivateKey, phase: KeyPhase, *, now: float, published: bool = True, imported: bool = False) -> RingKey:
    """A key as it comes into the ring. `published`: it needs no confirmation by the replicas to count as that."""
    return RingKey(
        kid=key.kid,
        algorithm=key.algorithm,
        size=key.size,
        phase=phase,
        created_at=now,
        published_at=now if published else None,
        activated_at=now if phase is KeyPhase.ACTIVE else None,
        retired_at=None,
        remove_at=None,
        jwk=key.public.jwk,
        imported=imported,
    )


def withdraw(ring: KeyRing, kids: Collection[str]) -> KeyRing:
    """Marks keys as compromised, for ever, and drops their private halves. Kids without a key are noted, should one come back."""
    keys = tuple(replace(key, phase=KeyPhase.COMPROMISED) if key.kid in kids else key for key in ring.keys)
    lost = {key.kid for key in keys if key.phase is KeyPhase.COMPROMISED}
    private = {kid: key for kid, key in ring.private.items() if kid not in lost}
    unknown = sorted(set(kids) - {key.kid for key in keys} - set(ring.withdrawn))
    # Full, it keeps what it has: to forget one for another would go on for ever, and let both back in turn.
    withdrawn = (*ring.withdrawn, *unknown)[:MAX_WITHDRAWN]
    return replace(ring, keys=ordered(keys), private=private, withdrawn=withdrawn)


def unconfirmed(ring: KeyRing) -> bool:
    """Whether something waits for the replicas to act on the ring: a key to be published everywhere, or to be out of use everywhere."""
    return any(_waits(key) for key in ring.keys)


def _waits(key: RingKey) -> bool:
    if key.phase is KeyPhase.RETIRED:
        return key.remove_at is None
    return key.phase in (KeyPhase.NEXT, KeyPhase.ACTIVE) and key.published_at is None


def _plan(before: KeyRing, current: KeyRing, *, algorithm: str, size: int, compromised: Collection[str]) -> RingPlan:
    missing = tuple(phase for phase in (KeyPhase.ACTIVE, KeyPhase.NEXT) if not current.in_phase(phase))
    # A ring that signs nothing has nobody who waits for it: it is written once, with its new keys.
    signed = bool(before.in_phase(KeyPhase.ACTIVE) or before.in_phase(KeyPhase.NEXT))
    return RingPlan(
        ring=current,
        missing=missing,
        algorithm=algorithm,
        size=size,
        changed=not current.holds_the_same(before) and (signed or not missing),
        compromised=frozenset(compromised) | current.refused,
    )


def _withdrawn(ring: KeyRing, kids: Collection[str], *, now: float) -> KeyRing:
    counting = {key.kid for key in ring.keys if key.phase is not KeyPhase.COMPROMISED}
    signing = {key.kid for phase in (KeyPhase.ACTIVE, KeyPhase.NEXT) for key in ring.in_phase(phase)}
    named = set(kids)
    if (signing and signing <= named) or _names_the_pair_before(ring, named):
        # The Secret's content is in the wrong hands: so is every private half in it.
        named |= set(ring.private)
    current = withdraw(ring, named)
    return current.with_incident(reasons.KEYS_COMPROMISED, now) if counting & named else current


def _names_the_pair_before(ring: KeyRing, named: Collection[str]) -> bool:
    """Whether Active and the one before it are named: all that a status says of the Secret which is one rotation behind.

    Whoever names them by it means everything in the Secret, and Next lay there with Active. One that was withdrawn before is no longer
    Retired, so the annotation's older names do not count.
    """
    retired = max(ring.in_phase(KeyPhase.RETIRED), key=lambda key: key.retired_at or 0.0, default=None)
    active = {key.kid for key in ring.in_phase(KeyPhase.ACTIVE)}
    return retired is not None and bool(active) and active | {retired.kid} <= set(named)


def _swept(ring: KeyRing, *, now: float, limits: Ceilings) -> KeyRing:
    """Without what is over: retired keys leave; of compromised ones the kid stays, for ever."""
    stamped = tuple(
        replace(key, retired_at=key.retired_at or now, remove_at=limits.tokens.end(now))
        if key.phase is KeyPhase.COMPROMISED and key.remove_at is None
        else key
        for key in ring.keys
    )
    full = len(stamped) > MAX_KEYS - _ROOM_FOR_EMERGENCIES
    over = {
        key.kid: key
        for key in stamped
        if (key.remove_at is not None and key.remove_at <= now) or (full and key.phase is KeyPhase.COMPROMISED)
    }
    named = [kid for kid, key in over.items() if key.phase is KeyPhase.COMPROMISED]
    for kid in named[max(0, MAX_WITHDRAWN - len(ring.withdrawn)) :]:
        del over[kid]  # there is no room to remember it otherwise
    ring = replace(ring, keys=tuple(key for key in stamped if key.kid not in over))
    return withdraw(ring, [kid for kid in named if kid in over])


def _confirmed(ring: KeyRing, *, now: float, policy: Policy, limits: Ceilings) -> KeyRing:
    """Every replica acts on the ring: what is new stands in every JWKS, and nobody signs with what is retired, so its half goes."""
    if not unconfirmed(ring):
        return ring
    keys = []
    stopped = set()
    for key in ring.keys:
        if not _waits(key):
            keys.append(key)
        elif key.phase is KeyPhase.RETIRED:
            stopped.add(key.kid)
            keys.append(replace(key, remove_at=removable_at(now, policy, limits)))
        else:
            keys.append(replace(key, published_at=now))
    private = {kid: key for kid, key in ring.private.items() if kid not in stopped}
    return replace(ring, keys=tuple(keys), private=private)


def _rotation(
    ring: KeyRing,
    policy: Policy,
    limits: Ceilings,
    *,
    now: float,
    requested: str | None,
    fleet: Fleet,
    paused: bool,
) -> Rotation | None:
    (active,), (following,) = ring.in_phase(KeyPhase.ACTIVE), ring.in_phase(KeyPhase.NEXT)
    if requested is not None and requested != ring.handled_rotation:
        cause = Cause.REQUESTED
    elif (due := due_at(active, policy.rotate_every)) is not None and due <= now:
        cause = Cause.SCHEDULED
    else:
        return None
    ready = promotable_at(following, policy, limits)
    if paused:
        return Rotation(cause, reasons.PAUSED)
    if ready is None:
        return Rotation(cause, reasons.NEXT_NOT_PUBLISHED)
    if now < ready:
        return Rotation(cause, reasons.NEXT_TOO_YOUNG, ready)
    if not fleet.can_sign(following.kid):
        return Rotation(cause, reasons.NEXT_NOT_LOADED)
    if len(ring.keys) >= MAX_KEYS - _ROOM_FOR_EMERGENCIES:
        ends = [key.remove_at for key in ring.keys if key.remove_at is not None]
        return Rotation(cause, reasons.TOO_MANY_KEYS, min(ends, default=None))
    return Rotation(cause)


def _retire_active(ring: KeyRing, *, now: float) -> KeyRing:
    keys = (
        replace(key, phase=KeyPhase.RETIRED, retired_at=now) if key.phase is KeyPhase.ACTIVE else key
        for key in ring.keys
    )
    return replace(ring, keys=tuple(keys))


def _promote_next(ring: KeyRing, *, now: float) -> KeyRing:
    keys = (
        replace(key, phase=KeyPhase.ACTIVE, activated_at=now) if key.phase is KeyPhase.NEXT else key
        for key in ring.keys
    )
    return replace(ring, keys=ordered(keys))


_ORDER: Final = {
    phase: place for place, phase in enumerate((KeyPhase.ACTIVE, KeyPhase.NEXT, KeyPhase.RETIRED, KeyPhase.COMPROMISED))
}


def ordered(keys: Iterable[RingKey]) -> tuple[RingKey, ...]:
    """The one that signs first, as people read the status; within a phase the order in which they came, so that nothing moves idly."""
    return tuple(sorted(keys, key=lambda key: _ORDER[key.phase]))
