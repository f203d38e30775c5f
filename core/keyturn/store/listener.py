"""Hears PostgreSQL's NOTIFY on a connection of its own, and finds its way back when that is lost."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import asyncpg

CHANNEL: Final = "keyturn"
# A connection whose other end vanished without a word is found out by asking.
_ALIVE_SECONDS = 5.0
_FIRST_DELAY = 0.2
_LAST_DELAY = 5.0

_log = logging.getLogger(__name__)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class ChangeListener:
    """`changed` is set at each notification, and when the connection comes or goes (something may have been missed)."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], failures: tuple[type[Exception], ...]) -> None:
        self.changed = asyncio.Event()
        self.connected = False
        self._connect = connect
        self._failures = failures
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, unless it has."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="keyturn-store-listener")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                connection = await self._connect()
                try:
                    delay = _FIRST_DELAY
                    await self._listen(connection)
                finally:
                    self.connected = False
                    self.changed.set()
                    connection.terminate()
            except self._failures as error:
                _log.warning("not listening to the store's changes: %s; polling meanwhile", type(error).__name__)
            # Full jitter, so that the replicas do not all come back at the same moment.
            await asyncio.sleep(random.uniform(_FIRST_DELAY / 2, delay))  # noqa: S311 - no secret
            delay = min(delay * 2, _LAST_DELAY)

    async def _listen(self, connection: Connection) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _connection: lost.set())
        await connection.add_listener(CHANNEL, self._hear)
        self.connected = True
        self.changed.set()
        while not lost.is_set():
            try:
                await asyncio.wait_for(lost.wait(), _ALIVE_SECONDS)
            except TimeoutError:
                await connection.execute("SELECT 1")

    def _hear(self, *_: Any) -> None:
        self.changed.set()
