"""The operator's rows: one revision a change, fenced by its epoch."""

from sqlalchemy import and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keyturn.records import Kind, LastState, Record, StoredRecord
from keyturn.store import retention, schema
from keyturn.store.encoding import EMPTY, decode_body, encode_body
from keyturn.store.finishing import finished
from keyturn.store.interface import Taken, Written
from keyturn.store.placement import place
from keyturn.store.sql.database import SqlDatabase, identified
from keyturn.store.sql.rows import all_rows, is_object, is_same, live, one_row, stored


class SqlRecords(SqlDatabase):
    """The part of `RecordWriter` that reads and writes records."""

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
            own = await one_row(connection, is_object(record.kind, record.uid), live())
            if own is not None and is_same(own, record, body):
                await self._check_epoch(connection, epoch)
                return Written(own.revision, changed=False)
            # From here on the counter's row is ours until the end: what is read next cannot change under us.
            revision = await self._advance(connection, epoch)
            owner = None
            if record.client_id is not None:
                owner = await one_row(connection, schema.records.c.client_id == record.client_id, live())
            c = schema.records.c
            name = and_(c.kind == record.kind, c.namespace == record.namespace, c.name == record.name)
            namesakes = [stored(row).record for row in await all_rows(connection, name, live())]
            placed = place(record, owner=stored(owner).record if owner else None, namesakes=namesakes)
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
            if await one_row(connection, is_object(kind, uid), live()) is None:
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
            return [stored(row) for row in await all_rows(connection, *conditions)]

    @finished
    async def get(self, kind: Kind, uid: str) -> StoredRecord | None:
        async with self._reading("get") as connection:
            row = await one_row(connection, is_object(kind, uid), live())
            return None if row is None else stored(row)

    @finished
    async def owner(self, client_id: str) -> StoredRecord | None:
        async with self._reading("owner") as connection:
            row = await one_row(connection, schema.records.c.client_id == client_id, live())
            return None if row is None else stored(row)

    @finished
    async def last_states(self, kind: Kind) -> list[LastState]:
        async with self._reading("last_states") as connection:
            c = schema.last_states.c
            statement = select(schema.last_states).where(c.kind == kind.value).order_by(c.namespace, c.name)
            rows = await connection.execute(statement)
            return [LastState(Kind(row.kind), row.namespace, row.name, decode_body(row.body)) for row in rows]

    async def _bury(self, connection: AsyncConnection, kind: Kind, uid: str, revision: int) -> bool:
        statement = update(schema.records).where(is_object(kind, uid), live())
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
        if record.kind in retention.REMEMBERED:
            place_of = {"kind": record.kind.value, "namespace": record.namespace, "name": record.name}
            remember = self._upsert(schema.last_states).values(**place_of, body=body)
            await connection.execute(remember.on_conflict_do_update(index_elements=list(place_of), set_={"body": body}))
