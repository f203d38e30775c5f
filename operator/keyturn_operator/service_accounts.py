"""Workload identity: the ServiceAccounts that clients stand for, their uids, and which client has each."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keyturn import reasons
from keyturn.clients.service_account import service_account_ref, taken, with_service_account
from keyturn.clients.state import ClientState
from keyturn.problems import Problem
from keyturn.records import Kind
from keyturn_operator.context import Context
from keyturn_operator.kube.client import collection
from keyturn_operator.kube.errors import KubeError, KubeUnavailable
from keyturn_operator.queue import Key, Priority
from keyturn_operator.references import SecretReferences
from keyturn_operator.rows import key_of

PLURAL = "serviceaccounts"


class AccountClaims:
    """Which client has which ServiceAccount: the senior of those that ask, and never two at the same time.

    A senior that comes later waits until the junior's row has let go of the account. `enqueue` has an object looked at again.
    """

    def __init__(self, enqueue: Callable[[Key, Priority], None]) -> None:
        self._enqueue = enqueue
        self._asked: dict[Key, str] = {}
        self._contenders: dict[tuple[str, str], dict[Key, float]] = {}
        self._holders: dict[tuple[str, str], Key] = {}

    def ask(self, key: Key, account: str | None, born: float) -> Key | None:
        """Says which account of its namespace the object names now; returns who has it before this one, None if nobody does."""
        before = self._asked.get(key)
        if before is not None and before != account:
            self._forget(key, before)
        if account is None:
            return None
        place = (key.namespace, account)
        self._asked[key] = account
        contenders = self._contenders.setdefault(place, {})
        contenders[key] = born
        senior = min(contenders, key=lambda one: (contenders[one], one.name))
        if senior != key:
            return senior
        holder = self._holders.get(place)
        if holder is not None and holder != key:
            # It may not know of its senior yet, and lets go when it is looked at.
            self._enqueue(holder, Priority.RESTRICTION)
            return holder
        return None

    def written(self, key: Key, account: str | None) -> None:
        """Takes note of what the object's row says; whoever waited for an account that it let go is looked at again."""
        for place in [place for place, holder in self._holders.items() if holder == key and place[1] != account]:
            del self._holders[place]
            self._wake(place, key)
        if account is not None:
            self._holders[(key.namespace, account)] = key

    def gone(self, key: Key) -> None:
        """The object asks for nothing any more and has no row."""
        asked = self._asked.get(key)
        if asked is not None:
            self._forget(key, asked)
        self.written(key, None)

    def _forget(self, key: Key, account: str) -> None:
        place = (key.namespace, account)
        del self._asked[key]
        del self._contenders[place][key]
        if not self._contenders[place]:
            del self._contenders[place]
        self._wake(place, key)

    def _wake(self, place: tuple[str, str], key: Key) -> None:
        for other in self._contenders.get(place, ()):
            if other != key:
                self._enqueue(other, Priority.CHANGE)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A client's state with its ServiceAccount, what is wrong with that, and why the account could not be read, if it could not."""

    state: ClientState
    problems: tuple[Problem, ...] = ()
    unread: KubeError | KubeUnavailable | None = None


class ServiceAccounts:
    """Finds the ServiceAccount that a ClientCredential names, for the reconciler of clients."""

    def __init__(self, context: Context, references: SecretReferences) -> None:
        self._context = context
        self._references = references
        self._claims = AccountClaims(context.enqueue)
        self._seeding = asyncio.Lock()
        self._seeded = False
        self._refused: set[Key] = set()

    async def resolve(
        self,
        key: Key,
        spec: Mapping[str, Any],
        state: ClientState,
        last: ClientState | None,
        born: float,
        *,
        valid: bool,
    ) -> Resolved:
        """The state with the account as it is now. `valid`: whether the edit has no mistake otherwise."""
        name = service_account_ref(spec)
        # Registered before the account is read: a change in between is seen by the watch.
        self._references.set(key, name)
        if name is None:
            self._claims.ask(key, None, born)
            return Resolved(state)
        await self._seed()
        if key in self._refused:
            # It may not even take its account from others for a moment: `written` has it looked at again.
            fault = "waits until the object has its client id"
            return Resolved(state, (Problem(reasons.PENDING, "spec.serviceAccount.name", fault),))
        before = self._claims.ask(key, name, born)
        if before is not None:
            return Resolved(state, (taken(name, before.name),))
        unread: KubeError | KubeUnavailable | None = None
        try:
            found = await self._context.kube.get(f"{collection('v1', PLURAL, key.namespace)}/{name}")
        except (KubeError, KubeUnavailable) as error:
            # What the edit restricts must not wait for the account: the one in force counts until it can be read again.
            unread, valid = error, False
            uid = None if last is None or last.service_account is None else last.service_account.uid
        else:
            deleted = found is None or found["metadata"].get("deletionTimestamp")
            uid = None if found is None or deleted else str(found["metadata"]["uid"])
        resolved, problems = with_service_account(
            state, namespace=key.namespace, name=name, uid=uid, last=last, valid=valid
        )
        return Resolved(resolved, () if unread is not None else tuple(problems), unread)

    def written(self, key: Key, state: ClientState) -> None:
        """Takes note of the row as it was written."""
        self._claims.written(key, None if state.service_account is None else state.service_account.name)
        if key in self._refused:
            self._refused.discard(key)
            self._context.enqueue(key, Priority.CHANGE)

    def refused(self, key: Key) -> None:
        """The object has no row, since it has no client id of its own: it must not keep others from the account either."""
        self._refused.add(key)
        self._claims.gone(key)

    def gone(self, key: Key) -> None:
        """The object is no more."""
        self._references.set(key, None)
        self._refused.discard(key)
        self._claims.gone(key)

    async def _seed(self) -> None:
        """Who has an account by the rows that an operator before this one has written: nobody may get it beside them."""
        async with self._seeding:
            if self._seeded:
                return
            for row in await self._context.store.live(Kind.CLIENT):
                account = row.record.body.get("serviceAccount")
                if isinstance(account, Mapping) and isinstance(account.get("name"), str):
                    self._claims.written(key_of(row.record), account["name"])
            self._seeded = True
