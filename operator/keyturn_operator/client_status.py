"""What a ClientCredential's status says: its keys and secrets, what expires, and why it cannot get tokens where it cannot."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from keyturn import reasons
from keyturn.clients.state import SOURCE_GENERATE_KEY, SOURCE_JWKS_URI, SOURCE_PUBLIC_KEYS, ClientKey, ClientState
from keyturn.timestamps import format_rfc3339
from keyturn.tokens.claims import everything_fits
from keyturn_operator.conditions import Verdict, shorten
from keyturn_operator.key_use import Held, Uses, hint, id_of, in_use_instead

# As the CRD has them. More are in force only where many replaced ones are in their overlap: the oldest are not shown.
MAX_KEYS: Final = 24
MAX_SECRETS: Final = 10
_NAMED: Final = 5


def next_change(state: ClientState, now: float, window: float) -> float | None:
    """When time alone changes what the status says: an expiry, a key's begin or end, the moment to tell of that."""
    times = [state.expires_at, *(secret.not_after for secret in state.secrets)]
    for key in state.keys:
        times += [key.not_before, key.not_after]
        if key.source == SOURCE_PUBLIC_KEYS and key.not_after is not None:
            times.append(key.not_after - window)
    return min((time for time in times if time is not None and time > now), default=None)


def usability(state: ClientState, now: float) -> Verdict | None:
    """Why no token can be had with this client although its spec has no mistake; None when one can."""
    if state.suspended:
        return Verdict(
            "False",
            reasons.SUSPENDED,
            "The client is suspended (spec.suspended): it gets no tokens, and those it has are refused.",
        )
    if state.expires_at is not None and now >= state.expires_at:
        text = f"The client has expired at {format_rfc3339(state.expires_at)} (spec.expiresAt)."
        return Verdict("False", reasons.EXPIRED, text)
    if state.service_account is not None:
        return None
    every: tuple[Held, ...] = (*state.keys, *state.secrets)
    if not any(one.is_current(now) and not one.announced for one in every):
        text = "None of the client's keys and secrets is valid now (see their notBefore and notAfter)."
        return Verdict("False", reasons.NO_CREDENTIAL, text)
    return None


def taken(owner_namespace: str, owner_name: str, client_id: str) -> Verdict:
    """The client id is another object's."""
    text = (
        f"The client id {client_id!r} belongs to {owner_namespace}/{owner_name}, which is older: "
        "set another clientId in a new object, or delete that one."
    )
    return Verdict("False", reasons.CLIENT_ID_TAKEN, text)


def shown(state: ClientState, now: float) -> tuple[list[ClientKey], list[Held]]:
    """The keys, and all of keys and secrets, that people are told of: not what was not handed out yet, nor what has ended."""
    keys = [one for one in state.keys if not one.announced and not _has_ended(one, now)]
    secrets = [one for one in state.secrets if not one.announced and not _has_ended(one, now)]
    return keys[:MAX_KEYS], [*keys[:MAX_KEYS], *secrets[:MAX_SECRETS]]


def status_fields(
    state: ClientState | None, secret_name: str | None, uses: Uses, told: Uses, now: float
) -> dict[str, Any]:
    """The status beside its conditions. `uses`: what is known; `told`: what is to be said of it (see `keyturn_operator.key_use`)."""
    if state is None:
        empty = dict.fromkeys(("clientId", "permissions", "keys", "secrets"))
        return {**empty, "secretName": secret_name, "lastTokenIssuedAt": _stamp(told.client)}
    keys, every = shown(state, now)
    entries = [_entry(key, _key_members(key), every, uses, told) for key in keys]
    secrets = [
        _entry(one, {"id": one.id}, every, uses, told) for one in every if not isinstance(one, ClientKey) and one.id
    ]
    return {
        "clientId": state.client_id,
        "permissions": len(state.permissions),
        "keys": entries or None,
        "secrets": secrets or None,
        "secretName": secret_name,
        "lastTokenIssuedAt": _stamp(told.client),
    }


def hints_differ(status: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Whether what is said of keys beside their last use is not what stands there."""
    return any(_without_uses(status.get(name)) != _without_uses(fields.get(name)) for name in ("keys", "secrets"))


def keys_expiring(state: ClientState, uses: Uses, present: object, *, now: float, window: float) -> Verdict | None:
    """The condition about registered keys that end within `window` seconds. None where it says nothing: no key has an end.

    Only what somebody must do something about counts: a generated key has its successor already, a key that is not used any more needs
    none.
    """
    keys, every = shown(state, now)
    ending = [
        key
        for key in keys
        if key.source == SOURCE_PUBLIC_KEYS
        and key.not_after is not None
        and key.not_after <= now + window
        and in_use_instead(key, every, uses) is None
    ]
    if ending:
        ending.sort(key=lambda key: key.not_after or 0.0)
        said = [f"{key.kid} ends at {format_rfc3339(key.not_after or 0.0)}" for key in ending[:_NAMED]]
        more = f", and {len(ending) - _NAMED} more" if len(ending) > _NAMED else ""
        text = f"{', '.join(said)}{more}: register the successor before, and let the client change to it."
        return Verdict("True", reasons.KEY_ENDS_SOON, shorten(text), reasons.KEYS_EXPIRING)
    if any(key.not_after is not None for key in keys if key.source == SOURCE_PUBLIC_KEYS) or _has(
        present, reasons.KEYS_EXPIRING
    ):
        text = "No registered key that is in use ends soon."
        return Verdict("False", reasons.NO_KEY_ENDS_SOON, text, reasons.KEYS_EXPIRING)
    return None


def token_too_long(state: ClientState, present: object, *, issuer: str) -> Verdict | None:
    """The condition about a client that holds more than one token can say. None where it says nothing: all fits, as ever."""
    if not everything_fits(state, issuer=issuer):
        text = (
            "One token cannot hold all permissions and audiences of this client: a token request must name a part of them, in scope and "
            "audience, and is refused otherwise. Or divide them among several clients."
        )
        return Verdict("True", reasons.GRANT_TOO_LARGE, text, reasons.TOKEN_TOO_LONG)
    if _has(present, reasons.TOKEN_TOO_LONG):
        text = "One token holds all permissions and audiences of this client."
        return Verdict("False", reasons.GRANT_FITS, text, reasons.TOKEN_TOO_LONG)
    return None


def _entry(one: Held, members: Mapping[str, Any], every: Sequence[Held], uses: Uses, told: Uses) -> dict[str, Any]:
    source = one.source if isinstance(one, ClientKey) else "clientSecret"
    # A fetched key's end moves with each fetch: it is no date to plan by.
    ends = None if source == SOURCE_JWKS_URI else _stamp(one.not_after)
    entry = {
        **members,
        "source": source,
        "addedAt": _stamp(one.added_at),
        "lastUsedAt": _stamp(told.last(id_of(one))),
        "expiresAt": ends,
        "hint": hint(one, every, uses),
    }
    return {name: value for name, value in entry.items() if value is not None}


def _key_members(key: ClientKey) -> dict[str, Any]:
    return {"kid": key.kid, "thumbprint": key.thumbprint, "algorithm": key.algorithm, "size": key.size}


def _without_uses(entries: object) -> object:
    if not isinstance(entries, list):
        return None
    return [
        {name: value for name, value in entry.items() if name != "lastUsedAt"} if isinstance(entry, Mapping) else entry
        for entry in entries
    ]


def _has_ended(one: Held, now: float) -> bool:
    return one.not_after is not None and now >= one.not_after and _ends_for_good(one)


def _ends_for_good(one: Held) -> bool:
    """A registered key whose time is over is still shown: it is still in the spec."""
    return not isinstance(one, ClientKey) or one.source in (SOURCE_GENERATE_KEY, SOURCE_JWKS_URI)


def _has(present: object, kind: str) -> bool:
    return isinstance(present, list) and any(isinstance(one, Mapping) and one.get("type") == kind for one in present)


def _stamp(time: float | None) -> str | None:
    return None if time is None else format_rfc3339(time)
