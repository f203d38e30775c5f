"""Credentials that the operator makes for a client: their public halves, as the Secret's own record and the client's row hold them.

The record stands in the Secret beside the private half and is written with it, in one write: whichever of store and operator is lost, what
was made, when, what it replaced and until when that counts can be told from the Secret alone. It holds public keys and hashes only.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from keyturn.clients.sources import CredentialKind
from keyturn.clients.state import SOURCE_GENERATE_KEY, ClientKey, ClientState, SecretHash
from keyturn.jose.keys import KeyRejected, load

FORMAT: Final = 1


# What annotations hold may be anything: times end far beyond any clock, and serials where the store's integers do.
_MAX_TIME: Final = 1e12
_MAX_SERIAL: Final = 2**63


class RecordDamaged(ValueError):
    """Not a record of ours, or of a version that is not known."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One generated key (`jwk`, the public normal form) or secret (`hash`). `id`: the kid, or the secret's id. Times: epoch seconds.

    `replaced_at`, `not_after`: once another has taken its place. `announced`: readers accept it, but nobody was given it yet.
    """

    id: str
    made_at: float
    jwk: Mapping[str, Any] | None = None
    hash: str | None = field(default=None, repr=False)
    replaced_at: float | None = None
    not_after: float | None = None
    announced: bool = False

    @property
    def is_previous(self) -> bool:
        """Whether another has taken its place."""
        return self.replaced_at is not None

    def has_ended(self, now: float) -> bool:
        """Whether it counts no more, for ever."""
        return self.not_after is not None and now >= self.not_after

    def ending(self, at: float) -> Self:
        """The same, ending then at the latest: an end never moves away."""
        return replace(self, not_after=at if self.not_after is None else min(at, self.not_after))

    def to_body(self) -> dict[str, Any]:
        material = {"jwk": dict(self.jwk)} if self.jwk is not None else {"hash": self.hash}
        ends = {} if self.replaced_at is None else {"replacedAt": self.replaced_at, "notAfter": self.not_after}
        return {"id": self.id, "madeAt": self.made_at, **material, **ends}

    @classmethod
    def from_body(cls, body: Mapping[str, Any], kind: CredentialKind) -> Self:
        replaced_at, not_after = body.get("replacedAt"), body.get("notAfter")
        one = cls(
            id=str(body["id"]),
            made_at=_time(body["madeAt"]),
            jwk=dict(body["jwk"]) if kind is CredentialKind.KEY else None,
            hash=str(body["hash"]) if kind is CredentialKind.SECRET else None,
            replaced_at=None if replaced_at is None else _time(replaced_at),
            not_after=None if not_after is None else _time(not_after),
        )
        if one.jwk is not None and load(one.jwk).kid != one.id:
            raise ValueError("the kid is another")
        return one


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """What a Secret's annotation says of the credentials in it.

    `uid`: of the object that they were made for. `serial` counts what was made for it, so that an older copy is known as one. `handled`:
    the value of the rotate annotation that was heeded last. `members`: the Secret's members that are ours, each with a digest of its
    value. `created`: we made the Secret itself.
    """

    uid: str
    kind: CredentialKind
    serial: int
    current: Credential
    previous: tuple[Credential, ...] = ()
    handled: str | None = None
    created: bool = False
    retain: bool = False
    members: Mapping[str, str] = field(default_factory=dict)

    def to_text(self) -> str:
        """One line of JSON."""
        body = {
            "format": FORMAT,
            "uid": self.uid,
            "kind": self.kind.value,
            "serial": self.serial,
            "current": self.current.to_body(),
            "previous": [one.to_body() for one in self.previous],
            "handled": self.handled,
            "created": self.created,
            "retain": self.retain,
            "members": dict(sorted(self.members.items())),
        }
        return json.dumps(body, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Reads `to_text`'s form. Raises RecordDamaged."""
        try:
            body = json.loads(text)
            if body["format"] != FORMAT:
                raise RecordDamaged("its format is not known")
            kind = CredentialKind(body["kind"])
            previous = tuple(Credential.from_body(one, kind) for one in body["previous"])
            if not all(one.is_previous and one.not_after is not None for one in previous):
                raise RecordDamaged("something replaced has no end")
            handled = body["handled"]
            return cls(
                uid=str(body["uid"]),
                kind=kind,
                serial=_serial(body["serial"]),
                current=Credential.from_body(body["current"], kind),
                previous=previous,
                handled=None if handled is None else str(handled),
                created=body["created"] is True,
                retain=body["retain"] is True,
                members={str(name): str(digest) for name, digest in body["members"].items()},
            )
        except RecordDamaged:
            raise
        except (KeyRejected, KeyError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            raise RecordDamaged("it cannot be read") from error


def _time(value: Any) -> float:
    time = float(value)
    if not 0 <= time < _MAX_TIME:  # also NaN
        raise ValueError("not a time")
    return time


def _serial(value: Any) -> int:
    serial = int(value)
    if not 0 <= serial < _MAX_SERIAL:
        raise ValueError("not a serial")
    return serial


def of_row(last: ClientState | None, kind: CredentialKind) -> tuple[Credential, ...]:
    """The credentials of this kind that the client's row accepts, or did."""
    if last is None:
        return ()
    if kind is CredentialKind.KEY:
        return tuple(
            Credential(
                id=key.kid,
                made_at=key.added_at or last.created_at,
                jwk=key.jwk,
                replaced_at=key.replaced_at,
                not_after=key.not_after,
                announced=key.announced,
            )
            for key in last.keys
            if key.source == SOURCE_GENERATE_KEY
        )
    return tuple(
        Credential(
            id=one.id or one.origin,
            made_at=one.added_at or last.created_at,
            hash=one.hash,
            replaced_at=one.replaced_at,
            not_after=one.not_after,
            announced=one.announced,
        )
        for one in last.secrets
    )


def to_key(one: Credential) -> ClientKey | None:
    """The key as a row holds it; None for one that cannot be used (the row was damaged)."""
    try:
        key = load(one.jwk or {})
    except KeyRejected:
        return None
    return ClientKey(
        kid=one.id,
        thumbprint=key.thumbprint,
        algorithm=key.algorithm,
        size=key.size,
        source=SOURCE_GENERATE_KEY,
        jwk=key.jwk,
        not_after=one.not_after,
        added_at=one.made_at,
        replaced_at=one.replaced_at,
        announced=one.announced,
    )


def to_hash(one: Credential, secret_name: str) -> SecretHash:
    """The secret as a row holds it."""
    return SecretHash(
        hash=one.hash or "",
        not_after=one.not_after,
        origin=f"{secret_name}/generated/{one.id}",
        id=one.id,
        added_at=one.made_at,
        replaced_at=one.replaced_at,
        announced=one.announced,
    )
