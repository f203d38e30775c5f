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
    """One signing key. Times are seconds since the epoch; `size` is in bits; `jwk` is the public half in normal form."""

    kid: str
    algorithm: str
    size: int
    phase: KeyPhase
    created_at: float
    published_at: float
    activated_at: float | None
    retired_at: float | None
    remove_at: float | None
    jwk: Mapping[str, Any] = field(repr=False, hash=False)

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
            published_at=_time(body, "publishedAt"),
            activated_at=optional_time(body, "activatedAt"),
            retired_at=optional_time(body, "retiredAt"),
            remove_at=optional_time(body, "removeAt"),
            jwk=public.jwk,
        )


@dataclass(frozen=True, slots=True)
class SigningKeyState:
    """What is in force for the installation's signing: its keys, and before which `iat` all its tokens are refused."""

    keys: tuple[RingKey, ...]
    revoke_before: float | None = None

    def to_body(self) -> dict[str, Any]:
        """The SigningKey record's body."""
        return {"keys": [key.to_body() for key in self.keys], "revokeBefore": self.revoke_before}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "SigningKeyState":
        """Reads `to_body`'s form. Raises InvalidState."""
        return cls(read_keys(body), optional_time(body, "revokeBefore"))


def read_keys(body: Mapping[str, Any]) -> tuple[RingKey, ...]:
    """The member `keys` of a body: no kid twice. Raises InvalidState."""
    listed = body.get("keys")
    if not isinstance(listed, list):
        raise InvalidState("keys is not a list")
    read = tuple(map(RingKey.from_body, listed))
    if len({key.kid for key in read}) != len(read):
        raise InvalidState("keys: a kid stands twice")
    return read


def optional_time(body: Mapping[str, Any], member: str) -> float | None:
    """A time in seconds since the epoch that may be absent. Raises InvalidState."""
    return None if body.get(member) is None else _time(body, member)


def _time(body: Mapping[str, Any], member: str) -> float:
    value = body.get(member)
    # Bounded, so that an integer of any length is refused rather than overflowing.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12 or math.isnan(value):
        raise InvalidState(f"{member} is not a time")
    return float(value)
