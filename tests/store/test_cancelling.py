"""Requests that end before the store does: nothing half done stays, no connection is lost."""

import asyncio

from keyturn.records import UsedJti
from keyturn.store.factory import open_store

from .conftest import Backend
from .samples import NOW, client, consume


async def test_calls_that_are_cancelled_at_any_moment_leave_the_store_whole(durable: Backend) -> None:
    store = open_store(durable.url, pool_size=2)
    await consume(store, [UsedJti(b"first", NOW)])
    for i in range(30):
        calls = [
            asyncio.create_task(store.put(client(f"c{i}"), epoch=0)),
            asyncio.create_task(consume(store, [UsedJti(b"%d" % i, NOW)])),
            asyncio.create_task(store.changes(None)),
        ]
        await asyncio.sleep(i * 0.0003)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    # Whether each took effect or not is open; that every revision has its row is not.
    for i in range(30):
        await store.put(client(f"c{i}"), epoch=0)
    changes = await asyncio.gather(*(store.changes(None) for _ in range(4)))
    assert len(changes[0].records) == 30
    assert sorted(row.revision for row in changes[0].records) == list(range(1, 31))
    assert changes[0].position.revision == 30
    assert await consume(store, [UsedJti(b"new", NOW)]) == [True]
    await store.close()
