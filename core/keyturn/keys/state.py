"""Signing keys as everyone may see them: public halves, phases and times. The body of the SigningKey record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from keyturn.jose import keys


class KeyPhase(StrEnum):
    """Where a signing key stands in its life. Compromised is final."""

    NEXT = "Next"
    ACTIVE = "Active"
    RETIRED = "Retired"
    COMPROMISED = "Compromised"


class InvalidState(ValueError):
    """A body that is not in our normal form; the text names the member, never a value."""


@dataclass(frozen=True, slots=True)
class RingKey:
    """One signing key. Times are seconds since the epoch; `size` is in bits; `jwk` is the public half in normal form.

    `published_at`: since when it stands in every replica's JWKS; None until they are known to have it. `remove_at`: when the last token
    that it signed has expired, and so it leaves the JWKS; None until every replica is known to sign with it no more. `imported`: it was
    not made here, so tokens that it signed may be older than any object.
    """

    kid: str
    algorithm: str
    size: int
    phase: KeyPhase
    created_at: float
    published_at: float | None
    activated_at: float | None
    retired_at: float | None
    remove_at: float | None
    jwk: Mapping[str, Any] = field(repr=False, hash=False)
    imported: bool = False

    def to_body(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "kid": self.kid,
            "algorithm": self.algorithm,
            "size": self.size,
            "phase": self.phase.value,
            "createdAt": self.created_at,
            "publishedAt": self.published_at,
            "activatedAt": self.activated_at,
            "retiredAt": self.retired_at,
            "removeAt": self.remove_at,
            "jwk": dict(self.jwk),
            **({"imported": True} if self.imported else {}),
        }

    @classmethod
    def from_body(cls, body: object) -> "RingKey":
        """Reads `to_body`'s form, checking the key. Unknown members are ignored. Raises InvalidState."""
        if not isinstance(body, Mapping):
            raise InvalidState("a key is not an object")
        try:
            public = keys.load(body["jwk"])
            phase = KeyPhase(body["phase"])
        except keys.KeyRejected as error:
            raise InvalidState(f"{error.field}: {error.description}") from None
        except KeyError as error:
            raise InvalidState(f"a key has no {error.args[0]}") from None
        except ValueError:
            raise InvalidState("phase is not a known one") from None
        # One source for each fact: what the public half says must be what stands beside it.
        if (body.get("kid"), body.get("algorithm"), body.get("size")) != (public.kid, public.algorithm, public.size):
            raise InvalidState("kid, algorithm and size do not match jwk")
        return cls(
            kid=public.kid,
            algorithm=public.algorithm,
            size=public.size,
            phase=phase,
            created_at=_time(body, "createdAt"),
            published_at=optional_time(body, "publishedAt"),
            activated_at=optional_time(body, "activatedAt"),
            retired_at=optional_time(body, "retiredAt"),
            remove_at=optional_time(body, "removeAt"),
            jwk=public.jwk,
            imported=body.get("imported") is True,
        )


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How long something may last (seconds), where it was allowed to last longer before: until `until` it was `earlier`."""

    now: float
    until: float = 0.0
    earlier: float = 0.0

    def end(self, moment: float) -> float:
        """When the last of what began up to `moment` is over."""
        return max(moment + self.now, min(moment, self.until) + self.earlier)

    def changed(self, value: float, at: float) -> "Ceiling":
        """With another value from now on. Of several earlier ones the longest that still matters counts."""
        if value == self.now:
            return self
        past = self.earlier if self.until + self.earlier > at else 0.0
        if value >= self.now:
            return Ceiling(value, self.until, past)
        return Ceiling(value, at, max(self.now, past))

    def to_body(self) -> dict[str, float]:
        """Plain JSON."""
        return {"now": self.now, "until": self.until, "earlier": self.earlier}

    @classmethod
    def from_body(cls, body: object) -> "Ceiling":
        """Reads `to_body`'s form. Raises InvalidState."""
        if not isinstance(body, Mapping):
            raise InvalidState("a ceiling is not an object")
        return cls(_time(body, "now"), _time(body, "until"), _time(body, "earlier"))


@dataclass(frozen=True, slots=True)
class SigningKeyState:
    """What is in force for the installation's signing: its keys, and before which `iat` all its tokens are refused.

    `withdrawn`: kids that never count, beside the keys whose phase says so. `serial` is that of the Secret that it was read from.
    `cache`: for how many seconds others may keep the JWKS; `tokens`: for how many a token may count. Both are absent in rows of a
    program that did not write them.
    """

    keys: tuple[RingKey, ...]
    revoke_before: float | None = None
    withdrawn: tuple[str, ...] = ()
    serial: int = 0
    cache: Ceiling | None = None
    tokens: Ceiling | None = None

    @property
    def refused(self) -> frozenset[str]:
        """All kids whose tokens never count again."""
        return frozenset(self.withdrawn) | {key.kid for key in self.keys if key.phase is KeyPhase.COMPROMISED}

    def to_body(self) -> dict[str, Any]:
        """The SigningKey record's body."""
        return {
            "keys": [key.to_body() for key in self.keys],
            "revokeBefore": self.revoke_before,
            "withdrawn": list(self.withdrawn),
            "serial": self.serial,
            "cache": None if self.cache is None else self.cache.to_body(),
            "tokens": None if self.tokens is None else self.tokens.to_body(),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "SigningKeyState":
        """Reads `to_body`'s form. Raises InvalidState."""
        cache, tokens = body.get("cache"), body.get("tokens")
        return cls(
            keys=read_keys(body),
            revoke_before=optional_time(body, "revokeBefore"),
            withdrawn=read_kids(body, "withdrawn"),
            serial=read_serial(body),
            cache=None if cache is None else Ceiling.from_body(cache),
            tokens=None if tokens is None else Ceiling.from_body(tokens),
        )


def refused_kids(body: Mapping[str, Any]) -> frozenset[str]:
    """`refused` of a body that need not be readable otherwise: a damaged one must let no withdrawn key back."""
    withdrawn, listed = body.get("withdrawn"), body.get("keys")
    marked = [
        key.get("kid")
        for key in (listed if isinstance(listed, list) else ())
        if isinstance(key, Mapping) and key.get("phase") == KeyPhase.COMPROMISED.value
    ]
    kids = [*(withdrawn if isinstance(withdrawn, list) else ()), *marked]
    return frozenset(kid for kid in kids if isinstance(kid, str) and 0 < len(kid) <= keys.MAX_KID_LENGTH)


def read_keys(body: Mapping[str, Any]) -> tuple[RingKey, ...]:
    """The member `keys` of a body: no kid twice. Raises InvalidState."""
    listed = body.get("keys")
    if not isinstance(listed, list):
        raise InvalidState("keys is not a list")
    read = tuple(map(RingKey.from_body, listed))
    if len({key.kid for key in read}) != len(read):
        raise InvalidState("keys: a kid stands twice")
    return read


def read_kids(body: Mapping[str, Any], member: str) -> tuple[str, ...]:
    """A list of kids that may be absent. Raises InvalidState."""
    listed = body.get(member)
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(
        isinstance(kid, str) and 0 < len(kid) <= keys.MAX_KID_LENGTH for kid in listed
    ):
        raise InvalidState(f"{member} is not a list of kids")
    return tuple(dict.fromkeys(listed))


def read_serial(body: Mapping[str, Any]) -> int:
    """The member `serial`; 0 where it is absent. Raises InvalidState."""
    value = body.get("serial", 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise InvalidState("serial is not a number")
    return value


def optional_time(body: Mapping[str, Any], member: str) -> float | None:
    """A time in seconds since the epoch that may be absent. Raises InvalidState."""
    return None if body.get(member) is None else _time(body, member)


def _time(body: Mapping[str, Any], member: str) -> float:
    value = body.get(member)
    # Bounded, so that an integer of any length is refused rather than overflowing.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12 or math.isnan(value):
        raise InvalidState(f"{member} is not a time")
    return float(value)
