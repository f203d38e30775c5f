"""Servers that a test may take away: a real PostgreSQL, or the API server, behind a proxy that can be closed or made silent."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from keyturn_dev.postgres import postgres
from keyturn_dev.tcp_proxy import Outage


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
