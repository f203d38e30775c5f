"""What changed since a position, revocations included."""

from collections.abc import Sequence

from sqlalchemy import select

from keyturn.records import Revocation
from keyturn.store import schema
from keyturn.store.finishing import finished
from keyturn.store.interface import Changes, Position
from keyturn.store.sql.database import SqlDatabase, identified
from keyturn.store.sql.rows import all_rows, live, stored


class SqlChanges(SqlDatabase):
    """`ChangeFeed.changes` and `RevocationLog`."""

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
            rows = await all_rows(connection, live() if reset else schema.records.c.revision > since)
            v = schema.revocations.c
            revoked = await connection.execute(
                select(schema.revocations).where(v.revision > since).order_by(v.revision, v.token_hash)
            )
            return Changes(
                position,
                meta.born_at,
                tuple(stored(row) for row in rows),
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
