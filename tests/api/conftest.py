"""One running API for the tests that change nothing others look at; a fresh installation for the rest."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from keyturn.clients.state import CLIENT_SECRET_POST, INTROSPECT_ANY
from keyturn_dev.postgres import postgres
from tests.api.installation import ApiProcess, Installation
from tests.sample_keys import sample_key

APP = sample_key(number=11)
OTHER_KEYS = {algorithm: sample_key(algorithm, number=12) for algorithm in ("PS256", "ES256", "EdDSA")}
SECRET = b"s3cret+% :/=&\xc3\xa9"


@dataclass
class Running:
    """An installation with its first process and a client for it."""

    installation: Installation
    process: ApiProcess
    http: httpx2.AsyncClient


async def _filled(folder: Path, store_url: str | None = None) -> Installation:
    installation = Installation(folder, store_url)
    await installation.open()
    await installation.add_key_client("team.app", APP)
    for algorithm, key in OTHER_KEYS.items():
        await installation.add_key_client(f"team.{algorithm.lower()}", key)
    await installation.add_secret_client("team.secret", SECRET)
    await installation.add_secret_client("team.post", SECRET, auth_method=CLIENT_SECRET_POST)
    await installation.add_secret_client("team.api", SECRET, introspection=INTROSPECT_ANY)
    await installation.add_rules()
    return installation


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """For tests that leave clients, keys and rules as they are."""
    installation = await _filled(tmp_path_factory.mktemp("shared"))
    try:
        process = await installation.start(secret_failures_per_minute="0", log_level="DEBUG").ready()
        async with httpx2.AsyncClient(base_url=process.url) as http:
            yield Running(installation, process, http)
    finally:
        await installation.close()


@pytest_asyncio.fixture(loop_scope="session")
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    """One of the test's own; it starts the processes that it needs."""
    made = await _filled(tmp_path)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session", params=["sqlite", "postgres"])
async def on_each_engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation of the test's own, once on each engine."""
    url = None
    if request.param == "postgres":
        server: str = request.getfixturevalue("postgres_server")
        schema = f"api_{secrets.token_hex(8)}"
        connection = await asyncpg.connect(server)
        await connection.execute(f"CREATE SCHEMA {schema}")
        await connection.close()
        url = f"{server}{'&' if '?' in server else '?'}search_path={schema}"
    made = await _filled(tmp_path, url)
    try:
        yield made
    finally:
        await made.close()
