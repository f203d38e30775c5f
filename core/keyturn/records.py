"""The rows that the operator writes and every API replica reads: one a Kubernetes object.

A record holds what is *in force* for its object, in a normal form (`body`, plain JSON): the operator has parsed, checked and merged the
object's spec already, so that a reader only loads. The bodies' shapes are the `to_body`/`from_body` pairs of
`keyturn.clients.state`, `keyturn.keys.state` and `keyturn.rules.state`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Body = Mapping[str, Any]


class Kind(StrEnum):
    """The kind of the object that a record stands for."""

    CLIENT = "ClientCredential"
    SIGNING_KEY = "SigningKey"
    ACCESS_RULE = "AccessRule"


@dataclass(frozen=True, slots=True)
class Record:
    """One object's state in force, as the operator wants it in the store.

    `uid` is the object's: a delete names it and so never touches a namesake's row. `created_at` is its creationTimestamp in
    seconds since the epoch. `client_id` stands on clients only; among live records it is unique.
    """

    kind: Kind
    uid: str
    namespace: str
    name: str
    generation: int
    created_at: float
    body: Body
    client_id: str | None = None

    @property
    def seniority(self) -> tuple[float, str, str]:
        """Sorts contenders for one client id: the oldest object owns it, then the first by namespace and name."""
        return (self.created_at, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as the store holds it; a deleted one is a tombstone with an empty body."""

    record: Record
    revision: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class LastState:
    """What an object of this name had in force last, whichever uid it had. It outlives the object: a name may come back."""

    kind: Kind
    namespace: str
    name: str
    body: Body


@dataclass(frozen=True, slots=True)
class Revocation:
    """One revoked access token, by the SHA-256 (hex) of client id and jti; kept until the token would have expired."""

    token_hash: str
    expires_at: float
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Replica:
    """What one API process said of itself last: what it has applied and which signing keys' private halves it has loaded."""

    id: str
    applied_revision: int
    loaded_kids: tuple[str, ...]
    seen_at: float
    version: str = ""


@dataclass(frozen=True, slots=True)
class UsedJti:
    """An assertion's identifier to be consumed: SHA-256 (raw bytes) of client id and jti, and when it may be forgotten."""

    key: bytes
    forget_at: float


@dataclass(frozen=True, slots=True)
class Activity:
    """The last use of a client, or of one of its keys (`kid`; empty for a secret), in seconds since the epoch."""

    client_id: str
    kid: str
    used_at: float


@dataclass(frozen=True, slots=True)
class Denial:
    """One request that was not let through: the id that its answer carries, when, and why (`body`, plain JSON, no token)."""

    request_id: str
    at: float
    body: Body
