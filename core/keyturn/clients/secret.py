"""A client's secret, from the Kubernetes Secret that holds it to the hash in the client's state."""

import hmac
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from keyturn import reasons
from keyturn.clients.registration import CLIENT_SECRET_HASH
from keyturn.clients.state import ClientState, SecretHash
from keyturn.problems import Problem
from keyturn.secrets import DEFAULT_COST, MAX_SECRET_BYTES, hash_secret, is_foreign_hash, verify

MEMBER: Final = "client_secret"

_FIELD: Final = "spec.clientSecret.secretName"
_NAMES_SHOWN: Final = 10


def secret_origin(*, name: str, uid: str, resource_version: str) -> str:
    """What names one version of one Secret: equal origins hold the same value."""
    return f"{name}/{uid}/{resource_version}"


def new_secret_id() -> str:
    """What tells a secret from others in the status and in the record of uses; drawn, so that it says nothing of the value."""
    return os.urandom(8).hex()


def with_secret(
    state: ClientState,
    data: Mapping[str, bytes] | None,
    *,
    name: str,
    origin: str,
    last: ClientState | None,
    valid: bool,
    cost: int = DEFAULT_COST,
    now: float | None = None,
) -> tuple[ClientState, list[Problem]]:
    """The state with the hash of what the Secret `name` holds, and what is wrong with that. Hashes with bcrypt: not for an event loop.

    `data` are the Secret's decoded members, None when there is no such Secret. A Secret without a usable value grants nothing. `valid` says
    whether the rest of the edit was (see `keyturn.clients.parse.invalidates`): in an invalid edit only the Secret that was in force
    already counts, for another one would be an addition. The last hash is kept as long as the value is the same, so that nothing changes
    for readers when only the Secret's labels did.
    """
    bare = replace(state, secrets=())
    if data is None:
        fault = f"there is no Secret {name} in this namespace yet: create it with the member {MEMBER}"
        return bare, [Problem(reasons.SECRET_NOT_FOUND, _FIELD, fault)]
    previous = last.secrets if last is not None else ()
    same_secret = [kept for kept in previous if kept.origin.partition("/")[0] == name]
    allowed = valid or bool(same_secret and last is not None and still_open(state, last))
    value = data.get(MEMBER)
    if value is None and CLIENT_SECRET_HASH in data:
        return _with_hash(bare, data[CLIENT_SECRET_HASH], previous, name=name, origin=origin, allowed=allowed, now=now)
    if value is None:
        found = (
            ", ".join(sorted(data)[:_NAMES_SHOWN]) + (", ..." if len(data) > _NAMES_SHOWN else "") if data else "none"
        )
        return bare, [
            Problem(reasons.SECRET_INVALID, _FIELD, f"Secret {name}: expected the member {MEMBER}, found: {found}")
        ]
    if (flaw := _flaw(value)) is not None:
        return bare, [Problem(reasons.SECRET_INVALID, _FIELD, f"Secret {name}: the member {MEMBER} {flaw}")]
    if not allowed:
        return bare, []
    for kept in same_secret:
        if kept.origin == origin:
            return replace(state, secrets=(kept,)), []
    for kept in previous:
        if verify(value, kept.hash):
            same = replace(kept, origin=origin, not_after=None, replaced_at=None, announced=False)
            return replace(state, secrets=(same,)), []
    fresh = SecretHash(hash_secret(value, cost), not_after=None, origin=origin, id=new_secret_id(), added_at=now)
    return replace(state, secrets=(fresh,)), []


def _with_hash(
    bare: ClientState,
    value: bytes,
    previous: tuple[SecretHash, ...],
    *,
    name: str,
    origin: str,
    allowed: bool,
    now: float | None,
) -> tuple[ClientState, list[Problem]]:
    """The state with a hash that another system made: whoever moves clients here has nothing else of their secrets."""
    text = value.decode("ascii", "replace")
    if not is_foreign_hash(text):
        fault = f"Secret {name}: the member {CLIENT_SECRET_HASH} is no bcrypt hash of a cost from 4 to 14"
        return bare, [Problem(reasons.SECRET_INVALID, _FIELD, fault)]
    if not allowed:
        return bare, []
    for kept in previous:
        if hmac.compare_digest(kept.hash, text):
            same = replace(kept, origin=origin, not_after=None, replaced_at=None, announced=False)
            return replace(bare, secrets=(same,)), []
    fresh = SecretHash(text, not_after=None, origin=origin, id=new_secret_id(), added_at=now)
    return replace(bare, secrets=(fresh,)), []


def still_open(state: ClientState, last: ClientState) -> bool:
    """Whether an invalid edit left the client its method and an audience (see `keyturn.clients.parse`)."""
    return state.auth_method == last.auth_method and not (last.audiences and not state.audiences)


def _flaw(value: bytes) -> str | None:
    """What is wrong with a secret, without the secret."""
    if not value:
        return "is empty"
    if len(value) > MAX_SECRET_BYTES:
        return f"has {len(value)} bytes, at most {MAX_SECRET_BYTES} can be hashed"
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return "is not UTF-8 text"
    if text != text.strip("\r\n"):
        return "begins or ends with a line break: make it without one (kubectl create secret --from-literal, or printf)"
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        return "holds control characters, which no client can send"
    return None
