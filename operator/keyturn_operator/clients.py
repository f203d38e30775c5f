"""ClientCredential → the client's row and status."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

from keyturn import reasons
from keyturn.clients.client_id import default_client_id
from keyturn.clients.parse import ClientSettings, SecretRef, invalidates, parse_client, secret_ref
from keyturn.clients.registration_secret import held_registration
from keyturn.clients.secret import with_secret
from keyturn.clients.service_account import keep_account
from keyturn.clients.state import ClientKey, ClientState, SecretHash
from keyturn.problems import Problem
from keyturn.records import StoredRecord
from keyturn.store.interface import Taken
from keyturn.timestamps import InvalidTimestamp, format_rfc3339, parse_rfc3339
from keyturn_operator import conditions, paused
from keyturn_operator.conditions import Verdict
from keyturn_operator.context import Context, created_at, is_paused
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import KubeError, KubeUnavailable
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Done, Key, Priority
from keyturn_operator.references import SecretReferences
from keyturn_operator.registrations import Registrations
from keyturn_operator.rows import key_of, record_of
from keyturn_operator.secret_material import SecretMaterial, read_secret
from keyturn_operator.service_accounts import ServiceAccounts

log = get_logger("clients")

ACTIVITY_STEP = 3600.0
"""Seconds by which `lastTokenIssuedAt` moves at least: coarse, since each step is a write to the Kubernetes API."""


def last_state(row: StoredRecord | None) -> ClientState | None:
    """What was in force before, as far as the store still knows it and it can be read."""
    if row is None:
        return None
    try:
        return ClientState.from_body(row.record.body)
    except (KeyError, TypeError, ValueError):
        # A damaged row is no valid last state: the spec alone counts.
        return None


def kept_secrets(last: ClientState | None, reference: SecretRef) -> tuple[SecretHash, ...]:
    """What was in force of the same Secret."""
    return tuple(one for one in (last.secrets if last else ()) if one.origin.partition("/")[0] == reference.name)


def next_change(state: ClientState, now: float) -> float | None:
    """When time alone changes what the status says: an expiry, a key's begin or end."""
    times = [state.expires_at, *(secret.not_after for secret in state.secrets)]
    for key in state.keys:
        times += [key.not_before, key.not_after]
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
    credentials: tuple[ClientKey | SecretHash, ...] = (*state.keys, *state.secrets)
    if state.service_account is None and not any(one.is_current(now) for one in credentials):
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


def status_fields(state: ClientState | None, reference: SecretRef | None, last_token: str | None) -> dict[str, Any]:
    """The status beside its conditions."""
    keys = [
        {
            "kid": key.kid,
            "thumbprint": key.thumbprint,
            "algorithm": key.algorithm,
            "size": key.size,
            "source": key.source,
        }
        for key in (state.keys if state is not None else ())
    ]
    return {
        "clientId": None if state is None else state.client_id,
        "permissions": None if state is None else len(state.permissions),
        "keys": keys or None,
        "secretName": None if reference is None else reference.name,
        "lastTokenIssuedAt": last_token,
    }


def last_token_issued(present: object, used_at: float | None) -> str | None:
    """The time to show: what stands there, unless the client was used an hour or more after it."""
    shown = present if isinstance(present, str) else None
    if used_at is None:
        return shown
    try:
        if shown is not None and used_at < parse_rfc3339(shown) + ACTIVITY_STEP:
            return shown
    except InvalidTimestamp:
        pass
    return format_rfc3339(used_at)


class ClientReconciler:
    """Reconciles one ClientCredential at a time; knows which objects want which client id, and which Secret."""

    def __init__(
        self,
        context: Context,
        references: SecretReferences,
        accounts: SecretReferences,
        registrations: SecretReferences | None = None,
    ) -> None:
        self._context = context
        self._references = references
        self._accounts = ServiceAccounts(context, accounts)
        self._registrations = Registrations(context, registrations or SecretReferences())
        self._wanted: dict[Key, str] = {}
        self._contenders: dict[str, set[Key]] = {}
        self._used_at: dict[Key, float] = {}
        settings = context.settings
        self._settings = ClientSettings(
            default_token_lifetime=settings.token_lifetime,
            max_token_lifetime=settings.max_token_lifetime,
            reserved_claims=frozenset({settings.permissions_key, settings.user_id_key}),
            watched_namespaces=frozenset(settings.namespaces),
        )

    async def reconcile(self, key: Key, obj: Object) -> Done:
        """From the object as it is to its row and status."""
        context = self._context
        now = context.now()
        spec = obj.get("spec") or {}
        born = created_at(obj)
        uid = obj["metadata"]["uid"]
        row = await context.rows.get(key, uid)
        last = last_state(row)
        state, problems = parse_client(
            spec, namespace=key.namespace, name=key.name, created_at=born, last=last, settings=self._settings
        )
        held = False
        reference = secret_ref(spec)
        # Registered before the Secret is read: a change in between is seen by the watch.
        self._references.set(key, None if reference is None else reference.name)
        material = None
        unread: KubeError | KubeUnavailable | None = None
        if reference is not None and state is not None:
            path = f"{collection('v1', 'secrets', key.namespace)}/{reference.name}"
            try:
                material = read_secret(reference.name, await context.kube.get(path))
            except (KubeError, KubeUnavailable) as error:
                # What the edit restricts must not wait for the Secret: its last hash counts until it can be read again.
                unread = error
                state = dataclasses.replace(state, secrets=kept_secrets(last, reference))
        if state is not None:
            resolved = await self._accounts.resolve(key, spec, state, last, born, valid=not invalidates(problems))
            state, problems, unread = resolved.state, [*problems, *resolved.problems], unread or resolved.unread
            registered = await self._registrations.resolve(key, obj, state, last, valid=not invalidates(problems))
            state, problems, unread = registered.state, [*problems, *registered.problems], unread or registered.unread
        if is_paused(obj) and state is not None:
            state, problems, held = await self._paused(key, spec, born, last, state, problems, reference, material)
        elif state is not None and reference is not None and material is not None:
            state, more = await self._with_secret(state, reference, material, last, valid=not invalidates(problems))
            problems = [*problems, *more]

        self._claim(key, state.client_id if state is not None else self._asked_for(key, spec))
        if state is None:
            await self._withdraw(key, uid, "its client id cannot be used")
            self._accounts.refused(key)
            await context.write_status(
                key, obj, [conditions.of_problems(problems)], status_fields(None, reference, None)
            )
            return Done()

        outcome = await context.write_row(key, obj, record_of(key, obj, born, state.to_body(), state.client_id), row)
        if isinstance(outcome, Taken):
            self._accounts.refused(key)
        else:
            self._accounts.written(key, state)
        if unread is not None:
            raise unread
        used_at = self._used_at.get(key)
        shown = last_token_issued((obj.get("status") or {}).get("lastTokenIssuedAt"), used_at)
        fields = status_fields(state, reference, shown)
        if isinstance(outcome, Taken):
            owner = outcome.owner
            verdict = taken(owner.namespace, owner.name, state.client_id)
            await context.write_status(key, obj, [verdict], {**fields, "clientId": None, "keys": None})
            return Done()
        if outcome.displaced is not None:
            context.enqueue(key_of(outcome.displaced), Priority.CHANGE)

        wait: Done | None = None
        if problems:
            verdict = conditions.of_problems(problems, paused.NOTE if held else "")
        elif held:
            verdict = Verdict("False", reasons.PAUSED, paused.NOTE)
        else:
            unusable = usability(state, now)
            if unusable is None:
                verdict, wait = await context.propagation(key, outcome.revision, context.active_kid)
            else:
                verdict = unusable
        if wait is not None:
            return wait
        await context.write_status(key, obj, [verdict], fields)
        due = next_change(state, now)
        return Done(again=None if due is None else max(0.05, due - now + 0.05))

    async def gone(self, key: Key, uids: set[str]) -> None:
        """The object is no more: its row goes, and whoever waited for its client id may have it."""
        for uid in sorted(uids):
            await self._context.withdraw(key, uid, "the object was deleted")
        self._references.set(key, None)
        self._accounts.gone(key)
        self._registrations.gone(key)
        self._used_at.pop(key, None)
        self._claim(key, None)

    def used(self, client_id: str, used_at: float) -> None:
        """Takes note of a client's last token, and has its status brought up to date if that is due."""
        for key in self._contenders.get(client_id, ()):
            if used_at - self._used_at.get(key, 0.0) >= ACTIVITY_STEP:
                self._used_at[key] = used_at
                self._context.enqueue(key, Priority.RESYNC)

    async def _with_secret(
        self,
        state: ClientState,
        reference: SecretRef,
        material: SecretMaterial,
        last: ClientState | None,
        *,
        valid: bool,
    ) -> tuple[ClientState, list[Problem]]:
        return await asyncio.to_thread(
            with_secret,
            state,
            material.data,
            name=reference.name,
            origin=material.origin,
            last=last,
            valid=valid,
            cost=self._context.settings.bcrypt_cost,
        )

    async def _paused(
        self,
        key: Key,
        spec: Mapping[str, Any],
        born: float,
        last: ClientState | None,
        state: ClientState,
        problems: list[Problem],
        reference: SecretRef | None,
        material: SecretMaterial | None,
    ) -> tuple[ClientState | None, list[Problem], bool]:
        """What is in force while the object is paused, and whether that holds something back."""
        wanted = state
        if reference is not None and material is not None:
            wanted, more = await self._with_secret(state, reference, material, last, valid=not invalidates(problems))
            problems = [*problems, *more]
        if wanted == last:
            return wanted, problems, False
        kept, problems = paused.client_in_force(
            spec, namespace=key.namespace, name=key.name, created_at=born, last=last, settings=self._settings
        )
        if kept is not None:
            kept = held_registration(keep_account(kept, state.service_account, last), state, last)
        if kept is not None and last is not None and reference is not None:
            # The Secret's new value waits too; the old one counts for as long as the spec names its Secret and that is there.
            there = material is None or material.data is not None
            kept = dataclasses.replace(kept, secrets=kept_secrets(last, reference) if there else ())
        return kept, problems, True

    @staticmethod
    def _asked_for(key: Key, spec: Mapping[str, Any]) -> str | None:
        asked = spec.get("clientId") or default_client_id(key.namespace, key.name)
        return asked if isinstance(asked, str) else None

    async def _withdraw(self, key: Key, uid: str, cause: str) -> None:
        known = self._context.rows.known(key)
        for one in {uid} | ({known.uid} if known is not None else set()):
            await self._context.withdraw(key, one, cause)

    def _claim(self, key: Key, client_id: str | None) -> None:
        """Notes which id the object wants; whoever else wants the one that it leaves is looked at again."""
        before = self._wanted.get(key)
        if before == client_id:
            return
        if before is not None:
            others = self._contenders[before]
            others.discard(key)
            for other in others:
                self._context.enqueue(other, Priority.CHANGE)
            if not others:
                del self._contenders[before]
        if client_id is None:
            self._wanted.pop(key, None)
        else:
            self._wanted[key] = client_id
            self._contenders.setdefault(client_id, set()).add(key)
