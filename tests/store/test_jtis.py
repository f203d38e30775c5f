"""Single use of assertions."""

import asyncio
import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from keyturn.records import UsedJti
from keyturn.store.factory import open_store
from keyturn.store.interface import Store, StoreReplaced, StoreUnavailable
from keyturn.store.memory import MemoryStore

from .conftest import Backend
from .samples import NOW, consume, store_id
from .test_opening import execute


def jti(name: str) -> UsedJti:
    return UsedJti(hashlib.sha256(name.encode()).digest(), NOW)


async def test_a_jti_is_new_once(store: Store, other: Store) -> None:
    assert await consume(store, [jti("a")]) == [True]
    assert await consume(store, [jti("a")]) == [False]
    assert await consume(other, [jti("b"), jti("a")]) == [True, False]
    assert await consume(store, []) == []


async def test_of_two_equal_jtis_in_one_batch_the_first_is_new(store: Store) -> None:
    await consume(store, [jti("z")])
    batch = [jti("b"), jti("z"), jti("a"), jti("b"), jti("a")]
    assert await consume(store, batch) == [True, False, True, False, False]


async def test_two_stores_that_consume_the_same_jtis_at_once_share_them(store: Store, other: Store) -> None:
    names = [f"j{i}" for i in range(40)]
    for turn in range(5):
        forth = [jti(f"{turn}{name}") for name in names]
        back = list(reversed(forth))
        one, two, three = await asyncio.gather(consume(store, forth), consume(other, back), consume(store, back))
        for a, b, c in zip(one, reversed(two), reversed(three), strict=True):
            assert [a, b, c].count(True) == 1


async def test_what_was_judged_by_another_stores_state_is_refused_and_leaves_no_trace(store: Store) -> None:
    with pytest.raises(StoreReplaced):
        await store.consume([jti("a"), jti("b")], store_id="another")
    assert await consume(store, [jti("a"), jti("b")]) == [True, True]
    # Whether it was used here or not says nothing to who asks for another store.
    with pytest.raises(StoreReplaced):
        await store.consume([jti("a")], store_id="another")
    assert await consume(store, [jti("a")]) == [False]


async def lose(backend: Backend, store: Store) -> None:
    """The database comes back empty, while the store goes on."""
    if isinstance(store, MemoryStore):
        store.lose_everything()
    elif backend.url.startswith("sqlite"):
        file = Path(backend.url.removeprefix("sqlite://"))
        for part in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
            part.unlink()
    else:
        connection = await asyncpg.connect(backend.url)
        # All that a replay could be told by is gone, and another identity there: no connection breaks, nobody is told.
        await connection.execute("DELETE FROM keyturn_used_jtis; UPDATE keyturn_meta SET store_id = 'another'")
        await connection.close()


async def test_a_used_jti_is_not_new_to_the_store_that_took_its_place(backend: Backend, store: Store) -> None:
    before = await store_id(store)
    assert await store.consume([jti("a")], store_id=before) == [True]
    await lose(backend, store)
    for _ in range(2):
        with pytest.raises(StoreReplaced):
            await store.consume([jti("a")], store_id=before)
    after = await store_id(store)
    assert after != before
    assert await store.consume([jti("a")], store_id=after) == [True]


async def test_a_jti_counts_for_nothing_in_a_store_without_identity(durable: Backend) -> None:
    store = durable.connect()
    before = await store_id(store)
    await execute(durable.url, "DELETE FROM keyturn_meta")
    with pytest.raises(StoreUnavailable, match="identity"):
        await store.consume([jti("a")], store_id=before)
    # It was given one meanwhile.
    with pytest.raises(StoreReplaced):
        await store.consume([jti("a")], store_id=before)
    await store.close()


async def test_behind_a_pooler_another_store_is_told_too(postgres_schema_url: str) -> None:
    store = open_store(postgres_schema_url, prepared=False)
    with pytest.raises(StoreReplaced):
        await store.consume([jti("a")], store_id="another")
    assert await consume(store, [jti("a"), jti("a")]) == [True, False]
    await store.close()


async def test_a_jti_takes_no_revision(store: Store) -> None:
    await consume(store, [jti("a")])
    assert (await store.changes(None)).position.revision == 0


CONSUME = """
import asyncio, os, signal, sys
from keyturn.records import UsedJti
from keyturn.store.factory import open_store
async def main():
    store = open_store(sys.argv[1])
    store_id = (await store.changes(None)).position.store_id
    print(await store.consume([UsedJti(b"a", 2e9)], store_id=store_id), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_jti_that_was_answered_for_outlives_the_process_killed_at_that_moment(durable: Backend) -> None:
    command = [sys.executable, "-c", CONSUME, durable.url]
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (killed.stdout, killed.returncode) == ("[True]\n", -signal.SIGKILL)
    store = durable.connect()
    assert await consume(store, [UsedJti(b"a", NOW)]) == [False]
    await store.close()
