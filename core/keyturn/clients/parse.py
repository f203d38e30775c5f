"""From a ClientCredential's spec to the client in force, mistakes included.

The rule for an edit with a mistake: in force is the last valid state, less what the new spec no longer names or restricts. An absent key,
permission or audience is withdrawn; an unreadable one grants nothing; suspension, an earlier expiry, a shorter token lifetime and a
later `revokeTokensIssuedBefore` take effect even so; nothing is added. Without a last state an object with a mistake is closed: it keeps
its client id and grants nothing.
"""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from keyturn import __version__, reasons
from keyturn.clients.claims import is_claim_name, is_reserved
from keyturn.clients.client_id import PATTERN, default_client_id, is_client_id, reserving_namespace
from keyturn.clients.keys import FIELDS as KEY_FIELDS
from keyturn.clients.keys import read_keys, still_named
from keyturn.clients.registration import FIELDS as REGISTRATION_FIELDS
from keyturn.clients.registration import names_secret
from keyturn.clients.service_account import FIELDS as ACCOUNT_FIELDS
from keyturn.clients.service_account import check_account, service_account_ref
from keyturn.clients.sources import GENERATE_KEY_FIELDS, SECRET_FIELDS, Sources, read_sources
from keyturn.clients.state import (
    AUTH_METHODS,
    INTROSPECT_ANY,
    INTROSPECT_OWN,
    PRIVATE_KEY_JWT,
    SECRET_METHODS,
    SOURCE_PUBLIC_KEYS,
    ClientKey,
    ClientState,
)
from keyturn.durations import InvalidDuration, parse_duration
from keyturn.problems import Problem
from keyturn.timestamps import InvalidTimestamp, parse_rfc3339

FIELDS: Final = frozenset(
    {
        *("clientId", "clientName", "description", "contacts", "authMethod", "publicKeys", "clientSecret"),
        *("generateKey", "jwksUri", "deletionPolicy"),
        *("permissions", "audiences", "allowedCustomClaims", "tokenLifetime"),
        *("introspection", "suspended", "expiresAt", "revokeTokensIssuedBefore"),
        *("serviceAccount", "registration"),
    }
)
_PARTS: Final = {
    "clientSecret": SECRET_FIELDS,
    "generateKey": GENERATE_KEY_FIELDS,
    "serviceAccount": ACCOUNT_FIELDS,
    "registration": REGISTRATION_FIELDS,
}
MAX_ITEMS: Final = {"permissions": 512, "audiences": 16, "allowedCustomClaims": 16}

# RFC 6749 appendix A.4: scope-token = 1*NQCHAR, NQCHAR = %x21 / %x23-5B / %x5D-7E
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}", re.ASCII)
_AUDIENCE: Final = re.compile(r"[^\s\x00-\x20\x7f-\x9f]{1,256}")


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What the installation says about all of its clients. Lifetimes are in seconds.

    `reserved_claims` adds the names that the permission and user id settings give.
    """

    default_token_lifetime: int = 900
    max_token_lifetime: int = 86400
    watched_namespaces: Container[str] = frozenset()
    reserved_claims: frozenset[str] = frozenset()


def parse_client(
    spec: Mapping[str, Any],
    *,
    namespace: str,
    name: str,
    created_at: float,
    last: ClientState | None,
    settings: ClientSettings | None = None,
) -> tuple[ClientState | None, list[Problem]]:
    """The client in force and what is wrong with the spec; None where there is no client id that it may have.

    `last` is what was in force before, of the same object (the same uid). With no problems the state is the spec's own. It has
    the keys of `publicKeys` only and no secrets: what the other sources give (`keyturn.clients.sources`) is added by
    `keyturn.clients.secret`, `keyturn.clients.rotation` and `keyturn.clients.fetched`, which need to know whether there were problems
    (`invalidates`).
    """
    settings = settings or ClientSettings()
    given = {field: value for field, value in spec.items() if value is not None}
    reader = _Reader(given, settings)
    client_id = reader.client_id(namespace, name, last)
    if client_id is None:
        return None, reader.problems
    reader.unknown_fields()
    wanted = ClientState(
        client_id=client_id,
        created_at=created_at,
        auth_method=reader.auth_method(last),
        keys=tuple(reader.keys()),
        permissions=reader.strings("permissions", _permission_fault),
        audiences=reader.strings("audiences", _audience_fault),
        allowed_custom_claims=reader.strings("allowedCustomClaims", reader.claim_fault),
        token_lifetime=reader.token_lifetime(last),
        suspended=reader.suspended(),
        expires_at=reader.time("expiresAt"),
        revoke_before=reader.time("revokeTokensIssuedBefore"),
        introspection=reader.introspection(),
    )
    sources, faults = read_sources(given)
    reader.problems += [*faults, *check_account(given, wanted.auth_method)]
    if not reader.problems:
        return wanted, _missing_credential(wanted, sources, given)
    kept = _restrict(last, wanted, settings)
    return kept, _say_what_is_left(reader.problems, kept, given)


def invalidates(problems: Sequence[Problem]) -> bool:
    """Whether these problems of `parse_client` make the edit invalid: its additions wait then. A missing credential or grant does not."""
    return any(problem.reason not in (reasons.NO_CREDENTIAL, reasons.NOT_GRANTED) for problem in problems)


class _Reader:
    """Reads one field after the other and collects the problems; what cannot be read grants nothing."""

    def __init__(self, spec: Mapping[str, Any], settings: ClientSettings) -> None:
        self.spec = spec
        self.settings = settings
        self.problems: list[Problem] = []

    def report(self, reason: str, field: str, message: str) -> None:
        self.problems.append(Problem(reason, f"spec.{field}", message))

    def client_id(self, namespace: str, name: str, last: ClientState | None) -> str | None:
        explicit = self.spec.get("clientId")
        wanted = default_client_id(namespace, name) if explicit is None else explicit
        if not is_client_id(wanted):
            fault = (
                f"must match {PATTERN}"
                if explicit is not None
                else "the default, <namespace>.<name>, is longer than 200 characters: use a shorter name, or set clientId"
            )
            self.report(reasons.INVALID_CLIENT_ID, "clientId", fault)
            return None if last is None else last.client_id
        assert isinstance(wanted, str)
        owner = reserving_namespace(wanted, namespace=namespace, watched=self.settings.watched_namespaces)
        if explicit is not None and owner is not None:
            # Never kept from the last state: another project's name is at stake.
            fault = f"begins with {owner + '.'!r}, which is kept for clients of the namespace {owner}: choose another"
            self.report(reasons.CLIENT_ID_RESERVED, "clientId", fault)
            return None
        if last is not None and last.client_id != wanted:
            self.report(reasons.INVALID_CLIENT_ID, "clientId", f"cannot change; it stays {last.client_id!r}")
            return last.client_id
        return wanted

    def unknown_fields(self) -> None:
        keys = self.spec.get("publicKeys")
        parts = [("", self.spec, FIELDS)]
        for name, fields in _PARTS.items():
            if isinstance(member := self.spec.get(name), Mapping):
                parts.append((f"{name}.", member, fields))
        if isinstance(keys, list):
            parts += [(f"publicKeys[{i}].", key, KEY_FIELDS) for i, key in enumerate(keys) if isinstance(key, Mapping)]
        for prefix, part, known in parts:
            for field in sorted(set(part) - known):
                fault = f"is not known to version {__version__} of the operator: upgrade it, or take the field out"
                self.report(reasons.UNSUPPORTED_FIELD, f"{prefix}{field}", fault)

    def auth_method(self, last: ClientState | None) -> str:
        method = self.spec.get("authMethod", PRIVATE_KEY_JWT)
        if method in AUTH_METHODS:
            return str(method)
        self.report(reasons.INVALID_SPEC, "authMethod", f"must be one of {', '.join(AUTH_METHODS)}")
        return PRIVATE_KEY_JWT if last is None else last.auth_method

    def keys(self) -> list[ClientKey]:
        keys, problems = read_keys(self.spec.get("publicKeys"))
        self.problems += problems
        return keys

    def strings(self, field: str, fault_of: Callable[[object], tuple[str, str] | None]) -> tuple[str, ...]:
        value = self.spec.get(field, [])
        if not isinstance(value, list):
            self.report(reasons.INVALID_SPEC, field, "expected a list of strings")
            return ()
        limit = MAX_ITEMS[field]
        if len(value) > limit:
            self.report(reasons.INVALID_SPEC, field, f"at most {limit} are allowed; those after are not read")
        read: dict[str, None] = {}
        for index, item in enumerate(value[:limit]):
            fault = fault_of(item)
            if fault is None:
                read[item] = None
            else:
                self.report(fault[0], f"{field}[{index}]", fault[1])
        return tuple(read)

    def claim_fault(self, item: object) -> tuple[str, str] | None:
        if not is_claim_name(item):
            return reasons.INVALID_SPEC, "must be 1 to 128 visible ASCII characters"
        if is_reserved(str(item), self.settings.reserved_claims):
            return reasons.RESERVED_CLAIM, f"{item!r} is set by the issuer alone: a client cannot be allowed to set it"
        return None

    def token_lifetime(self, last: ClientState | None) -> int | None:
        value = self.spec.get("tokenLifetime")
        if value is None:
            return None
        try:
            seconds = parse_duration(value)
        except InvalidDuration as error:
            self.report(reasons.INVALID_SPEC, "tokenLifetime", str(error))
            return None if last is None else last.token_lifetime
        if seconds == 0:
            self.report(reasons.INVALID_SPEC, "tokenLifetime", "must be at least 1s")
            return None if last is None else last.token_lifetime
        return min(seconds, self.settings.max_token_lifetime)

    def introspection(self) -> str:
        value = self.spec.get("introspection", INTROSPECT_OWN)
        if value in (INTROSPECT_OWN, INTROSPECT_ANY):
            return str(value)
        self.report(reasons.INVALID_SPEC, "introspection", f"must be {INTROSPECT_OWN} or {INTROSPECT_ANY}")
        return INTROSPECT_OWN

    def suspended(self) -> bool:
        value = self.spec.get("suspended", False)
        if isinstance(value, bool):
            return value
        self.report(reasons.INVALID_SPEC, "suspended", "must be true or false; until then the client is suspended")
        return True

    def time(self, field: str) -> float | None:
        value = self.spec.get(field)
        if value is None:
            return None
        try:
            return parse_rfc3339(value)
        except InvalidTimestamp as error:
            self.report(reasons.INVALID_SPEC, field, str(error))
            return None


def _restrict(last: ClientState | None, wanted: ClientState, settings: ClientSettings) -> ClientState:
    """The last state less what the edit takes away; `wanted` holds what could be read of the edit."""
    if last is None:
        return ClientState(
            client_id=wanted.client_id,
            created_at=wanted.created_at,
            auth_method=wanted.auth_method,
            suspended=wanted.suspended,
            expires_at=wanted.expires_at,
            revoke_before=wanted.revoke_before,
        )
    audiences = _both(last.audiences, wanted.audiences)
    keys = still_named([key for key in last.keys if key.source == SOURCE_PUBLIC_KEYS], wanted.keys)
    if wanted.auth_method != last.auth_method or (last.audiences and not audiences):
        # Another method was asked for, so the old one's credentials are withdrawn and the new one's wait. And a client whose last audience
        # was taken away must not fall back to the issuer as the audience, which it did not have: it gets no token at all.
        keys = ()
    default = settings.default_token_lifetime
    lifetime = min(last.token_lifetime or default, wanted.token_lifetime or default)
    return ClientState(
        client_id=last.client_id,
        created_at=wanted.created_at,
        auth_method=last.auth_method,
        keys=keys,
        permissions=_both(last.permissions, wanted.permissions),
        audiences=audiences,
        allowed_custom_claims=_both(last.allowed_custom_claims, wanted.allowed_custom_claims),
        token_lifetime=None if last.token_lifetime is None and wanted.token_lifetime is None else lifetime,
        suspended=last.suspended or wanted.suspended,
        expires_at=min((t for t in (last.expires_at, wanted.expires_at) if t is not None), default=None),
        revoke_before=max((t for t in (last.revoke_before, wanted.revoke_before) if t is not None), default=None),
        introspection=last.introspection if wanted.introspection == INTROSPECT_ANY else INTROSPECT_OWN,
    )


def _both(last: Sequence[str], named: Sequence[str]) -> tuple[str, ...]:
    still = frozenset(named)
    return tuple(item for item in last if item in still)


def _missing_credential(state: ClientState, sources: Sources, spec: Mapping[str, Any]) -> list[Problem]:
    if sources.generate is not None or sources.provided is not None or sources.jwks_uri is not None:
        return []
    if state.auth_method == PRIVATE_KEY_JWT and not state.keys and service_account_ref(spec) is None:
        fault = "the client has no key and cannot authenticate: add one, or let the operator make one (generateKey)"
        return [Problem(reasons.NO_CREDENTIAL, "spec.publicKeys", fault)]
    if state.auth_method in SECRET_METHODS and not names_secret(spec):
        fault = "the client has no secret and cannot authenticate: name the Secret for it"
        return [Problem(reasons.NO_CREDENTIAL, "spec.clientSecret", fault)]
    return []


def _say_what_is_left(problems: list[Problem], kept: ClientState, spec: Mapping[str, Any]) -> list[Problem]:
    """A mistyped replacement of the only key leaves the client without one: its problem must say so."""
    if kept.keys or not spec.get("publicKeys"):
        return problems
    said = "No key of this client is in force: it cannot authenticate until this is fixed."
    return [
        replace(problem, message=f"{problem.message.rstrip('.')}. {said}")
        if problem.field.startswith("spec.publicKeys")
        else problem
        for problem in problems
    ]


def _permission_fault(item: object) -> tuple[str, str] | None:
    if isinstance(item, str) and _SCOPE_TOKEN.fullmatch(item):
        return None
    fault = 'must be a scope-token of RFC 6749: 1 to 256 visible ASCII characters without " and \\'
    return reasons.INVALID_SPEC, fault


def _audience_fault(item: object) -> tuple[str, str] | None:
    if isinstance(item, str) and _AUDIENCE.fullmatch(item):
        return None
    return reasons.INVALID_SPEC, "must be 1 to 256 characters without spaces and control characters"
