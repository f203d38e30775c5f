"""SQLite: one machine, no set-up. Several processes may share the file.

The journal is a write-ahead log with `synchronous=NORMAL`: what was answered outlives a killed process; a power loss may
take the last moments, used jtis among them, without damaging the file. FULL would wait for the disk at every commit. An
installation that must rule that loss out uses PostgreSQL.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sqlalchemy import URL, Connection, Table, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from keyturn.records import UsedJti
from keyturn.store.finishing import finished
from keyturn.store.interface import REPLACED, StoreReplaced
from keyturn.store.sql import SqlStore, Upsert, identified

BUSY_SECONDS = 5.0
POLL_SECONDS = 0.1
# `data_version` misses nothing; this only bounds how long a reader trusts it.
_RECHECK_SECONDS = 5.0
T = TypeVar("T")
_BEGIN = "keyturn_begin"


class SqliteStore(SqlStore):
    """The store in one file, made with mode 0600; its folder must exist. `wait` looks every 100 ms."""

    failures: ClassVar[tuple[type[Exception], ...]] = (*SqlStore.failures, sqlite3.Error)

    def __init__(
        self, path: Path, *, pool_size: int = 5, statement_timeout: float = 5.0, clock: Callable[[], float] = time.time
    ) -> None:
        engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(path)),
            connect_args={"timeout": BUSY_SECONDS},
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=statement_timeout,
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "connect", _on_connect)
        event.listen(engine.sync_engine, "begin", _on_begin)
        # No limit by cancelling (see `finished`): waiting for a connection and for the write lock are bounded each.
        super().__init__(engine, time_limit=None, clock=clock)
        self._path = path
        self._inode: int | None = None
        self._opening = asyncio.Lock()
        # One thread a connection: waiting for the write lock in one must not delay looking for changes in the other.
        self._writer = _Worker(path)
        self._watcher = _Worker(path)
        self._seen_version: int | None = None

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._path)!r})"

    async def close(self) -> None:
        await super().close()
        await self._writer.close()
        await self._watcher.close()

    @finished
    async def consume(self, jtis: Sequence[UsedJti], *, store_id: str) -> list[bool]:
        if not jtis:
            return []
        async with self._guarded("consume"):
            await self._ensure_current()
            return await self._writer.run(lambda connection: _consume(connection, jtis, store_id))

    async def wait(self, seconds: float) -> bool:
        end = time.monotonic() + min(seconds, _RECHECK_SECONDS)
        while True:
            try:
                version = await self._watcher.run(_data_version)
            except self.failures:
                version = None
            # The first look tells nothing of what changed before it.
            if version is not None and version != self._seen_version:
                self._seen_version = version
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(POLL_SECONDS, left))

    async def _ensure_current(self) -> None:
        # A file that was put in another's place (a restored backup) is a new database; open connections hold the old.
        if self._inode is None or _inode(self._path) != self._inode:
            async with self._opening:
                if self._inode is None or _inode(self._path) != self._inode:
                    self._current = False
                    await self._engine.dispose()
                    await self._writer.close()
                    await self._watcher.close()
                    self._seen_version = None
                    self._inode = await asyncio.to_thread(_make, self._path)
        await super()._ensure_current()

    def _upsert(self, table: Table) -> Upsert:
        return sqlite.insert(table)

    def _options(self, *, writing: bool) -> dict[str, Any]:
        # A transaction that begins by reading fails at its first write when another wrote between: it cannot wait.
        return {_BEGIN: "BEGIN IMMEDIATE" if writing else "BEGIN"}

    async def _lock_schema(self, connection: AsyncConnection) -> None:
        """BEGIN IMMEDIATE is the lock: SQLite has one writer."""

    async def _begin_writing(self, connection: AsyncConnection) -> None:
        """Everything is set a connection."""

    async def _announce(self, connection: AsyncConnection) -> None:
        """Readers look at the file's own change counter."""


class _Worker:
    """One connection in one thread of its own, both made when they are first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="keyturn-sqlite")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def close(self) -> None:
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            # mode=rw: never make a file here, where nobody would give it a schema.
            uri = f"{self._path.absolute().as_uri()}?mode=rw"
            connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
            connection.execute("PRAGMA synchronous=NORMAL")
            self._connection = connection
        return work(self._connection)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _consume(connection: sqlite3.Connection, jtis: Sequence[UsedJti], store_id: str) -> list[bool]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = identified(connection.execute("SELECT store_id FROM keyturn_meta").fetchone())
        if found != store_id:
            raise StoreReplaced(REPLACED)
        insert = "INSERT OR IGNORE INTO keyturn_used_jtis (key, forget_at) VALUES (?, ?)"
        fresh = [connection.execute(insert, (jti.key, jti.forget_at)).rowcount == 1 for jti in jtis]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return fresh


def _data_version(connection: sqlite3.Connection) -> int:
    # Differs when another connection, of this process or another, has committed.
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _make(path: Path) -> int:
    """Makes the file, readable by its owner only (its journals take the mode from it), and sets the journal mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode=WAL").fetchone()
            return path.stat().st_ino
        except sqlite3.OperationalError:
            # Changing the mode does not wait for others that are changing it too.
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _on_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # The driver would begin transactions by itself, too late and deferred: SQLAlchemy's own events begin them.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))
