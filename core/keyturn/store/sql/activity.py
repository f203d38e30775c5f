"""When clients and their keys were used last."""

from collections.abc import Sequence

from sqlalchemy import select

from keyturn.records import Activity
from keyturn.store import schema
from keyturn.store.finishing import finished
from keyturn.store.sql.database import SqlDatabase


class SqlActivity(SqlDatabase):
    """`ActivityLog`, and the operator's reading of it."""

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


def _storable(text: str) -> str:
    """A key's id is its owner's choice; PostgreSQL has no text with NUL, and UTF-8 no lone surrogates."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
