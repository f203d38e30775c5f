"""What the key ring lacks, and the ring with it: decisions only, keys are generated elsewhere.

An installation always has one Active key and one Next that is published already, so that a rotation waits for no mount.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from keyturn.jose.signing import PrivateKey
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import KeyPhase, RingKey

_EMPTY: Final = KeyRing()


@dataclass(frozen=True, slots=True)
class RingPlan:
    """What is to be done to a ring.

    `ring`: with all changes that need no new key. `missing`: the phases for which a key of `algorithm` and `size` (bits) must
    be generated. `changed`: whether `ring` differs from what was looked at. `compromised`: kids that never come back.
    """

    ring: KeyRing
    missing: tuple[KeyPhase, ...]
    algorithm: str
    size: int
    changed: bool
    compromised: frozenset[str]

    @property
    def settled(self) -> bool:
        """Nothing to generate and nothing to write."""
        return not self.missing and not self.changed


def ensure(
    ring: KeyRing | None, *, algorithm: str, size: int, now: float, compromised: Collection[str] = ()
) -> RingPlan:
    """Brings a ring to one Active and one Next. `compromised`: kids that anything (store, status) ever called so.

    An Active key that was withdrawn is followed by Next at once, for verifiers know that one already. Keys that are there stay as they
    are when the algorithm or size asked for changes: those made from then on follow it.
    """
    before = _EMPTY if ring is None else ring
    current = withdraw(before, compromised)
    if not current.in_phase(KeyPhase.ACTIVE):
        current = _promote_next(current, now=now)
    missing = tuple(phase for phase in (KeyPhase.ACTIVE, KeyPhase.NEXT) if not current.in_phase(phase))
    return RingPlan(
        ring=current,
        missing=missing,
        algorithm=algorithm,
        size=size,
        changed=current.keys != before.keys or set(current.private) != set(before.private),
        compromised=frozenset(compromised) | {key.kid for key in current.in_phase(KeyPhase.COMPROMISED)},
    )


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
    made = tuple(_new(generated[phase], phase, now=now) for phase in plan.missing)
    private = {**plan.ring.private, **{key.kid: key for key in generated.values()}}
    return replace(plan.ring, keys=_ordered((*plan.ring.keys, *made)), private=private)


def withdraw(ring: KeyRing, kids: Collection[str]) -> KeyRing:
    """Marks keys as compromised, for ever, and drops their private halves. Kids that the ring does not know change nothing."""
    keys = tuple(replace(key, phase=KeyPhase.COMPROMISED) if key.kid in kids else key for key in ring.keys)
    lost = {key.kid for key in keys if key.phase is KeyPhase.COMPROMISED}
    private = {kid: key for kid, key in ring.private.items() if kid not in lost}
    return replace(ring, keys=_ordered(keys), private=private)


def _promote_next(ring: KeyRing, *, now: float) -> KeyRing:
    keys = (
        replace(key, phase=KeyPhase.ACTIVE, activated_at=now) if key.phase is KeyPhase.NEXT else key
        for key in ring.keys
    )
    return replace(ring, keys=_ordered(keys))


def _new(key: PrivateKey, phase: KeyPhase, *, now: float) -> RingKey:
    return RingKey(
        kid=key.kid,
        algorithm=key.algorithm,
        size=key.size,
        phase=phase,
        created_at=now,
        published_at=now,
        activated_at=now if phase is KeyPhase.ACTIVE else None,
        retired_at=None,
        remove_at=None,
        jwk=key.public.jwk,
    )


_ORDER: Final = {
    phase: place for place, phase in enumerate((KeyPhase.ACTIVE, KeyPhase.NEXT, KeyPhase.RETIRED, KeyPhase.COMPROMISED))
}


def _ordered(keys: Iterable[RingKey]) -> tuple[RingKey, ...]:
    """The one that signs first, as people read the status; within a phase the order in which they came, so that nothing moves idly."""
    return tuple(sorted(keys, key=lambda key: _ORDER[key.phase]))
