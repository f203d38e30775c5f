"""PostgreSQL by TLS, with a password that does not stand in the URL, and within the bounds that were set."""

import asyncio
import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from keyturn.records import UsedJti
from keyturn.store.factory import open_store
from keyturn.store.interface import Store, StoreUnavailable
from keyturn.store.transport import TlsMode, Transport
from keyturn_dev.certificates import Authority
from keyturn_dev.postgres import postgres

from .samples import NOW, client, consume

OWN_CONNECTIONS = 3
"""Besides those of the pool: two for jtis, one that listens."""


@dataclass(frozen=True)
class TlsServer:
    """A server whose certificate names `localhost` alone, and files with its authority and with another one."""

    url: str
    authority: Path
    another: Path

    def at(self, host: str, *, password: str | None = "", query: str = "") -> str:
        """The URL by this name of the server. `password`: None for none, another one in place of the right one."""
        parts = urlsplit(self.url)
        secret = parts.password if password == "" else password
        user = f"{parts.username}" + ("" if secret is None else f":{secret}")
        return urlunsplit(parts._replace(netloc=f"{user}@{host}:{parts.port}", query=query))

    @property
    def password(self) -> str:
        return urlsplit(self.url).password or ""


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    now = datetime.datetime.now(datetime.UTC)
    ours, theirs = Authority("database", now), Authority("another", now)
    folder = tmp_path_factory.mktemp("authorities")
    files = {"ours": ours.certificate, "theirs": theirs.certificate}
    for name, content in files.items():
        (folder / f"{name}.pem").write_bytes(content)
    with postgres(certificate=ours.issue("postgresql", names=("localhost",), client=False)) as url:
        yield TlsServer(url, folder / "ours.pem", folder / "theirs.pem")


async def connections(url: str) -> list[Any]:
    """What the server says of Keyturn's connections: whether each is by TLS."""
    connection = await asyncpg.connect(url)
    try:
        return [
            row["ssl"]
            for row in await connection.fetch(
                "SELECT s.ssl FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)"
                " WHERE a.application_name = 'keyturn' AND a.datname = current_database()"
            )
        ]
    finally:
        await connection.close()


async def used(store: Store) -> None:
    """Uses each of a store's connections: the pool, the listening one, those for jtis."""
    await store.put(client("tls"), epoch=0)
    await store.wait(0.5)
    await consume(store, [UsedJti(b"tls", NOW)])


@pytest.mark.parametrize(
    ("host", "query", "mode", "authority"),
    [
        pytest.param("localhost", "", "verify-full", "authority", id="its certificate and name are checked"),
        pytest.param("127.0.0.1", "", "require", None, id="it is only required, by whatever name"),
        pytest.param("127.0.0.1", "sslmode=require", None, None, id="the URL says it"),
    ],
)
async def test_every_connection_is_by_tls_where(
    tls: TlsServer, host: str, query: str, mode: TlsMode | None, authority: str | None
) -> None:
    ca_file = None if authority is None else getattr(tls, authority)
    store = open_store(tls.at(host, query=query), transport=Transport(tls=mode, ca_file=ca_file))
    await store.open()
    try:
        await used(store)
        seen = await connections(tls.url)
        assert len(seen) >= 3
        assert set(seen) == {True}
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("host", "mode", "authority"),
    [
        pytest.param("127.0.0.1", "verify-full", "authority", id="the certificate is for another name"),
        pytest.param("localhost", "verify-full", "another", id="another authority vouches for it"),
        pytest.param("localhost", "verify-full", None, id="the machine knows nothing of the authority"),
    ],
)
async def test_a_server_is_refused_when(tls: TlsServer, host: str, mode: TlsMode, authority: str | None) -> None:
    ca_file = None if authority is None else getattr(tls, authority)
    store = open_store(tls.at(host), transport=Transport(tls=mode, ca_file=ca_file))
    with pytest.raises(StoreUnavailable, match="TLS") as caught:
        await store.open()
    assert tls.password not in str(caught.value)
    await store.close()


@pytest.mark.parametrize("mode", ["require", "verify-full"])
async def test_a_server_without_tls_is_refused_where_it_is_asked_for(
    tls: TlsServer, postgres_url: str, mode: TlsMode
) -> None:
    store = open_store(postgres_url, transport=Transport(tls=mode, ca_file=tls.authority))
    with pytest.raises(StoreUnavailable):
        await store.open()
    await store.close()
    plain = open_store(postgres_url, transport=Transport(tls="disable"))
    await plain.open()
    assert set(await connections(postgres_url)) == {False}
    await plain.close()


async def test_an_authority_that_cannot_be_read_is_told_and_a_renewed_one_is_read(
    tls: TlsServer, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.crt"
    store = open_store(tls.at("localhost"), transport=Transport(tls="verify-full", ca_file=ca_file))
    for content in (None, b"no certificate", tls.another.read_bytes()):
        if content is not None:
            ca_file.write_bytes(content)
        with pytest.raises(StoreUnavailable):
            await store.open()
    ca_file.write_bytes(tls.authority.read_bytes())
    await store.open()
    await store.close()


async def test_the_password_may_stand_beside_the_url(tls: TlsServer) -> None:
    store = open_store(tls.at("127.0.0.1", password=None), transport=Transport(password=tls.password))
    await store.open()
    await used(store)
    await store.close()
    wrong = open_store(tls.at("127.0.0.1", password=None), transport=Transport(password="hunter2/@#"))
    with pytest.raises(StoreUnavailable) as caught:
        await wrong.open()
    await wrong.close()
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}{wrong!r}{Transport(password='hunter2')!r}"


async def test_a_password_beside_the_url_counts_before_the_one_in_it(tls: TlsServer) -> None:
    store = open_store(tls.at("127.0.0.1", password="stale"), transport=Transport(password=tls.password))
    await store.open()
    await store.close()


async def test_a_statement_that_takes_too_long_is_ended(postgres_url: str) -> None:
    limit = 0.5
    store = open_store(postgres_url, statement_timeout=limit)
    await store.put(client("a"), epoch=0)
    holder = await asyncpg.connect(postgres_url)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("LOCK TABLE keyturn_records, keyturn_used_jtis IN ACCESS EXCLUSIVE MODE")
        for work in (
            store.put(client("b"), epoch=0),
            store.live(),
            consume(store, [UsedJti(b"slow", NOW)]),
        ):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await work
            assert limit * 0.8 < time.monotonic() - began < limit + 5
        waiting = await holder.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keyturn' AND wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        assert waiting == 0, "the server waits for nothing on behalf of those who gave up"
        await transaction.rollback()
    finally:
        await holder.close()
    await store.put(client("b"), epoch=0)
    assert await consume(store, [UsedJti(b"slow", NOW)]) == [True]
    await store.close()


async def test_no_more_connections_are_made_than_was_set(postgres_url: str) -> None:
    store = open_store(postgres_url, pool_size=2)
    await store.open()
    counts: list[int] = []

    async def count() -> None:
        while True:
            counts.append(len(await connections(postgres_url)))
            await asyncio.sleep(0.02)

    counting = asyncio.create_task(count())
    try:
        await store.wait(0.3)
        await asyncio.gather(
            *(store.put(client(f"c-{number}"), epoch=0) for number in range(40)),
            *(store.changes(None) for _ in range(40)),
            *(consume(store, [UsedJti(b"%d" % number, NOW)]) for number in range(40)),
        )
    finally:
        counting.cancel()
    assert max(counts) <= 2 + OWN_CONNECTIONS
    assert len(await store.live()) == 40
    await store.close()
