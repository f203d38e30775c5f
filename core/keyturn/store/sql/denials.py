"""Why requests were not let through."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select, tuple_

from keyturn.records import Denial
from keyturn.store import retention, schema
from keyturn.store.encoding import decode_body, encode_body
from keyturn.store.finishing import finished
from keyturn.store.sql.database import SqlDatabase


class SqlDenials(SqlDatabase):
    """`DenialLog`."""

    @finished
    async def record_denials(self, denials: Sequence[Denial]) -> None:
        if not denials:
            return
        # Sorted: two replicas that lock the same rows in the same order cannot block each other for ever.
        ordered = sorted(denials, key=lambda one: (one.request_id, one.at))
        rows = [{"request_id": one.request_id, "at": one.at, "body": encode_body(one.body)} for one in ordered]
        async with self._writing("record_denials") as connection:
            await connection.execute(self._upsert(schema.denials).on_conflict_do_nothing(), rows)

    @finished
    async def denials(self, request_id: str) -> list[Denial]:
        d = schema.denials.c
        async with self._reading("denials") as connection:
            found = select(schema.denials).where(d.request_id == request_id).order_by(d.at.desc())
            rows = await connection.execute(found.limit(retention.DENIALS_OF_ONE_ID))
            return [Denial(row.request_id, row.at, decode_body(row.body)) for row in rows]

    async def trim_denials(self, *, now: float) -> int:
        forgotten = 0
        while True:
            rows = await self._trim_step(now - retention.DENIAL_SECONDS)
            forgotten += rows
            if rows < retention.PRUNE_STEP:
                return forgotten

    @finished
    async def _trim_step(self, before: float) -> int:
        d = schema.denials.c
        async with self._writing("trim_denials") as connection:
            there = int(await connection.scalar(select(func.count()).select_from(schema.denials)) or 0)
            oldest = select(d.request_id, d.at).order_by(d.at)
            surplus = there - retention.MAX_DENIALS
            step = oldest.limit(min(surplus, retention.PRUNE_STEP))
            if surplus <= 0:
                step = oldest.where(d.at < before).limit(retention.PRUNE_STEP)
            gone = await connection.execute(delete(schema.denials).where(tuple_(d.request_id, d.at).in_(step)))
            return gone.rowcount
