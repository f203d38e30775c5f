"""A database that a test may take away: a real PostgreSQL behind a proxy that can be closed."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Coroutine, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from keyturn_dev.postgres import postgres
from tests.store.proxy import Proxy


class Outage:
    """The proxy, run by an event loop in a thread, for tests that wait for other processes."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._proxy = Proxy(url)
        self._run(self._proxy.restore())

    @property
    def url(self) -> str:
        return self._proxy.url

    def begin(self) -> None:
        self._run(self._proxy.cut())

    def end(self) -> None:
        self._run(self._proxy.restore())

    def close(self) -> None:
        self._run(self._proxy.cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=15)


@contextlib.contextmanager
def database_that_may_fail() -> Iterator[Outage]:
    """An empty database of its own on a real server."""
    name = f"cluster_{secrets.token_hex(8)}"
    with postgres() as server:
        asyncio.run(_administer(server, f"CREATE DATABASE {name} TEMPLATE template0"))
        outage = Outage(urlunsplit(urlsplit(server)._replace(path=f"/{name}")))
        try:
            yield outage
        finally:
            outage.close()
            asyncio.run(_administer(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _administer(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
