"""PostgreSQL: the store of a cluster.

Every change is announced by NOTIFY, without a payload, inside the transaction that makes it. Used jtis are written over a
small pool of the driver's own: that is the one statement in the path of every token, and SQLAlchemy would cost more than
the rest of it.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import asyncpg
from sqlalchemy import Table, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from keyturn.records import UsedJti
from keyturn.store.finishing import finished
from keyturn.store.interface import REPLACED, StoreReplaced, StoreUnavailable
from keyturn.store.listener import CHANNEL, ChangeListener, Connection
from keyturn.store.sql import SqlStore, Upsert, identified
from keyturn.store.transport import Transport

POLL_SECONDS = 0.25
POLL_SECONDS_LISTENING = 5.0
_CONNECT_SECONDS = 5.0
_CONSUME_CONNECTIONS = 2
_SCHEMA_LOCK = 0x6B65797475726E  # "keyturn"

# One statement sees one state: whose store it is and what is inserted cannot come apart.
_CONSUME = """
WITH identity AS MATERIALIZED (SELECT store_id FROM keyturn_meta), inserted AS (
    INSERT INTO keyturn_used_jtis (key, forget_at)
    SELECT * FROM unnest($1::bytea[], $2::float8[]) WHERE (SELECT store_id FROM identity) = $3
    ON CONFLICT DO NOTHING RETURNING key
)
SELECT (SELECT store_id FROM identity), ARRAY(SELECT key FROM inserted)
"""


class PostgresStore(SqlStore):
    """The store in a PostgreSQL database (13 or newer).

    `wait` returns at a notification, and looks every 5 s besides; every 250 ms while it hears none: with the connection
    lost, or with `prepared=False` (a pooler, which forwards no notifications) and no `listen_url`.
    """

    failures: ClassVar[tuple[type[Exception], ...]] = (
        *SqlStore.failures,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    )

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        statement_timeout: float = 5.0,
        listen_url: str | None = None,
        prepared: bool = True,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # The URL goes to the driver alone: it knows libpq's parameters, and no repr of SQLAlchemy's holds the password.
        engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args={
                "async_creator_fn": self._connect,
                "prepared_statement_cache_size": 100 if prepared else 0,
                "prepared_statement_name_func": None if prepared else _unnamed,
            },
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=statement_timeout,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        # No column is of PostgreSQL's JSON types: without their codecs a new connection asks nothing outside a transaction.
        dialect: Any = engine.sync_engine.dialect
        dialect.setup_asyncpg_json_codec = dialect.setup_asyncpg_jsonb_codec = _leave
        super().__init__(engine, time_limit=_CONNECT_SECONDS + 2 * statement_timeout, clock=clock)
        self._url = url
        self._statement_timeout = statement_timeout
        self._prepared = prepared
        self._transport = transport or Transport()
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        listens = listen_url or (url if prepared else None)
        self._listener = ChangeListener(lambda: self._dial(listens), self.failures) if listens else None

    def __repr__(self) -> str:
        return "PostgresStore()"

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.close()
        await asyncio.gather(*self.calls, return_exceptions=True)
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), self._statement_timeout)
            except self.failures:
                pool.terminate()
        await super().close()

    @finished
    async def consume(self, jtis: Sequence[UsedJti], *, store_id: str) -> list[bool]:
        if not jtis:
            return []
        wanted: dict[bytes, float] = {}
        for jti in jtis:
            wanted.setdefault(jti.key, jti.forget_at)
        # In one order everywhere: two batches with the same keys then wait for each other one way only, and end.
        keys = sorted(wanted)
        async with self._guarded("consume"):
            await self._ensure_current()
            async with asyncio.timeout(self._time_limit):
                found, inserted = identified(await self._insert(keys, [wanted[key] for key in keys], store_id))
            if identified(found) != store_id:
                raise StoreReplaced(REPLACED)
        fresh = set(inserted)
        answers = []
        for jti in jtis:
            answers.append(jti.key in fresh)
            fresh.discard(jti.key)
        return answers

    async def wait(self, seconds: float) -> bool:
        if self._listener is None:
            await asyncio.sleep(min(seconds, POLL_SECONDS))
            return True
        self._listener.start()
        interval = POLL_SECONDS_LISTENING if self._listener.connected else POLL_SECONDS
        with suppress(TimeoutError):
            await asyncio.wait_for(self._listener.changed.wait(), min(seconds, interval))
        changed = self._listener.changed.is_set()
        self._listener.changed.clear()
        return changed

    async def _insert(self, keys: list[bytes], times: list[float], store_id: str) -> asyncpg.Record | None:
        pool = self._pool
        if pool is None:
            pool = self._pool = asyncpg.create_pool(
                min_size=0, max_size=_CONSUME_CONNECTIONS, connect=self._connect, reset=_leave
            )
        await pool  # connects nothing yet; returns at once when it was done before
        async with pool.acquire() as connection:
            if self._prepared:
                return await connection.fetchrow(_CONSUME, keys, times, store_id)
            # A pooler may give each statement another server connection, unless a transaction holds it.
            async with connection.transaction():
                return await connection.fetchrow(_CONSUME, keys, times, store_id)

    async def _connect(self, *_: Any, **__: Any) -> Connection:
        return await self._dial(self._url)

    async def _dial(self, url: str) -> Connection:
        try:
            return await asyncpg.connect(
                url,
                timeout=_CONNECT_SECONDS,
                command_timeout=self._statement_timeout,
                statement_cache_size=100 if self._prepared else 0,
                server_settings={"application_name": "keyturn"},
                **self._transport.arguments(),
            )
        except ssl.SSLError as error:
            # Before ValueError, of which it is a kind: the cause matters, and names no secret.
            raise StoreUnavailable(f"TLS with PostgreSQL fails: {error.reason}") from error
        except ValueError:
            # What was parsed wrongly may be a part of the password.
            raise StoreUnavailable("the store's URL is not one of PostgreSQL") from None

    def _upsert(self, table: Table) -> Upsert:
        return postgresql.insert(table)

    def _options(self, *, writing: bool) -> dict[str, Any]:
        if writing:
            return {"isolation_level": "READ COMMITTED"}
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    async def _begin_writing(self, connection: AsyncConnection) -> None:
        # A writer may hold the counter's row, which all others wait for: should this process freeze or its network go,
        # the server ends the transaction. For the transaction only: a pooler hands the connection to others.
        seconds = f"{self._statement_timeout}s"
        limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        await connection.execute(select(*(func.set_config(limit, seconds, True) for limit in limits)))

    async def _lock_schema(self, connection: AsyncConnection) -> None:
        await connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))

    async def _announce(self, connection: AsyncConnection) -> None:
        await connection.execute(text(f"NOTIFY {CHANNEL}"))


def _unnamed() -> str:
    # The protocol's unnamed statement: it is gone with the next one, and nothing piles up in a pooler's connections.
    return ""


async def _leave(_connection: Any) -> None:
    """Nothing is set on a connection, neither at its start nor to be reset after each statement: a round trip less."""
