"""What each replica said of itself last."""

import orjson
from sqlalchemy import delete, select

from keyturn.records import Replica
from keyturn.store import schema
from keyturn.store.finishing import finished
from keyturn.store.sql.database import SqlDatabase


class SqlReplicas(SqlDatabase):
    """`ReplicaRegistry`."""

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
