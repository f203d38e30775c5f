"""Forgetting what can have no effect any more, in bounded steps."""

import asyncio
from typing import Any

from sqlalchemy import Column, ColumnElement, Delete, Table, and_, delete, exists, func, or_, select, tuple_

from keyturn.store import retention, schema
from keyturn.store.finishing import finished
from keyturn.store.sql.database import SqlDatabase, identified

# Between two steps of forgetting, so that whoever waits for SQLite's one write lock gets it.
_PRUNE_PAUSE_SECONDS = 0.01


class SqlPruning(SqlDatabase):
    """The part of `RecordWriter` that forgets."""

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
