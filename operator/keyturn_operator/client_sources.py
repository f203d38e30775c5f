"""Where a client's keys and secrets come from, each source looked at, and put together into the client in force."""

import asyncio
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keyturn import reasons
from keyturn.clients.credentials import Credential, of_row, to_hash, to_key
from keyturn.clients.fetched import copy_fetched_at, fetched_keys, kept_copy
from keyturn.clients.keys import still_named
from keyturn.clients.secret import still_open, with_secret
from keyturn.clients.sources import CredentialKind, SecretRef, Sources
from keyturn.clients.state import (
    PRIVATE_KEY_JWT,
    SOURCE_JWKS_URI,
    SOURCE_PUBLIC_KEYS,
    ClientKey,
    ClientState,
    GeneratedRef,
    SecretHash,
)
from keyturn.problems import Problem
from keyturn.timestamps import InvalidTimestamp, parse_rfc3339
from keyturn_operator.conditions import Verdict, shorten
from keyturn_operator.context import Context
from keyturn_operator.credentials import Credentials, Outlook
from keyturn_operator.jwk_sets import FetchFailure, JwkSets, Latest, describe
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import KubeError, KubeUnavailable
from keyturn_operator.queue import Key
from keyturn_operator.secret_material import read_secret


@dataclass(frozen=True, slots=True)
class Given:
    """What the sources give this time. `open`: whether an invalid edit left the client any credential at all."""

    sources: Sources
    open: bool = True
    provided: tuple[SecretHash, ...] = ()
    secret_there: bool = True
    outlook: Outlook | None = None
    fetched: tuple[ClientKey, ...] = ()
    latest: Latest | None = None
    problems: tuple[Problem, ...] = ()
    unread: KubeError | KubeUnavailable | None = None

    @property
    def failure(self) -> FetchFailure | None:
        """Why the client's keys could not be fetched the last time."""
        return None if self.latest is None else self.latest.failure


class ClientSources:
    """Looks at the sources of clients' keys and secrets."""

    def __init__(self, context: Context, credentials: Credentials, jwk_sets: JwkSets) -> None:
        self._context = context
        self._credentials = credentials
        self._jwk_sets = jwk_sets

    async def look(
        self,
        key: Key,
        obj: Object,
        sources: Sources,
        state: ClientState,
        last: ClientState | None,
        *,
        valid: bool,
        held: bool,
    ) -> Given:
        """Reads what the spec names. `valid`: whether the edit has no mistake; `held`: nothing is made (the object is paused)."""
        open_ = valid or (last is not None and still_open(state, last))
        given = Given(sources, open_)
        if sources.provided is not None:
            given = await self._provided(key, given, sources.provided, state, last, valid=valid)
        elif open_ and sources.fills is not None and _fits(sources, state):
            given = await self._generated(key, obj, given, state, last, valid=valid, held=held)
        else:
            self._credentials.forget(key)
        return self._fetched(key, given, last, valid=valid)

    def forget(self, key: Key) -> None:
        """The object is no more, or has no client id."""
        self._credentials.gone(key)
        self._jwk_sets.forget(key)

    async def _provided(
        self, key: Key, given: Given, reference: SecretRef, state: ClientState, last: ClientState | None, *, valid: bool
    ) -> Given:
        self._credentials.forget(key)
        path = f"{collection('v1', 'secrets', key.namespace)}/{reference.name}"
        try:
            material = read_secret(reference.name, await self._context.kube.get(path))
        except (KubeError, KubeUnavailable) as error:
            # What the edit restricts must not wait for the Secret: its last hash counts until it can be read again.
            return dataclasses.replace(given, provided=kept_secrets(last, reference), unread=error)
        filled, problems = await asyncio.to_thread(
            with_secret,
            state,
            material.data,
            name=reference.name,
            origin=material.origin,
            last=last,
            valid=valid,
            cost=self._context.settings.bcrypt_cost,
            now=self._context.now(),
        )
        return dataclasses.replace(
            given, provided=filled.secrets, problems=tuple(problems), secret_there=material.data is not None
        )

    async def _generated(
        self,
        key: Key,
        obj: Object,
        given: Given,
        state: ClientState,
        last: ClientState | None,
        *,
        valid: bool,
        held: bool,
    ) -> Given:
        wish = given.sources.generate
        same = last is not None and last.generated is not None and last.generated.secret_name == given.sources.fills
        if wish is None:
            # What it asks for cannot be read: what is in force of the same Secret stays, and nothing new is made.
            self._credentials.forget(key)
            kind = CredentialKind.KEY if state.auth_method == PRIVATE_KEY_JWT else CredentialKind.SECRET
            kept = tuple(one for one in of_row(last, kind) if not one.announced) if same else ()
            return dataclasses.replace(given, outlook=Outlook(accepted=kept))
        try:
            outlook = await self._credentials.look(
                key, obj, wish, last, client_id=state.client_id, may_make=(valid or same) and not held
            )
        except (KubeError, KubeUnavailable) as error:
            return dataclasses.replace(given, outlook=self._credentials.unread(wish, last), unread=error)
        return dataclasses.replace(given, outlook=outlook, problems=outlook.problems)

    def _fetched(self, key: Key, given: Given, last: ClientState | None, *, valid: bool) -> Given:
        uri = given.sources.jwks_uri
        if uri is None or not given.open:
            self._jwk_sets.forget(key)
            return given
        if (forbidden := self._jwk_sets.forbidden(uri)) is not None:
            # Not even the last copy counts: the installation does not trust this host.
            self._jwk_sets.forget(key)
            return dataclasses.replace(given, latest=Latest(None, forbidden, None))
        copy = kept_copy(last, uri)
        latest = self._jwk_sets.look(key, uri, copy_fetched_at(copy))
        may_add = valid or bool(last is not None and last.jwks_uri == uri)
        keys = fetched_keys(latest.fetched, last, uri, may_add=may_add, now=self._context.now())
        return dataclasses.replace(given, fetched=keys, latest=latest)


def compose(
    state: ClientState,
    given: Given,
    last: ClientState | None,
    status: Mapping[str, Any],
    *,
    accepted: tuple[Credential, ...],
    serial: int,
    now: float,
) -> ClientState:
    """The client with all its keys and secrets. A kid counts once: what the spec itself names goes before the rest."""
    sources = given.sources
    keys: list[ClientKey] = list(state.keys)
    # Those of a registration, where the spec names no Secret of its own.
    secrets = given.provided if sources.provided is not None else state.secrets
    former = last.generated if last is not None else None
    generated = former if former is not None and former.secret_name == sources.fills else None
    if given.outlook is not None and sources.fills is not None:
        if state.auth_method == PRIVATE_KEY_JWT:
            keys += [key for one in accepted if (key := to_key(one)) is not None]
        else:
            secrets = tuple(to_hash(one, sources.fills) for one in accepted)
        # The Secret that holds the last one: with another secretName it stays that until something is handed out in the new one.
        moving = former is not None and former.serial == serial > 0
        generated = former if moving else GeneratedRef(sources.fills, serial)
    keys += given.fetched
    return dataclasses.replace(
        state,
        keys=since(_once(keys, state.keys), last, status, now),
        secrets=secrets,
        generated=generated,
        jwks_uri=sources.jwks_uri if given.open else None,
    )


def with_handed_out(state: ClientState, given: Given, accepted: tuple[Credential, ...], serial: int) -> ClientState:
    """The client once what was announced is in its Secret: the other keys stay as they are."""
    assert given.sources.fills is not None
    generated = GeneratedRef(given.sources.fills, serial)
    if state.auth_method != PRIVATE_KEY_JWT:
        secrets = tuple(to_hash(one, given.sources.fills) for one in accepted)
        return dataclasses.replace(state, secrets=secrets, generated=generated)
    made = [key for one in accepted if (key := to_key(one)) is not None]
    named = [key for key in state.keys if key.source == SOURCE_PUBLIC_KEYS]
    others = [key for key in state.keys if key.source == SOURCE_JWKS_URI]
    return dataclasses.replace(state, keys=tuple(_once([*made, *others], named)), generated=generated)


def held_back(kept: ClientState, wanted: ClientState, given: Given, last: ClientState | None) -> ClientState:
    """While the object is paused: of what the sources give only what was in force already, each no longer than both say.

    A provided Secret's new value waits, and the old one counts for as long as the spec names its Secret and that is there.
    """
    if last is None:
        return kept
    others = still_named([key for key in last.keys if key.source != SOURCE_PUBLIC_KEYS], wanted.keys)
    secrets: tuple[SecretHash, ...] = kept.secrets
    if given.sources.provided is not None:
        secrets = kept_secrets(last, given.sources.provided) if given.secret_there else ()
    elif given.sources.fills is not None:
        wanted_ends = {one.hash: one.not_after for one in wanted.secrets}
        secrets = tuple(
            dataclasses.replace(one, not_after=_earlier(one.not_after, wanted_ends[one.hash]))
            for one in last.secrets
            if one.hash in wanted_ends
        )
    same_uri = wanted.jwks_uri is not None and wanted.jwks_uri == last.jwks_uri
    return dataclasses.replace(
        kept,
        keys=(*kept.keys, *others) if kept.auth_method == wanted.auth_method else kept.keys,
        secrets=secrets,
        generated=last.generated if wanted.generated is not None else None,
        jwks_uri=last.jwks_uri if same_uri else None,
    )


def kept_secrets(last: ClientState | None, reference: SecretRef) -> tuple[SecretHash, ...]:
    """What was in force of the same Secret."""
    return tuple(one for one in (last.secrets if last else ()) if one.origin.partition("/")[0] == reference.name)


def since(
    keys: Iterable[ClientKey], last: ClientState | None, status: Mapping[str, Any], now: float
) -> tuple[ClientKey, ...]:
    """The keys with the time at which each came: by the row, else by what the status says, else now."""
    by_row = {(key.kid, key.thumbprint): key.added_at for key in (last.keys if last is not None else ())}
    told: dict[tuple[object, object], float] = {}
    entries = status.get("keys")
    for entry in entries if isinstance(entries, list) else ():
        try:
            told[(entry.get("kid"), entry.get("thumbprint"))] = parse_rfc3339(entry.get("addedAt"))
        except (InvalidTimestamp, AttributeError):
            continue
    stamped = []
    for key in keys:
        name = (key.kid, key.thumbprint)
        times = (key.added_at, by_row.get(name), told.get(name), now)
        stamped.append(dataclasses.replace(key, added_at=next(time for time in times if time is not None)))
    return tuple(stamped)


def fetch_verdict(given: Given, state: ClientState, now: float) -> Verdict | None:
    """The condition about the keys at `jwksUri`: None where there is none, or the first fetch is under way."""
    if given.sources.jwks_uri is None or given.latest is None:
        return None
    kept = [key for key in state.keys if key.source == SOURCE_JWKS_URI]
    if given.failure is not None:
        until = min((key.not_after for key in kept if key.not_after is not None), default=None)
        text = describe(given.failure, until, now)
        return Verdict("False", given.failure.reason, shorten(text), reasons.KEYS_FETCHED)
    if given.latest.fetched is None:
        return None
    if problems := given.latest.fetched.problems:
        said = "; ".join(f"{one.field}: {one.reason}: {one.message}" for one in problems)
        text = f"{len(given.latest.fetched.keys)} keys count, others are refused. {said}"
        return Verdict("False", reasons.KEYS_REFUSED, shorten(text), reasons.KEYS_FETCHED)
    return Verdict("True", reasons.FETCHED, f"{len(given.latest.fetched.keys)} keys count.", reasons.KEYS_FETCHED)


def _fits(sources: Sources, state: ClientState) -> bool:
    """Whether what is to be made goes with the method in force: an invalid edit may ask for another one's."""
    wish = sources.generate
    return wish is None or (wish.kind is CredentialKind.KEY) == (state.auth_method == PRIVATE_KEY_JWT)


def _once(keys: Iterable[ClientKey], named: Iterable[ClientKey]) -> list[ClientKey]:
    # Keys of the spec that share a kid were reported, and are as the edit's rule left them.
    taken = {key.kid for key in named}
    result = list(named)
    for key in keys:
        if key.kid not in taken:
            taken.add(key.kid)
            result.append(key)
    return result


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((time for time in (one, other) if time is not None), default=None)
