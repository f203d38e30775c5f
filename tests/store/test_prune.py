"""What the store forgets, and what it must not."""

import asyncio
import time

import pytest

from keyturn.records import Activity, Kind, Replica, Revocation, UsedJti
from keyturn.store import retention
from keyturn.store.interface import Store

from .conftest import Backend
from .samples import DAY, client, consume


async def test_expired_jtis_and_revocations_are_forgotten(store: Store) -> None:
    now = time.time()
    await consume(store, [UsedJti(b"old", now - 1), UsedJti(b"young", now + 60)])
    await store.revoke([Revocation("old", now - 1), Revocation("young", now + 60)])
    assert await store.prune(now=now, epoch=0) == 2
    assert await consume(store, [UsedJti(b"old", now), UsedJti(b"young", now)]) == [True, False]
    assert [r.token_hash for r in (await store.changes(None)).revocations] == ["young"]


async def test_a_tombstone_within_its_day_still_reaches_its_readers(store: Store) -> None:
    await store.put(client("a"), epoch=0)
    position = (await store.changes(None)).position
    await store.remove(Kind.CLIENT, "uid-a", epoch=0)
    assert await store.prune(now=time.time() + DAY - 60, epoch=0) == 0
    changes = await store.changes(position)
    assert not changes.reset
    assert [row.deleted for row in changes.records] == [True]


async def test_a_reader_that_missed_a_forgotten_tombstone_resets(store: Store) -> None:
    await store.put(client("a"), epoch=0)
    await store.put(client("b"), epoch=0)
    missed = (await store.changes(None)).position
    await store.remove(Kind.CLIENT, "uid-a", epoch=0)
    followed = (await store.changes(missed)).position
    # Revisions 0 to 2 and the tombstone.
    assert await store.prune(now=time.time() + DAY + 60, epoch=0) == 4
    behind = await store.changes(missed)
    assert behind.reset
    assert [row.record.name for row in behind.records] == ["b"]
    abreast = await store.changes(followed)
    assert (abreast.reset, abreast.records) == (False, ())
    await store.put(client("c"), epoch=0)
    assert not (await store.changes(followed)).reset


async def test_live_records_are_never_forgotten(store: Store) -> None:
    await store.put(client("a"), epoch=0)
    await store.prune(now=time.time() + 1_000 * DAY, epoch=0)
    assert [row.record.name for row in await store.live()] == ["a"]


async def test_revisions_beyond_the_bound_are_forgotten_within_the_day(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MAX_TAGS", 3)
    positions = []
    for i in range(6):
        await store.put(client(f"c{i}"), epoch=0)
        positions.append((await store.changes(None)).position)
    assert await store.prune(now=time.time(), epoch=0) == 3
    assert [(await store.changes(position)).reset for position in positions] == [True, True, False, False, False, False]


async def test_replicas_not_seen_for_a_day_and_uses_long_past_are_forgotten(store: Store) -> None:
    now = time.time()
    await store.put(client("lives"), epoch=0)
    await store.heartbeat(Replica("old", 1, (), now - DAY - 1))
    await store.heartbeat(Replica("young", 1, (), now - DAY + 60))
    await store.record_activity(
        [Activity("shop.lives", "k1", now - 2 * DAY), Activity("shop.lives", "k0", now - 500 * DAY)]
    )
    await store.record_activity([Activity("shop.gone", "k", now - 2 * DAY), Activity("shop.new", "k", now)])
    assert await store.prune(now=now, epoch=0) == 3
    assert [r.id for r in await store.replicas(seen_since=0)] == ["young"]
    assert [a.kid for a in await store.activity("shop.lives")] == ["k1"]
    assert await store.activity("shop.gone") == []
    assert len(await store.activity("shop.new")) == 1


async def test_forgetting_goes_in_bounded_steps_and_holds_up_no_request(
    durable: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PRUNE_STEP", 10)
    store, other = durable.connect(), durable.connect()
    now = time.time()
    await consume(store, [UsedJti(i.to_bytes(4), now - 1) for i in range(95)])
    pruning = asyncio.create_task(store.prune(now=now, epoch=0))
    slowest = 0.0
    turn = 0
    while not pruning.done():
        began = time.monotonic()
        assert await consume(other, [UsedJti(b"new%d" % turn, now + 60)]) == [True]
        slowest = max(slowest, time.monotonic() - began)
        turn += 1
    assert await pruning == 95
    assert turn > 3
    assert slowest < 1.0
    await store.close()
    await other.close()
