"""When a signing key is published, may sign, is due to be followed, and may be forgotten. Times are seconds since the epoch."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from keyturn.keys.ring import KeyRing
from keyturn.keys.state import Ceiling, KeyPhase, RingKey, SigningKeyState

JITTER: Final = 0.1
"""A scheduled rotation comes up to this part of `rotate_every` early, never late: installations made together do not rotate together."""

MAX_JWKS_AGE: Final = 60
"""The longest `max-age` of the JWKS in seconds: for so long verifiers elsewhere accept a key that was withdrawn."""

# A change of the max-age itself reaches all replicas within this.
_SPREAD: Final = 1.0
# A replica that is cut off from the store signs on with a retired key until its mount has lost it.
_MOUNT_SPREAD: Final = 60.0
# A new setting of the longest token lifetime has reached all API processes within this: they are restarted one by one.
_ROLLOUT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How keys are made and followed. `rotate_every`: None for never by schedule. Durations in seconds, sizes in bits."""

    algorithm: str
    size: int
    publish_before: float
    retain_after: float = 0.0
    rotate_every: float | None = None


@dataclass(frozen=True, slots=True)
class Ceilings:
    """How long others may keep the JWKS, and how long a token may count after it was signed."""

    cache: Ceiling
    tokens: Ceiling


def jwks_max_age(publish_before: float) -> int:
    """The JWKS' `max-age`: a key that was published for half of its lead time is known to whoever honours it."""
    return min(MAX_JWKS_AGE, int(publish_before // 2))


def ceilings(
    last: SigningKeyState | None, *, fresh: bool, publish_before: float, token_life: float, now: float
) -> Ceilings:
    """What holds now, and what the store remembers of the time before. `token_life`: the longest lifetime of a token and the clock skew.

    `fresh`: no key has ever been published, so nobody keeps an older JWKS.
    """
    max_age, life = float(jwks_max_age(publish_before)), token_life + _MOUNT_SPREAD
    cache = (last.cache if last is not None else None) or (Ceiling(max_age) if fresh else Ceiling(float(MAX_JWKS_AGE)))
    tokens = (last.tokens if last is not None else None) or Ceiling(life)
    return Ceilings(cache.changed(max_age, now + _SPREAD), tokens.changed(life, now + _ROLLOUT))


def due_at(key: RingKey, rotate_every: float | None) -> float | None:
    """When the Active key is to be followed. The jitter is drawn from its kid, so that no restart moves it."""
    if rotate_every is None or key.activated_at is None:
        return None
    drawn = int.from_bytes(hashlib.sha256(key.kid.encode()).digest()[:8]) / 2**64
    return key.activated_at + rotate_every * (1 - JITTER * drawn)


def promotable_at(key: RingKey, policy: Policy, limits: Ceilings) -> float | None:
    """From when on the Next key may sign: everyone who keeps the JWKS for as long as it said has it. None: it is not published yet."""
    if key.published_at is None:
        return None
    return max(key.published_at + policy.publish_before, limits.cache.end(key.published_at))


def removable_at(stopped_at: float, policy: Policy, limits: Ceilings) -> float:
    """When a key that signs nothing any more since `stopped_at` leaves the JWKS: its last token has expired."""
    return max(stopped_at + policy.retain_after, limits.tokens.end(stopped_at))


def next_rotation(ring: KeyRing, policy: Policy, limits: Ceilings) -> float | None:
    """When the schedule brings the next rotation; None without a schedule, or while the keys are being made."""
    for active in ring.in_phase(KeyPhase.ACTIVE):
        due = due_at(active, policy.rotate_every)
        ready = [promotable_at(key, policy, limits) for key in ring.in_phase(KeyPhase.NEXT)]
        return due if due is None else max([due, *(one for one in ready if one is not None)])
    return None


def first_after(moments: Iterable[float | None], now: float) -> float | None:
    """The earliest of these moments that is still to come."""
    return min((moment for moment in moments if moment is not None and moment > now), default=None)
