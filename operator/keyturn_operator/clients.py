"""ClientCredential → the client's row and status."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keyturn import reasons
from keyturn.clients.client_id import default_client_id
from keyturn.clients.parse import ClientSettings, invalidates, parse_client
from keyturn.clients.registration_secret import held_registration
from keyturn.clients.service_account import keep_account
from keyturn.clients.sources import Sources, read_sources
from keyturn.clients.state import ClientState
from keyturn.grants import bound_client
from keyturn.problems import Problem
from keyturn.records import StoredRecord
from keyturn.store.interface import Taken
from keyturn_operator import conditions, paused
from keyturn_operator.client_sources import ClientSources, Given, compose, fetch_verdict, held_back, with_handed_out
from keyturn_operator.client_status import (
    hints_differ,
    keys_expiring,
    next_change,
    status_fields,
    taken,
    token_too_long,
    usability,
)
from keyturn_operator.conditions import Verdict
from keyturn_operator.context import Context, created_at, is_paused
from keyturn_operator.credentials import Credentials
from keyturn_operator.jwk_sets import JwkSets
from keyturn_operator.key_maker import KeyMaker
from keyturn_operator.key_use import Uses, shown_uses
from keyturn_operator.kube.client import Object
from keyturn_operator.kube.errors import KubeError, KubeUnavailable
from keyturn_operator.queue import Done, Key, Priority
from keyturn_operator.references import SecretReferences
from keyturn_operator.registrations import Registrations
from keyturn_operator.rows import key_of, record_of
from keyturn_operator.service_accounts import ServiceAccounts
from keyturn_operator.written_secrets import WrittenSecrets


def last_state(row: StoredRecord | None) -> ClientState | None:
    """What was in force before, as far as the store still knows it and it can be read."""
    if row is None:
        return None
    try:
        return ClientState.from_body(row.record.body)
    except (KeyError, TypeError, ValueError):
        # A damaged row is no valid last state: the spec alone counts.
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """The client in force as this pass has decided it. `held`: the object is paused, and something waits for that to end."""

    state: ClientState
    problems: list[Problem]
    given: Given
    held: bool
    paused: bool
    unread: KubeError | KubeUnavailable | None

    @property
    def valid(self) -> bool:
        """Whether the spec has no mistake."""
        return not invalidates(self.problems)


class ClientReconciler:
    """Reconciles one ClientCredential at a time; knows which objects want which client id, and which Secret."""

    def __init__(
        self,
        context: Context,
        references: SecretReferences,
        accounts: SecretReferences,
        registrations: SecretReferences | None = None,
        *,
        maker: KeyMaker | None = None,
        written: WrittenSecrets | None = None,
        jwk_sets: JwkSets | None = None,
    ) -> None:
        self._context = context
        self._references = references
        self._accounts = ServiceAccounts(context, accounts)
        self._registrations = Registrations(context, registrations or SecretReferences())
        enqueue = context.enqueue
        self._written = written or WrittenSecrets(references, enqueue)
        self._credentials = Credentials(context, maker or KeyMaker(enqueue), self._written)
        jwk_sets = jwk_sets or JwkSets(context.settings, enqueue, now=context.now)
        self._sources = ClientSources(context, self._credentials, jwk_sets)
        self._wanted: dict[Key, str] = {}
        self._contenders: dict[str, set[Key]] = {}
        settings = context.settings
        self._settings = ClientSettings(
            default_token_lifetime=settings.token_lifetime,
            max_token_lifetime=settings.max_token_lifetime,
            reserved_claims=frozenset({settings.permissions_key, settings.user_id_key}),
            watched_namespaces=context.scope,
        )

    async def reconcile(self, key: Key, obj: Object) -> Done:
        """From the object as it is to its Secret, row and status."""
        context = self._context
        spec = obj.get("spec") or {}
        born = created_at(obj)
        uid = obj["metadata"]["uid"]
        row = await context.rows.get(key, uid)
        last = last_state(row)
        state, problems = parse_client(
            spec, namespace=key.namespace, name=key.name, created_at=born, last=last, settings=self._settings
        )
        sources, _ = read_sources(spec)
        secret_name = sources.fills or (None if sources.provided is None else sources.provided.name)
        # Registered before the Secret is read: a change in between is seen by the watch.
        self._references.set(key, secret_name)
        decided = None
        if state is not None:
            decided = await self._decide(key, obj, sources, state, last, problems)
        self._claim(key, decided.state.client_id if decided is not None else self._asked_for(key, spec))
        if decided is None:
            await self._withdraw(key, uid, "its client id cannot be used")
            self._accounts.refused(key)
            self._sources.forget(key)
            nothing = status_fields(
                None, secret_name, Uses(), shown_uses(obj.get("status") or {}, Uses(), moved=False), 0
            )
            await context.write_status(key, obj, [conditions.of_problems(problems)], nothing)
            return Done()

        state = decided.state
        outcome = await context.write_row(key, obj, record_of(key, obj, born, state.to_body(), state.client_id), row)
        if isinstance(outcome, Taken):
            self._accounts.refused(key)
            self._sources.forget(key)
            owner = outcome.owner
            verdict = taken(owner.namespace, owner.name, state.client_id)
            nothing = dict.fromkeys(("clientId", "keys", "secrets"))
            told = {"permissions": len(state.permissions), "secretName": secret_name}
            await context.write_status(key, obj, [verdict], {**nothing, **told})
            return Done()
        self._accounts.written(key, state)
        if outcome.displaced is not None:
            context.enqueue(key_of(outcome.displaced), Priority.CHANGE)
        if decided.unread is not None:
            raise decided.unread

        revision = outcome.revision
        if decided.given.outlook is not None:
            handed = await self._credentials.hand_out(key, obj, decided.given.outlook, revision, retain=sources.retain)
            if handed.wait is not None:
                return handed.wait
            if handed.serial != decided.given.outlook.serial:
                # What is new is out: its announcement becomes a fact, and its predecessor has an end.
                row = await context.rows.get(key, uid)
                state = with_handed_out(state, decided.given, handed.accepted, handed.serial)
                decided = dataclasses.replace(decided, state=state)
                again = record_of(key, obj, born, state.to_body(), state.client_id)
                outcome = await context.write_row(key, obj, again, row)
                if isinstance(outcome, Taken):
                    return Done(again=0.2)
                revision = outcome.revision
        if decided.valid and not decided.paused:
            provided = None if sources.provided is None else sources.provided.name
            await self._credentials.leave(key, sources.fills, provided=provided)
        return await self._report(key, obj, decided, revision, secret_name)

    async def gone(self, key: Key, uids: set[str]) -> None:
        """The object is no more: its row goes, whoever waited for its client id may have it, and what was written for it is taken back."""
        for uid in sorted(uids):
            await self._context.withdraw(key, uid, "the object was deleted")
        self._references.set(key, None)
        self._accounts.gone(key)
        self._registrations.gone(key)
        self._sources.forget(key)
        self._claim(key, None)
        await self._credentials.leave(key, None, gone=True)

    def used(self, client_id: str) -> None:
        """Has the status of a client that was used brought up to date, if that is due."""
        for key in self._contenders.get(client_id, ()):
            self._context.enqueue(key, Priority.RESYNC)

    async def _decide(
        self,
        key: Key,
        obj: Object,
        sources: Sources,
        state: ClientState,
        last: ClientState | None,
        problems: list[Problem],
    ) -> Decided:
        """What is in force: the spec, with what its sources give, less what is held back while the object is paused."""
        spec = obj.get("spec") or {}
        born = created_at(obj)
        on_hold = is_paused(obj)
        valid = not invalidates(problems)
        given = await self._sources.look(key, obj, sources, state, last, valid=valid, held=on_hold)
        resolved = await self._accounts.resolve(key, spec, state, last, born, valid=valid)
        problems = [*problems, *resolved.problems]
        registered = await self._registrations.resolve(key, obj, resolved.state, last, valid=not invalidates(problems))
        problems = [*problems, *registered.problems, *given.problems]
        status: Mapping[str, Any] = obj.get("status") or {}
        outlook = given.outlook
        grant = self._context.grants.of(key.namespace)
        wanted = compose(
            registered.state,
            given,
            last,
            status,
            accepted=() if outlook is None else outlook.accepted,
            serial=0 if outlook is None else outlook.serial,
            now=self._context.now(),
        )
        wanted, outside = bound_client(wanted, grant)
        problems = [*problems, *outside]
        unread = given.unread or resolved.unread or registered.unread
        if not on_hold or wanted == last:
            return Decided(wanted, problems, given, held=False, paused=on_hold, unread=unread)
        kept, problems = paused.client_in_force(
            spec, namespace=key.namespace, name=key.name, created_at=born, last=last, settings=self._settings
        )
        assert kept is not None, "the same spec has a client id"
        kept = held_registration(keep_account(kept, wanted.service_account, last), wanted, last)
        kept, _ = bound_client(held_back(kept, wanted, given, last), grant)
        return Decided(kept, problems, given, held=True, paused=True, unread=unread)

    async def _report(self, key: Key, obj: Object, decided: Decided, revision: int, secret_name: str | None) -> Done:
        """The status, as far as it can be said yet; when to look again."""
        context = self._context
        now = context.now()
        state, given = decided.state, decided.given
        status: Mapping[str, Any] = obj.get("status") or {}
        fetched = fetch_verdict(given, state, now)
        verdict, wait = await self._ready(key, decided, fetched, revision, now)
        if wait is not None:
            return wait
        uses = Uses.of(await context.store.activity(state.client_id))
        window = context.settings.keys_expiring_within
        told = shown_uses(status, uses, moved=status.get("observedGeneration") != obj["metadata"].get("generation"))
        fields = status_fields(state, secret_name, uses, told, now)
        if hints_differ(status, fields):
            fields = status_fields(state, secret_name, uses, shown_uses(status, uses, moved=True), now)
        expiring = keys_expiring(state, uses, status.get("conditions"), now=now, window=window)
        too_long = token_too_long(state, status.get("conditions"), issuer=context.settings.issuer)
        verdicts = [one for one in (verdict, expiring, fetched, too_long) if one is not None]
        absent = (reasons.KEYS_FETCHED,) if given.sources.jwks_uri is None else ()
        await context.write_status(key, obj, verdicts, fields, absent=absent)
        times = [next_change(state, now, window)]
        if given.outlook is not None and given.outlook.plan is not None and not decided.paused:
            times.append(given.outlook.plan.due)
        due = [time - now + 0.05 for time in times if time is not None and time > now]
        if given.latest is not None and given.latest.again is not None:
            due.append(given.latest.again)
        return Done(again=max(0.05, min(due)) if due else None)

    async def _ready(
        self, key: Key, decided: Decided, fetched: Verdict | None, revision: int, now: float
    ) -> tuple[Verdict, Done | None]:
        given = decided.given
        if decided.problems:
            return conditions.of_problems(decided.problems, paused.NOTE if decided.held else ""), None
        if decided.held:
            return Verdict("False", reasons.PAUSED, paused.NOTE), None
        unusable = usability(decided.state, now)
        if unusable is None:
            return await self._context.propagation(key, revision, self._context.active_kid)
        if unusable.reason == reasons.NO_CREDENTIAL:
            if given.outlook is not None and given.outlook.making:
                text = "The client's key is being made."
                return Verdict("Unknown", reasons.PENDING, text), None
            if given.failure is not None and fetched is not None:
                return Verdict("False", given.failure.reason, fetched.message), None
            if given.latest is not None and given.latest.fetched is None:
                return Verdict("Unknown", reasons.PENDING, "The client's keys are being fetched."), None
        return unusable, None

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
