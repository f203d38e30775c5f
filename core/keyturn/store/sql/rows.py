"""Rows of the records' table, to and from records."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from keyturn.records import Kind, Record, StoredRecord
from keyturn.store import schema
from keyturn.store.encoding import decode_body


def live() -> ColumnElement[bool]:
    return schema.records.c.deleted_at.is_(None)


def is_object(kind: Kind, uid: str) -> ColumnElement[bool]:
    return and_(schema.records.c.kind == kind.value, schema.records.c.uid == uid)


async def all_rows(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
    c = schema.records.c
    # Within one revision what gives way comes first, so that who applies them in order never holds both.
    statement = select(schema.records).where(*conditions)
    return (await connection.execute(statement.order_by(c.revision, c.deleted_at.is_(None), c.kind, c.uid))).all()


async def one_row(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> Row[Any] | None:
    return (await connection.execute(select(schema.records).where(*conditions))).one_or_none()


def stored(row: Row[Any]) -> StoredRecord:
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


def is_same(row: Row[Any], record: Record, body: str) -> bool:
    return (row.body, row.namespace, row.name, row.client_id, row.generation, row.created_at) == (
        body,
        record.namespace,
        record.name,
        record.client_id,
        record.generation,
        record.created_at,
    )
