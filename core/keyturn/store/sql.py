"""The store over SQL, as far as both engines agree: SQLAlchemy Core, one connection and one transaction a call."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    Row,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from keyturn.records import Activity, Kind, Record, Replica, Revocation, StoredRecord, UsedJti
from keyturn.store import retention, schema
from keyturn.store.encoding import EMPTY, decode_body, encode_body
from keyturn.store.finishing import finished
from keyturn.store.interface import Changes, Fenced, Position, StoreError, StoreUnavailable, Taken, Written
from keyturn.store.migrate import is_current, migrate, new_tag
from keyturn.store.placement import place

_MIGRATION_SECONDS = 120.0
# Between two steps of forgetting, so that whoever waits for SQLite's one write lock gets it.
_PRUNE_PAUSE_SECONDS = 0.01

T = TypeVar("T")
Upsert = postgresql.Insert | sqlite.Insert


class SqlStore(ABC):
    """What does not depend on the engine. Each call is one transaction on one connection, and never needs a second."""

    # What the driver raises; SQLAlchemy wraps most of it.
    failures: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError, OSError)

    def __init__(
        self, engine: AsyncEngine, *, time_limit: float | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._time_limit = time_limit
        self._clock = clock
        self._current = False
        self._migrating = asyncio.Lock()
        self.calls: set[asyncio.Task[Any]] = set()

    @abstractmethod
    def _upsert(self, table: Table) -> Upsert: ...

    @abstractmethod
    async def _lock_schema(self, connection: AsyncConnection) -> None:
        """Takes the lock that guards migrations, until the transaction ends."""

    @abstractmethod
    async def _announce(self, connection: AsyncConnection) -> None:
        """Wakes the readers once the transaction is committed."""

    @abstractmethod
    def _options(self, *, writing: bool) -> dict[str, Any]:
        """Execution options of a transaction; reading ones see one consistent snapshot."""

    @abstractmethod
    async def _begin_writing(self, connection: AsyncConnection) -> None:
        """What a writing transaction sets first."""

    @abstractmethod
    async def consume(self, jtis: Sequence[UsedJti], *, store_id: str) -> list[bool]: ...

    @abstractmethod
    async def wait(self, seconds: float) -> bool: ...

    @finished
    async def open(self) -> None:
        async with self._guarded("open"):
            self._current = False
            await self._ensure_current()

    async def close(self) -> None:
        await asyncio.gather(*self.calls, return_exceptions=True)
        await self._engine.dispose()

    @finished
    async def ping(self) -> None:
        async with self._reading("ping") as connection:
            await connection.execute(select(schema.meta.c.id))

    @finished
    async def next_epoch(self, holder: str) -> int:
        async with self._writing("next_epoch") as connection:
            statement = update(schema.meta).values(epoch=schema.meta.c.epoch + 1, holder=holder)
            epoch = await connection.scalar(statement.returning(schema.meta.c.epoch))
            return int(identified(epoch))

    @finished
    async def put(self, record: Record, *, epoch: int) -> Written | Taken:
        body = encode_body(record.body)
        async with self._writing("put") as connection:
            own = await _one(connection, _is(record.kind, record.uid), live())
            if own is not None and _same(own, record, body):
                await self._check_epoch(connection, epoch)
                return Written(own.revision, changed=False)
            # From here on the counter's row is ours until the end: what is read next cannot change under us.
            revision = await self._advance(connection, epoch)
            owner = None
            if record.client_id is not None:
                owner = await _one(connection, schema.records.c.client_id == record.client_id, live())
            c = schema.records.c
            name = and_(c.kind == record.kind, c.namespace == record.namespace, c.name == record.name)
            namesakes = [_stored(row).record for row in await _all(connection, name, live())]
            placed = place(record, owner=_stored(owner).record if owner else None, namesakes=namesakes)
            if isinstance(placed, Taken):
                await connection.rollback()
                return placed
            for other in placed.giving_way:
                await self._bury(connection, other.kind, other.uid, revision)
            await self._write(connection, record, body, revision)
            await self._announce(connection)
            return Written(revision, changed=True, displaced=placed.displaced)

    @finished
    async def remove(self, kind: Kind, uid: str, *, epoch: int) -> int | None:
        async with self._writing("remove") as connection:
            if await _one(connection, _is(kind, uid), live()) is None:
                await self._check_epoch(connection, epoch)
                return None
            revision = await self._advance(connection, epoch)
            if not await self._bury(connection, kind, uid, revision):
                await connection.rollback()
                return None
            await self._announce(connection)
            return revision

    @finished
    async def live(self, kind: Kind | None = None) -> list[StoredRecord]:
        async with self._reading("live") as connection:
            conditions = [live()] if kind is None else [live(), schema.records.c.kind == kind]
            return [_stored(row) for row in await _all(connection, *conditions)]

    @finished
    async def get(self, kind: Kind, uid: str) -> StoredRecord | None:
        async with self._reading("get") as connection:
            row = await _one(connection, _is(kind, uid), live())
            return None if row is None else _stored(row)

    @finished
    async def owner(self, client_id: str) -> StoredRecord | None:
        async with self._reading("owner") as connection:
            row = await _one(connection, schema.records.c.client_id == client_id, live())
            return None if row is None else _stored(row)

    async def prune(self, *, now: float, epoch: int) -> int:
        before = now - retention.TOMBSTONE_SECONDS
        floor, revision = await self._newest_before(before, epoch)
        # A reader whose tag is gone reloads: so tags go first, up to the newest that is old enough, and with them the
        # tombstones that only readers before it could miss.
        c = schema.records.c
        tombstone = and_(c.deleted_at < before, c.revision <= floor)
        a = schema.activity.c
        unowned = ~exists().where(and_(c.client_id == a.client_id, c.deleted_at.is_(None)))
        unused = or_(a.used_at < now - retention.ACTIVITY_SECONDS, and_(a.used_at < before, unowned))
        stale = schema.replicas.c.seen_at < now - retention.REPLICA_SECONDS
        # Each with the column by whose index its rows are found, oldest first.
        expired: tuple[tuple[ColumnElement[bool], Column[Any]], ...] = (
            (schema.tags.c.revision < max(floor, revision - retention.MAX_TAGS), schema.tags.c.revision),
            (tombstone, c.revision),
            (schema.used_jtis.c.forget_at < now, schema.used_jtis.c.forget_at),
            (schema.revocations.c.expires_at < now, schema.revocations.c.expires_at),
            (stale, schema.replicas.c.seen_at),
            (unused, a.used_at),
        )
        return sum([await self._forget(condition, order, epoch) for condition, order in expired])

    @finished
    async def _newest_before(self, time: float, epoch: int) -> tuple[int, int]:
        """The newest revision taken before this time (else 0), and the newest of all."""
        async with self._reading("prune") as connection:
            await self._check_epoch(connection, epoch)
            old = select(func.max(schema.tags.c.revision)).where(schema.tags.c.at < time)
            floor = int(await connection.scalar(old) or 0)
            return floor, int(identified(await connection.scalar(select(schema.meta.c.revision))))

    async def _forget(self, condition: ColumnElement[bool], order: Column[Any], epoch: int) -> int:
        table = order.table
        assert isinstance(table, Table)
        key = tuple_(*table.primary_key.columns)
        step = select(*table.primary_key.columns).where(condition).order_by(order).limit(retention.PRUNE_STEP)
        forgotten = 0
        while True:
            rows = await self._delete(delete(table).where(key.in_(step)), epoch)
            forgotten += rows
            if rows < retention.PRUNE_STEP:
                return forgotten
            await asyncio.sleep(_PRUNE_PAUSE_SECONDS)

    @finished
    async def _delete(self, statement: Delete, epoch: int) -> int:
        async with self._writing("prune") as connection:
            await self._check_epoch(connection, epoch)
            return (await connection.execute(statement)).rowcount

    @finished
    async def activity(self, client_id: str) -> list[Activity]:
        a = schema.activity.c
        async with self._reading("activity") as connection:
            rows = await connection.execute(select(schema.activity).where(a.client_id == client_id).order_by(a.kid))
            return [Activity(row.client_id, row.kid, row.used_at) for row in rows]

    @finished
    async def active_since(self, since: float) -> list[str]:
        a = schema.activity.c
        async with self._reading("active_since") as connection:
            clients = select(a.client_id).where(a.used_at >= since).distinct()
            return sorted((await connection.scalars(clients)).all())

    @finished
    async def heartbeat(self, replica: Replica) -> None:
        values = {
            "id": replica.id,
            "applied_revision": replica.applied_revision,
            "loaded_kids": orjson.dumps(replica.loaded_kids).decode(),
            "seen_at": replica.seen_at,
            "version": replica.version,
        }
        async with self._writing("heartbeat") as connection:
            upsert = self._upsert(schema.replicas).values(values)
            await connection.execute(upsert.on_conflict_do_update(index_elements=["id"], set_=values))

    @finished
    async def forget_replica(self, replica_id: str) -> None:
        async with self._writing("forget_replica") as connection:
            await connection.execute(delete(schema.replicas).where(schema.replicas.c.id == replica_id))

    @finished
    async def replicas(self, *, seen_since: float) -> list[Replica]:
        r = schema.replicas.c
        async with self._reading("replicas") as connection:
            rows = await connection.execute(select(schema.replicas).where(r.seen_at >= seen_since).order_by(r.id))
            return [
                Replica(row.id, row.applied_revision, tuple(orjson.loads(row.loaded_kids)), row.seen_at, row.version)
                for row in rows
            ]

    @finished
    async def changes(self, after: Position | None) -> Changes:
        async with self._reading("changes") as connection:
            meta = identified((await connection.execute(select(schema.meta))).one_or_none())
            wanted = {meta.revision} if after is None else {meta.revision, after.revision}
            found = await connection.execute(select(schema.tags).where(schema.tags.c.revision.in_(sorted(wanted))))
            known_tags = {row.revision: row.tag for row in found}
            position = Position(meta.revision, identified(known_tags.get(meta.revision)), meta.store_id)
            if after == position:
                return Changes(position, meta.born_at, (), (), reset=False)
            since = -1
            # A higher revision than the store's own has no tag here, nor has one from before a restore the same.
            if after is not None and after.store_id == meta.store_id and after.revision <= meta.revision:
                since = after.revision if known_tags.get(after.revision) == after.tag else -1
            reset = since < 0
            rows = await _all(connection, live() if reset else schema.records.c.revision > since)
            v = schema.revocations.c
            revoked = await connection.execute(
                select(schema.revocations).where(v.revision > since).order_by(v.revision, v.token_hash)
            )
            return Changes(
                position,
                meta.born_at,
                tuple(_stored(row) for row in rows),
                tuple(Revocation(row.token_hash, row.expires_at, row.revision) for row in revoked),
                reset,
            )

    @finished
    async def revoke(self, revocations: Sequence[Revocation]) -> None:
        if not revocations:
            return
        wanted = {r.token_hash: r for r in reversed(revocations)}
        async with self._writing("revoke") as connection:
            revision = await self._advance(connection, None)
            rows = [
                {"token_hash": token_hash, "expires_at": r.expires_at, "revision": revision}
                for token_hash, r in sorted(wanted.items())
            ]
            new = 0
            for row in rows:
                statement = self._upsert(schema.revocations).values(row).on_conflict_do_nothing()
                new += (await connection.execute(statement)).rowcount
            if new == 0:
                await connection.rollback()
                return
            await self._announce(connection)

    @finished
    async def record_activity(self, uses: Sequence[Activity]) -> None:
        latest: dict[tuple[str, str], float] = {}
        for use in uses:
            key = (_storable(use.client_id), _storable(use.kid))
            latest[key] = max(use.used_at, latest.get(key, use.used_at))
        if not latest:
            return
        async with self._writing("record_activity") as connection:
            upsert = self._upsert(schema.activity)
            later = upsert.excluded.used_at > schema.activity.c.used_at
            statement = upsert.on_conflict_do_update(
                index_elements=["client_id", "kid"], set_={"used_at": upsert.excluded.used_at}, where=later
            )
            # Sorted: two replicas that lock the same rows in the same order cannot block each other for ever.
            rows = [{"client_id": c, "kid": kid, "used_at": at} for (c, kid), at in sorted(latest.items())]
            await connection.execute(statement, rows)

    async def _advance(self, connection: AsyncConnection, epoch: int | None) -> int:
        """Takes the next revision, with its tag. Raises Fenced, decided by the same row that the revision comes from."""
        m = schema.meta.c
        statement = update(schema.meta).values(revision=m.revision + 1)
        if epoch is not None:
            # A store that was restored may have forgotten epochs: its next one must still be higher than any in use.
            statement = statement.where(m.epoch <= epoch).values(epoch=epoch)
        revision = await connection.scalar(statement.returning(m.revision))
        if revision is None:
            await self._check_epoch(connection, epoch)
            raise StoreUnavailable("the counter row did not answer")
        await connection.execute(insert(schema.tags).values(revision=revision, tag=new_tag(), at=self._clock()))
        return int(revision)

    async def _check_epoch(self, connection: AsyncConnection, epoch: int | None) -> None:
        seen = int(identified(await connection.scalar(select(schema.meta.c.epoch))))
        if epoch is not None and epoch < seen:
            raise Fenced(f"epoch {epoch} was followed by {seen}")

    async def _bury(self, connection: AsyncConnection, kind: Kind, uid: str, revision: int) -> bool:
        statement = update(schema.records).where(_is(kind, uid), live())
        buried = await connection.execute(statement.values(body=EMPTY, deleted_at=self._clock(), revision=revision))
        return buried.rowcount == 1

    async def _write(self, connection: AsyncConnection, record: Record, body: str, revision: int) -> None:
        values = {
            "namespace": record.namespace,
            "name": record.name,
            "client_id": record.client_id,
            "generation": record.generation,
            "created_at": record.created_at,
            "revision": revision,
            "deleted_at": None,
            "body": body,
        }
        upsert = self._upsert(schema.records).values(kind=record.kind.value, uid=record.uid, **values)
        await connection.execute(upsert.on_conflict_do_update(index_elements=["kind", "uid"], set_=values))

    @asynccontextmanager
    async def _reading(self, operation: str) -> AsyncIterator[AsyncConnection]:
        async with self._transaction(operation, writing=False) as connection:
            yield connection

    @asynccontextmanager
    async def _writing(self, operation: str) -> AsyncIterator[AsyncConnection]:
        async with self._transaction(operation, writing=True) as connection:
            await self._begin_writing(connection)
            yield connection

    @asynccontextmanager
    async def _transaction(self, operation: str, *, writing: bool) -> AsyncIterator[AsyncConnection]:
        async with self._guarded(operation):
            await self._ensure_current()
            async with asyncio.timeout(self._time_limit), self._engine.connect() as plain:
                connection = await plain.execution_options(**self._options(writing=writing))
                async with connection.begin():
                    yield connection

    @asynccontextmanager
    async def _guarded(self, operation: str) -> AsyncIterator[None]:
        """Whatever the driver raises becomes StoreUnavailable; its own text stays with the cause, for the log."""
        try:
            yield
        except StoreUnavailable:
            self._current = False
            raise
        except StoreError:
            raise
        except self.failures as error:
            # The database may come back another one, emptied or restored: the next call looks before it trusts it.
            self._current = False
            raise StoreUnavailable(f"the store failed to {operation}: {type(error).__name__}") from error

    async def _ensure_current(self) -> None:
        if not self._current:
            async with self._migrating, asyncio.timeout(_MIGRATION_SECONDS):
                await self._make_current()

    async def _make_current(self) -> None:
        if self._current:  # by whom this one waited for
            return
        async with self._engine.connect() as connection:
            current = await is_current(connection)
        if not current:
            await self._migrate()
        self._current = True

    async def _migrate(self) -> None:
        async with self._engine.connect() as plain:
            connection = await plain.execution_options(**self._options(writing=True))
            async with connection.begin():
                await self._lock_schema(connection)
                await migrate(connection, clock=self._clock)


def live() -> ColumnElement[bool]:
    return schema.records.c.deleted_at.is_(None)


def _is(kind: Kind, uid: str) -> ColumnElement[bool]:
    return and_(schema.records.c.kind == kind.value, schema.records.c.uid == uid)


async def _all(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
    c = schema.records.c
    # Within one revision what gives way comes first, so that who applies them in order never holds both.
    statement = select(schema.records).where(*conditions)
    return (await connection.execute(statement.order_by(c.revision, c.deleted_at.is_(None), c.kind, c.uid))).all()


async def _one(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> Row[Any] | None:
    return (await connection.execute(select(schema.records).where(*conditions))).one_or_none()


def _stored(row: Row[Any]) -> StoredRecord:
    record = Record(
        kind=Kind(row.kind),
        uid=row.uid,
        namespace=row.namespace,
        name=row.name,
        generation=row.generation,
        created_at=row.created_at,
        body=decode_body(row.body),
        client_id=row.client_id,
    )
    return StoredRecord(record, row.revision, deleted=row.deleted_at is not None)


def _same(row: Row[Any], record: Record, body: str) -> bool:
    return (row.body, row.namespace, row.name, row.client_id, row.generation, row.created_at) == (
        body,
        record.namespace,
        record.name,
        record.client_id,
        record.generation,
        record.created_at,
    )


def identified(value: T | None) -> T:
    """The value, unless it is lacking because someone emptied the tables."""
    if value is None:
        raise StoreUnavailable("the database has lost its identity")
    return value


def _storable(text: str) -> str:
    """A key's id is its owner's choice; PostgreSQL has no text with NUL, and UTF-8 no lone surrogates."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
