"""The reference engine: one process, nothing durable. For tests, and to say plainly what the others do."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from keyturn.records import Activity, Denial, Kind, LastState, Record, Replica, Revocation, StoredRecord, UsedJti
from keyturn.store import retention
from keyturn.store.encoding import EMPTY, decode_body, encode_body
from keyturn.store.interface import REPLACED, Changes, Fenced, Position, StoreReplaced, StoreUnavailable, Taken, Written
from keyturn.store.placement import place

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class _Row:
    record: Record  # without its body
    body: str
    revision: int
    deleted_at: float | None = None

    def stored(self) -> StoredRecord:
        return StoredRecord(
            replace(self.record, body=decode_body(self.body)), self.revision, self.deleted_at is not None
        )


class MemoryStore:
    """Keeps everything in dictionaries.

    `available = False` makes every call raise StoreUnavailable, as a lost database would.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.available = True
        self._clock = clock
        self._changed = asyncio.Event()
        self._erase()

    def _erase(self) -> None:
        self._store_id = secrets.token_hex(16)
        self._born_at = self._clock()
        self._epoch = 0
        self._holder = ""
        self._revision = 0
        self._tags: dict[int, tuple[str, float]] = {0: (_new_tag(), self._born_at)}
        self._rows: dict[tuple[Kind, str], _Row] = {}
        self._last_states: dict[tuple[Kind, str, str], str] = {}
        self._revocations: dict[str, Revocation] = {}
        self._jtis: dict[bytes, float] = {}
        self._replicas: dict[str, Replica] = {}
        self._activity: dict[tuple[str, str], float] = {}
        self._denials: dict[tuple[str, float], str] = {}

    def lose_everything(self) -> None:
        """What a database that came back empty is to its users: for tests of rebuilding."""
        self._erase()
        self._changed.set()

    async def open(self) -> None:
        self._check()

    async def close(self) -> None:
        return None

    async def ping(self) -> None:
        self._check()

    async def next_epoch(self, holder: str) -> int:
        self._check()
        self._epoch += 1
        self._holder = holder
        return self._epoch

    async def put(self, record: Record, *, epoch: int) -> Written | Taken:
        self._check(epoch)
        body = encode_body(record.body)
        bare = replace(record, body={})
        key = (record.kind, record.uid)
        own = self._rows.get(key)
        if own is not None and own.deleted_at is None and own.record == bare and own.body == body:
            return Written(own.revision, changed=False)
        live = [row for row in self._rows.values() if row.deleted_at is None]
        owner = next((r for r in live if record.client_id is not None and r.record.client_id == record.client_id), None)
        name = (record.kind, record.namespace, record.name)
        namesakes = [r.stored().record for r in live if (r.record.kind, r.record.namespace, r.record.name) == name]
        placed = place(record, owner=owner.stored().record if owner else None, namesakes=namesakes)
        if isinstance(placed, Taken):
            return placed
        revision = self._next_revision()
        for other in placed.giving_way:
            self._bury((other.kind, other.uid), revision)
        self._rows[key] = _Row(bare, body, revision)
        if record.kind in retention.REMEMBERED:
            self._last_states[name] = body
        return Written(revision, changed=True, displaced=placed.displaced)

    async def remove(self, kind: Kind, uid: str, *, epoch: int) -> int | None:
        self._check(epoch)
        row = self._rows.get((kind, uid))
        if row is None or row.deleted_at is not None:
            return None
        revision = self._next_revision()
        self._bury((kind, uid), revision)
        return revision

    async def live(self, kind: Kind | None = None) -> list[StoredRecord]:
        self._check()
        return [r.stored() for r in self._ordered() if r.deleted_at is None and kind in (None, r.record.kind)]

    async def get(self, kind: Kind, uid: str) -> StoredRecord | None:
        self._check()
        row = self._rows.get((kind, uid))
        return row.stored() if row is not None and row.deleted_at is None else None

    async def owner(self, client_id: str) -> StoredRecord | None:
        self._check()
        rows = (r for r in self._rows.values() if r.deleted_at is None and r.record.client_id == client_id)
        return next((row.stored() for row in rows), None)

    async def last_states(self, kind: Kind) -> list[LastState]:
        self._check()
        return [
            LastState(*name, decode_body(body)) for name, body in sorted(self._last_states.items()) if name[0] is kind
        ]

    async def prune(self, *, now: float, epoch: int) -> int:
        self._check(epoch)
        before = now - retention.TOMBSTONE_SECONDS
        # A reader whose tag is gone reloads: so tags go first, up to the newest that is old enough, and with them the
        # tombstones that only readers before it could miss.
        floor = max((revision for revision, (_, at) in self._tags.items() if at < before), default=0)
        forgotten = _forget(self._tags, lambda r, _: r < max(floor, self._revision - retention.MAX_TAGS))
        forgotten += _forget(
            self._rows, lambda _, r: r.deleted_at is not None and r.deleted_at < before and r.revision <= floor
        )
        clients = {r.record.client_id for r in self._rows.values() if r.deleted_at is None}
        forgotten += _forget(self._jtis, lambda _, forget_at: forget_at < now)
        forgotten += _forget(self._revocations, lambda _, r: r.expires_at < now)
        forgotten += _forget(self._replicas, lambda _, r: r.seen_at < now - retention.REPLICA_SECONDS)
        forgotten += _forget(
            self._activity,
            lambda key, at: at < now - retention.ACTIVITY_SECONDS or (at < before and key[0] not in clients),
        )
        return forgotten

    async def record_denials(self, denials: Sequence[Denial]) -> None:
        self._check()
        for one in denials:
            self._denials.setdefault((one.request_id, one.at), encode_body(one.body))

    async def denials(self, request_id: str) -> list[Denial]:
        self._check()
        found = sorted((key for key in self._denials if key[0] == request_id), reverse=True)
        return [Denial(*key, decode_body(self._denials[key])) for key in found[: retention.DENIALS_OF_ONE_ID]]

    async def trim_denials(self, *, now: float) -> int:
        self._check()
        surplus = sorted(self._denials, key=lambda key: key[1])[: max(0, len(self._denials) - retention.MAX_DENIALS)]
        return _forget(self._denials, lambda key, _: key[1] < now - retention.DENIAL_SECONDS or key in set(surplus))

    async def activity(self, client_id: str) -> list[Activity]:
        self._check()
        return [Activity(c, kid, at) for (c, kid), at in sorted(self._activity.items()) if c == client_id]

    async def active_since(self, since: float) -> list[str]:
        self._check()
        return sorted({client_id for (client_id, _), at in self._activity.items() if at >= since})

    async def heartbeat(self, replica: Replica) -> None:
        self._check()
        self._replicas[replica.id] = replica

    async def forget_replica(self, replica_id: str) -> None:
        self._check()
        self._replicas.pop(replica_id, None)

    async def replicas(self, *, seen_since: float) -> list[Replica]:
        self._check()
        return [r for _, r in sorted(self._replicas.items()) if r.seen_at >= seen_since]

    async def changes(self, after: Position | None) -> Changes:
        self._check()
        known = after is not None and after.store_id == self._store_id and after.revision <= self._revision
        known = known and after is not None and self._tags.get(after.revision, ("", 0.0))[0] == after.tag
        since = after.revision if after is not None and known else -1
        rows = [r for r in self._ordered() if r.revision > since and (known or r.deleted_at is None)]
        revoked = [r for r in self._revocations.values() if r.revision > since]
        return Changes(
            Position(self._revision, self._tags[self._revision][0], self._store_id),
            self._born_at,
            tuple(row.stored() for row in rows),
            tuple(sorted(revoked, key=lambda r: (r.revision, r.token_hash))),
            reset=not known,
        )

    async def wait(self, seconds: float) -> bool:
        """Returns at the change. There is no polling interval: nobody else can write here."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        changed = self._changed.is_set()
        self._changed.clear()
        return changed

    async def consume(self, jtis: Sequence[UsedJti], *, store_id: str) -> list[bool]:
        self._check()
        if jtis and store_id != self._store_id:
            raise StoreReplaced(REPLACED)
        fresh = []
        for jti in jtis:
            fresh.append(jti.key not in self._jtis)
            self._jtis.setdefault(jti.key, jti.forget_at)
        return fresh

    async def revoke(self, revocations: Sequence[Revocation]) -> None:
        self._check()
        new = {r.token_hash: r for r in reversed(revocations) if r.token_hash not in self._revocations}
        if not new:
            return
        revision = self._next_revision()
        self._revocations.update({h: replace(r, revision=revision) for h, r in new.items()})

    async def record_activity(self, uses: Sequence[Activity]) -> None:
        self._check()
        for use in uses:
            key = (use.client_id, use.kid)
            self._activity[key] = max(use.used_at, self._activity.get(key, use.used_at))

    def _check(self, epoch: int | None = None) -> None:
        if not self.available:
            raise StoreUnavailable("the store is switched off")
        if epoch is not None:
            if epoch < self._epoch:
                raise Fenced(f"epoch {epoch} was followed by {self._epoch}")
            # A store that was restored may have forgotten epochs: its next one must still be higher than any in use.
            self._epoch = epoch

    def _next_revision(self) -> int:
        self._revision += 1
        self._tags[self._revision] = (_new_tag(), self._clock())
        self._changed.set()
        return self._revision

    def _bury(self, key: tuple[Kind, str], revision: int) -> None:
        row = self._rows[key]
        self._rows[key] = _Row(row.record, EMPTY, revision, self._clock())

    def _ordered(self) -> list[_Row]:
        # Within one revision what gives way comes first, so that who applies them in order never holds both.
        return sorted(
            self._rows.values(), key=lambda r: (r.revision, r.deleted_at is None, r.record.kind, r.record.uid)
        )


def _new_tag() -> str:
    return secrets.token_hex(8)


def _forget(table: dict[K, V], expired: Callable[[K, V], bool]) -> int:
    gone = [key for key, value in table.items() if expired(key, value)]
    for key in gone:
        del table[key]
    return len(gone)
