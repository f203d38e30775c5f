"""From the Secret of a registration to the hashes in the client's state."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from keyturn import reasons
from keyturn.clients.registration import (
    CLIENT_SECRET_HASH,
    REGISTRATION_TOKEN_HASH,
    SECRET_TYPE,
    Registration,
)
from keyturn.clients.state import SECRET_METHODS, ClientState, SecretHash
from keyturn.problems import Problem
from keyturn.secrets import is_generated_hash

_FIELD: Final = "spec.registration.secretName"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


def secret_of(registration: Registration | None) -> str | None:
    """The name of the Secret to read, if it is one."""
    name = None if registration is None else registration.secret_name
    return name if name is not None and _NAME.fullmatch(name) else None


def with_registration(
    state: ClientState,
    registration: Registration,
    *,
    kind: str | None,
    data: Mapping[str, bytes] | None,
    origin: str,
    last: ClientState | None,
    valid: bool,
    own_secret: bool = True,
) -> tuple[ClientState, list[Problem]]:
    """The state with the registration and what its Secret gives, and what is wrong with that.

    `kind` is the Secret's type and `data` its decoded members, None when there is no such Secret: one of another type gives nothing,
    whatever it holds. In an invalid edit (`valid` false) only a Secret that was in force already gives a client secret, for another
    one would be an addition. `own_secret` false: the client's secret comes from elsewhere (`clientSecret`).
    """
    hashes = _hashes(data) if data is not None and kind == SECRET_TYPE else {}
    state = replace(state, registration=replace(registration, token_hash=hashes.get(REGISTRATION_TOKEN_HASH)))
    name = registration.secret_name
    if name is None or state.auth_method not in SECRET_METHODS or not own_secret:
        return state, []
    if data is None:
        fault = (
            f"there is no Secret {name}, with which this client was registered: delete this object and register anew"
        )
        return state, [Problem(reasons.SECRET_NOT_FOUND, _FIELD, fault)]
    hashed = hashes.get(CLIENT_SECRET_HASH)
    if hashed is None:
        fault = f"Secret {name}: expected type {SECRET_TYPE} with the member {CLIENT_SECRET_HASH}"
        return state, [Problem(reasons.SECRET_INVALID, _FIELD, fault)]
    known = SecretHash(hash=hashed, not_after=None, origin=origin)
    before = () if last is None else last.secrets
    if not valid and not any(one.hash == hashed for one in before):
        return state, []
    return replace(state, secrets=(known,)), []


def held_registration(kept: ClientState, state: ClientState, last: ClientState | None) -> ClientState:
    """What a paused object keeps in force beside `kept`: `state`'s registration, and the secret that counted before."""
    if state.registration is None:
        return kept
    before = () if last is None or kept.auth_method != last.auth_method else last.secrets
    secrets = tuple(one for one in kept.secrets or state.secrets if one in before)
    return replace(kept, registration=state.registration, secrets=secrets)


def kept_registration(state: ClientState, registration: Registration, last: ClientState | None) -> ClientState:
    """The state while the Secret cannot be read: what was in force of the same Secret counts on."""
    before = None if last is None else last.registration
    if last is None or before is None or before.secret_name != registration.secret_name:
        return replace(state, registration=registration)
    still = [one for one in last.secrets if one.origin.partition("/")[0] == registration.secret_name]
    secrets = (*state.secrets, *still) if state.auth_method == last.auth_method else state.secrets
    return replace(state, registration=replace(registration, token_hash=before.token_hash), secrets=secrets)


def _hashes(data: Mapping[str, bytes]) -> dict[str, str]:
    found = {}
    for member in (CLIENT_SECRET_HASH, REGISTRATION_TOKEN_HASH):
        text = data.get(member, b"").decode("ascii", "replace")
        if is_generated_hash(text):
            found[member] = text
    return found
