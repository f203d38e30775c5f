"""How soon a reader hears of a change."""

import asyncio
import time

import asyncpg
import pytest

from keyturn.records import Activity, Kind, Replica, Revocation, UsedJti
from keyturn.store.factory import open_store
from keyturn.store.interface import Store
from keyturn_dev.tcp_proxy import Proxy

from .conftest import Backend
from .samples import NOW, client, consume


async def quiet(reader: Store) -> None:
    """Lets the reader come to know its database, until nothing happens any more."""
    end = time.monotonic() + 10
    while await reader.wait(0.4):
        assert time.monotonic() < end


async def seconds_until_woken(reader: Store, seconds: float = 3) -> float:
    began = time.monotonic()
    assert await reader.wait(seconds)
    return time.monotonic() - began


async def woken_by_put(reader: Store, writer: Store, name: str) -> float:
    waiting = asyncio.create_task(seconds_until_woken(reader))
    await asyncio.sleep(0.05)
    written = time.monotonic()
    await writer.put(client(name), epoch=0)
    await waiting
    return time.monotonic() - written


async def test_a_reader_wakes_within_200_ms_of_a_change(store: Store, other: Store) -> None:
    await quiet(other)
    assert await woken_by_put(other, store, "a") < 0.2
    await quiet(other)
    waiting = asyncio.create_task(seconds_until_woken(other))
    await asyncio.sleep(0.05)
    await store.revoke([Revocation("h", NOW)])
    assert await waiting < 0.3
    await quiet(other)
    waiting = asyncio.create_task(seconds_until_woken(other))
    await asyncio.sleep(0.05)
    await store.remove(Kind.CLIENT, "uid-a", epoch=0)
    assert await waiting < 0.3


async def test_a_change_between_two_waits_is_not_missed(store: Store, other: Store) -> None:
    await quiet(other)
    await store.put(client("a"), epoch=0)
    await asyncio.sleep(0.05)
    assert await seconds_until_woken(other) < 0.3


async def test_nothing_wakes_a_reader_of_a_quiet_store_before_its_time(store: Store) -> None:
    await quiet(store)
    began = time.monotonic()
    assert not await store.wait(0.3)
    assert 0.2 < time.monotonic() - began < 1


async def test_what_takes_no_revision_wakes_nobody(postgres_url: str) -> None:
    writer, reader = open_store(postgres_url), open_store(postgres_url)
    await writer.put(client("a"), epoch=0)
    await quiet(reader)
    await writer.put(client("a"), epoch=0)
    await writer.put(client("younger", client_id="shop.a", created_at=NOW + 1), epoch=0)
    await consume(writer, [UsedJti(b"k", NOW)])
    await writer.heartbeat(Replica("r", 1, (), NOW))
    await writer.record_activity([Activity("c", "k", NOW)])
    assert not await reader.wait(0.3)
    await writer.close()
    await reader.close()


async def test_a_reader_that_loses_its_connection_polls_and_listens_again_by_itself(postgres_url: str) -> None:
    async with Proxy(postgres_url) as proxy:
        writer = open_store(postgres_url)
        reader = open_store(postgres_url, listen_url=proxy.url)
        await writer.open()
        await quiet(reader)
        await proxy.cut()
        assert await seconds_until_woken(reader) < 1  # by the loss itself
        began = time.monotonic()
        assert not await reader.wait(3)
        assert time.monotonic() - began < 0.6
        await proxy.restore()
        end = time.monotonic() + 10
        while not reader._listener.connected:  # type: ignore[attr-defined]
            await reader.wait(0.1)
            assert time.monotonic() < end
        await quiet(reader)
        assert await woken_by_put(reader, writer, "a") < 0.2
        await writer.close()
        await reader.close()


async def test_behind_a_pooler_a_reader_polls_every_250_ms(postgres_url: str) -> None:
    store = open_store(postgres_url, prepared=False)
    began = time.monotonic()
    await store.wait(3)
    assert 0.2 < time.monotonic() - began < 0.5
    await store.close()


async def test_behind_a_pooler_a_reader_listens_at_an_address_of_its_own(postgres_url: str) -> None:
    writer = open_store(postgres_url)
    reader = open_store(postgres_url, prepared=False, listen_url=postgres_url)
    await writer.open()
    await quiet(reader)
    assert await woken_by_put(reader, writer, "a") < 0.2
    await writer.close()
    await reader.close()


@pytest.mark.parametrize("waited", [True, False], ids=["after waiting", "without waiting"])
async def test_a_store_that_is_closed_leaves_no_connection(postgres_url: str, waited: bool) -> None:
    store = open_store(postgres_url)
    await consume(store, [UsedJti(b"k", NOW)])
    if waited:
        await store.wait(0.2)
    await store.close()
    connection = await asyncpg.connect(postgres_url)
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keyturn' AND datname = current_database()"
    end = time.monotonic() + 5
    while await connection.fetchval(count):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    await connection.close()


async def test_a_wait_while_the_database_is_gone_ends_quietly(durable: Backend) -> None:
    url = "postgresql://u:p@127.0.0.1:1/db" if durable.url.startswith("postgresql") else "sqlite:///nowhere/at/all.db"
    store = open_store(url)
    began = time.monotonic()
    await store.wait(0.2)
    assert time.monotonic() - began < 1
    await store.close()
