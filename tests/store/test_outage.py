"""PostgreSQL gone, silent, and back."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest
import pytest_asyncio

from keyturn.records import Activity, Denial, Kind, Replica, Revocation, UsedJti
from keyturn.store.factory import open_store
from keyturn.store.interface import Store, StoreUnavailable, Written
from keyturn_dev.tcp_proxy import Proxy

from .samples import NOW, client, consume

CALLS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "open": lambda s: s.open(),
    "ping": lambda s: s.ping(),
    "next_epoch": lambda s: s.next_epoch("x"),
    "put": lambda s: s.put(client("z"), epoch=9),
    "remove": lambda s: s.remove(Kind.CLIENT, "uid-a", epoch=9),
    "live": lambda s: s.live(),
    "get": lambda s: s.get(Kind.CLIENT, "uid-a"),
    "owner": lambda s: s.owner("shop.a"),
    "prune": lambda s: s.prune(now=NOW, epoch=9),
    "activity": lambda s: s.activity("c"),
    "active_since": lambda s: s.active_since(0),
    "heartbeat": lambda s: s.heartbeat(Replica("r", 1, (), NOW)),
    "forget_replica": lambda s: s.forget_replica("r"),
    "replicas": lambda s: s.replicas(seen_since=0),
    "changes": lambda s: s.changes(None),
    "consume": lambda s: consume(s, [UsedJti(b"k", NOW)]),
    "revoke": lambda s: s.revoke([Revocation("h", NOW)]),
    "record_denials": lambda s: s.record_denials([Denial("r", NOW, {})]),
    "denials": lambda s: s.denials("r"),
    "trim_denials": lambda s: s.trim_denials(now=NOW),
    "record_activity": lambda s: s.record_activity([Activity("c", "k", NOW)]),
}


@pytest_asyncio.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(postgres_url) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def proxied(proxy: Proxy) -> AsyncIterator[Store]:
    store = open_store(proxy.url, statement_timeout=0.5)
    await store.put(client("a"), epoch=0)
    await consume(store, [UsedJti(b"before", NOW)])
    yield store
    await store.close()


async def succeeds(call: Callable[[Store], Awaitable[object]], store: Store) -> None:
    """Calls until it does: what hung when the network came back may take a moment to be cleared away."""
    end = time.monotonic() + 10
    while True:
        try:
            await call(store)
            return
        except StoreUnavailable:
            assert time.monotonic() < end


async def test_every_call_says_that_the_server_is_gone_and_succeeds_when_it_is_back(
    proxy: Proxy, proxied: Store
) -> None:
    await proxy.cut()
    for name, call in CALLS.items():
        with pytest.raises(StoreUnavailable) as caught:
            await call(proxied)
        assert caught.value.__cause__ is not None, name
        assert "keyturn:" not in str(caught.value) + str(caught.value.__cause__)
    await proxy.restore()
    for call in CALLS.values():
        await succeeds(call, proxied)
    assert await consume(proxied, [UsedJti(b"before", NOW), UsedJti(b"k", NOW)]) == [False, False]


@pytest.mark.parametrize("name", ["ping", "put", "consume", "changes"])
async def test_a_server_that_says_nothing_is_given_up_in_bounded_time(proxy: Proxy, proxied: Store, name: str) -> None:
    proxy.silence()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await CALLS[name](proxied)
    assert time.monotonic() - began < 8
    proxy.resume()
    await succeeds(CALLS[name], proxied)


async def test_a_store_whose_server_comes_later_opens_then(proxy: Proxy) -> None:
    await proxy.cut()
    store = open_store(proxy.url, statement_timeout=0.5)
    with pytest.raises(StoreUnavailable):
        await store.open()
    assert await store.wait(0.01) in (True, False)
    await proxy.restore()
    await store.open()
    assert await store.put(client("a"), epoch=0) == Written(1, changed=True)
    await store.close()


async def test_a_restart_of_the_server_between_two_calls_is_not_noticed(proxy: Proxy, proxied: Store) -> None:
    await proxy.cut()
    await proxy.restore()
    assert await proxied.put(client("b"), epoch=0) == Written(2, changed=True)
    assert await consume(proxied, [UsedJti(b"before", NOW), UsedJti(b"after", NOW)]) == [False, True]


async def test_a_writer_that_freezes_lets_others_go_on(postgres_url: str) -> None:
    store = open_store(postgres_url, statement_timeout=0.5)
    await store.put(client("a"), epoch=0)
    async with Proxy(postgres_url) as proxy:
        frozen = open_store(proxy.url, statement_timeout=0.5)
        await frozen.open()
        # Frozen while it holds the counter: the server has seen its UPDATE and waits for the rest.
        original = frozen._bury  # type: ignore[attr-defined]

        async def freeze(*arguments: object) -> bool:
            proxy.silence()
            return bool(await original(*arguments))

        frozen._bury = freeze  # type: ignore[attr-defined]
        stuck = asyncio.create_task(frozen.remove(Kind.CLIENT, "uid-a", epoch=0))
        await asyncio.sleep(0.2)
        end = time.monotonic() + 5
        written = None
        while written is None and time.monotonic() < end:
            with suppress(StoreUnavailable):
                written = await store.put(client("b"), epoch=0)
        assert written == Written(2, changed=True)
        with pytest.raises(StoreUnavailable):
            await stuck
        proxy.resume()
        await frozen.close()
    assert len(await store.live()) == 2
    await store.close()


async def test_more_requests_than_connections_wait_for_their_turn(postgres_url: str) -> None:
    store = open_store(postgres_url, pool_size=2)
    await asyncio.gather(*(store.put(client(f"c{i}"), epoch=0) for i in range(20)))
    await asyncio.gather(*(consume(store, [UsedJti(b"%d" % i, NOW)]) for i in range(50)))
    assert len(await store.live()) == 20
    connection = await asyncpg.connect(postgres_url)
    open_now = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keyturn' AND datname = current_database()"
    )
    await connection.close()
    # Two of the pool and two for the jtis.
    assert open_now <= 4
    await store.close()


async def test_without_prepared_statements_everything_works_and_none_is_left_behind(postgres_url: str) -> None:
    store = open_store(postgres_url, prepared=False)
    await store.open()
    for call in CALLS.values():
        await call(store)
    async with store._engine.connect() as connection:  # type: ignore[attr-defined]
        left = await connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
        assert left.scalar_one() == 0
    await store.close()


async def test_what_is_set_for_a_transaction_does_not_outlive_it(postgres_url: str) -> None:
    store = open_store(postgres_url, pool_size=1, statement_timeout=3.0)
    await store.put(client("a"), epoch=0)
    async with store._engine.connect() as connection:  # type: ignore[attr-defined]
        assert (await connection.exec_driver_sql("SHOW statement_timeout")).scalar_one() == "0"
        assert (await connection.exec_driver_sql("SHOW lock_timeout")).scalar_one() == "0"
    await store.close()
