"""Every test of the contract runs against each engine, each time in a database or schema of its own."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from keyturn.store.factory import open_store
from keyturn.store.interface import Store
from keyturn_dev.postgres import postgres

URLS = {"sqlite": "sqlite_url", "postgres": "postgres_schema_url"}
DURABLE = ("sqlite", "postgres")


@dataclass(frozen=True)
class Backend:
    """One empty database; `connect` makes another store on it, not opened yet."""

    url: str
    connect: Callable[[], Store]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    name = f"store_{secrets.token_hex(8)}"
    _administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE template0")
    yield urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))
    _administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_schema_url(postgres_server: str) -> Iterator[str]:
    """A schema of its own costs a hundredth of a database of its own."""
    name = f"store_{secrets.token_hex(8)}"
    _administer(postgres_server, f"CREATE SCHEMA {name}")
    yield f"{postgres_server}{'&' if '?' in postgres_server else '?'}search_path={name}"
    _administer(postgres_server, f"SET client_min_messages = error; DROP SCHEMA {name} CASCADE")


def _administer(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # In a thread: some fixtures are made while a loop is running in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run()).result()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/keyturn.db"


@pytest.fixture(params=["memory", *DURABLE])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "memory":
        one = open_store("memory://")
        return Backend("memory://", lambda: one)
    return on(request.getfixturevalue(URLS[request.param]))


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest) -> Backend:
    """The engines that outlive a process."""
    return on(request.getfixturevalue(URLS[request.param]))


def on(url: str) -> Backend:
    return Backend(url, lambda: open_store(url))


@pytest_asyncio.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    opened = backend.connect()
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def other(backend: Backend, store: Store) -> AsyncIterator[Store]:
    """A second store on the same database, as another process has one."""
    opened = backend.connect()
    await opened.open()
    yield opened
    await opened.close()
