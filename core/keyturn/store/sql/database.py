"""Connections and transactions over SQLAlchemy Core, as far as both engines agree: one connection and one transaction a call."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from keyturn.store import schema
from keyturn.store.finishing import finished
from keyturn.store.interface import Fenced, SchemaTooNew, StoreError, StoreUnavailable
from keyturn.store.migrate import is_current, migrate, new_tag

_MIGRATION_SECONDS = 120.0

T = TypeVar("T")
Upsert = postgresql.Insert | sqlite.Insert


class SqlDatabase(ABC):
    """Opens, migrates, begins and ends. Each call of a subclass is one transaction on one connection, and never needs a second."""

    # What the driver raises; SQLAlchemy wraps most of it.
    failures: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError, OSError)

    def __init__(
        self, engine: AsyncEngine, *, time_limit: float | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._time_limit = time_limit
        self._clock = clock
        self._current = False
        self._served = False
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
        try:
            async with self._engine.connect() as connection:
                current = await is_current(connection)
            if not current:
                await self._migrate()
        except SchemaTooNew as error:
            if self._served:
                # An upgrade goes on: its new processes have migrated before this one was ended. It goes on with what it has in memory.
                raise StoreUnavailable(str(error)) from error
            raise
        self._current = self._served = True

    async def _migrate(self) -> None:
        async with self._engine.connect() as plain:
            connection = await plain.execution_options(**self._options(writing=True))
            async with connection.begin():
                await self._lock_schema(connection)
                await migrate(connection, clock=self._clock)


def identified(value: T | None) -> T:
    """The value, unless it is lacking because someone emptied the tables."""
    if value is None:
        raise StoreUnavailable("the database has lost its identity")
    return value
