"""The store behind a real PgBouncer in transaction mode: the same contract, and what only a pooler brings."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator

import asyncpg
import pytest

from keyturn.records import UsedJti
from keyturn.store.factory import open_store
from keyturn.store.interface import StoreUnavailable

from .conftest import Backend
from .pgbouncer import POOL_SIZE, PgBouncer, pgbouncer
from .samples import NOW, client, consume

# The same tests as on the engines themselves, on the pooled store: pytest collects them here with this module's `backend`.
from .test_changes import (  # noqa: F401
    test_a_change_of_the_same_object_by_two_stores_leaves_the_last,
    test_a_reader_gets_what_came_after_its_position_in_order,
    test_a_reader_without_a_position_gets_all_that_lives,
    test_a_revocation_takes_a_revision_and_reaches_the_reader,
    test_writers_at_once_get_consecutive_revisions_and_a_reader_misses_none,
)
from .test_jtis import (  # noqa: F401
    test_a_jti_is_new_once,
    test_a_used_jti_is_not_new_to_the_store_that_took_its_place,
    test_of_two_equal_jtis_in_one_batch_the_first_is_new,
    test_two_stores_that_consume_the_same_jtis_at_once_share_them,
    test_what_was_judged_by_another_stores_state_is_refused_and_leaves_no_trace,
)
from .test_records import (  # noqa: F401
    test_a_record_is_read_back_as_it_was_written,
    test_a_removed_record_is_gone_and_removing_it_again_changes_nothing,
    test_a_writer_with_a_lower_epoch_changes_nothing,
    test_an_equal_record_takes_no_revision,
    test_epochs_taken_at_once_are_all_different,
)
from .test_replicas import (  # noqa: F401
    test_the_last_heartbeat_of_each_replica_counts,
    test_uses_recorded_by_two_replicas_at_once_do_not_block_one_another,
)
from .test_waking import quiet, woken_by_put

OPEN = """
import asyncio, sys
from keyturn.store.factory import open_store
async def main():
    store = open_store(sys.argv[1], prepared=False)
    await store.open()
    print((await store.changes(None)).position.store_id)
    await store.close()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def pooler(postgres_server: str) -> Iterator[PgBouncer]:
    with pgbouncer(postgres_server) as one:
        yield one


@pytest.fixture
def pooled_url(pooler: PgBouncer, postgres_url: str) -> str:
    return pooler.url_of(postgres_url)


@pytest.fixture(params=["heard past it", "polled"])
def backend(request: pytest.FixtureRequest, pooled_url: str, postgres_url: str) -> Backend:
    """Changes are heard on a connection past the pooler, or found by asking through it."""
    listen = postgres_url if request.param == "heard past it" else None
    return Backend(pooled_url, lambda: open_store(pooled_url, listen_url=listen, prepared=False))


def test_processes_that_migrate_through_it_at_once_find_one_store(pooled_url: str) -> None:
    command = [sys.executable, "-c", OPEN, pooled_url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1


async def test_a_reader_that_listens_past_it_wakes_within_200_ms(pooled_url: str, postgres_url: str) -> None:
    writer = open_store(pooled_url, prepared=False)
    reader = open_store(pooled_url, prepared=False, listen_url=postgres_url)
    await writer.open()
    await quiet(reader)
    assert await woken_by_put(reader, writer, "a") < 0.2
    await writer.close()
    await reader.close()


async def test_a_reader_that_cannot_listen_finds_a_change_within_a_second(pooled_url: str) -> None:
    writer, reader = (open_store(pooled_url, prepared=False) for _ in range(2))
    position = (await reader.changes(None)).position
    await writer.put(client("a"), epoch=0)
    written = time.monotonic()
    found: tuple[object, ...] = ()
    while not found and time.monotonic() - written < 5:
        await reader.wait(5)
        found = (await reader.changes(position)).records
    assert time.monotonic() - written < 1
    assert len(found) == 1
    await writer.close()
    await reader.close()


async def test_many_stores_share_few_connections_of_the_server(pooled_url: str, postgres_url: str) -> None:
    stores = [open_store(pooled_url, prepared=False) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    for turn in range(3):
        await asyncio.gather(
            *(store.put(client(f"c-{number}-{turn}"), epoch=0) for number, store in enumerate(stores)),
            *(consume(store, [UsedJti(b"%d %d" % (number, turn), NOW)]) for number, store in enumerate(stores)),
            *(store.live() for store in stores),
        )
    direct = await asyncpg.connect(postgres_url)
    try:
        shared = await direct.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await direct.close()
    assert 1 <= shared <= POOL_SIZE
    assert len(await stores[0].live()) == 18
    await asyncio.gather(*(store.close() for store in stores))


async def test_nothing_that_a_transaction_sets_stays_on_a_shared_connection(pooled_url: str, postgres_url: str) -> None:
    store = open_store(pooled_url, prepared=False, statement_timeout=1.25)
    await store.put(client("a"), epoch=0)
    other = await asyncpg.connect(pooled_url, statement_cache_size=0)
    try:
        for _ in range(POOL_SIZE * 2):
            async with other.transaction():
                for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                    assert await other.fetchval(f"SHOW {limit}") == "0"
                held = await other.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
                assert held == 0
    finally:
        await other.close()
    await store.close()


async def test_a_pooler_that_is_restarted_loses_nothing_and_lets_no_jti_count_twice(
    pooler: PgBouncer, pooled_url: str, postgres_url: str
) -> None:
    store = open_store(pooled_url, prepared=False, listen_url=postgres_url, statement_timeout=2.0)
    await store.open()
    before = (await store.changes(None)).position
    done: list[str] = []
    fresh: dict[int, int] = {}
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            try:
                await store.put(client(f"w-{number}"), epoch=0)
            except StoreUnavailable:
                await asyncio.sleep(0.05)
                continue
            done.append(f"w-{number}")
            number += 1

    async def use() -> None:
        number = 0
        while not stop.is_set():
            # Each twice, as a client sends again what got no answer.
            for _ in range(2):
                try:
                    (new,) = await consume(store, [UsedJti(b"r-%d" % number, NOW)])
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
                    continue
                fresh[number] = fresh.get(number, 0) + new
            number += 1

    working = [asyncio.create_task(write()), asyncio.create_task(use())]
    await asyncio.sleep(0.5)
    count = len(done)
    await asyncio.to_thread(pooler.restart, away=0.5)
    for _ in range(300):
        if len(done) >= count + 10:
            break
        await asyncio.sleep(0.05)
    stop.set()
    await asyncio.gather(*working)
    assert count > 0
    assert len(done) >= count + 10, "it goes on by itself"
    assert {one.record.name for one in await store.live()} >= set(done)
    names = [row.record.name for row in (await store.changes(before)).records]
    assert set(names) >= set(done)
    assert fresh
    assert max(fresh.values()) == 1
    await store.close()
