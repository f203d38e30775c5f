"""What replicas tell of themselves and of the clients' uses; none of it takes a revision."""

import asyncio

from keyturn.records import Activity, Replica
from keyturn.store.interface import Store

from .samples import NOW


async def test_the_last_heartbeat_of_each_replica_counts(store: Store, other: Store) -> None:
    await store.heartbeat(Replica("b", 1, (), NOW))
    await store.heartbeat(Replica("a", 2**40, ("k1", "k2"), NOW + 0.5, "1.2.3"))
    await other.heartbeat(Replica("b", 3, ("k1",), NOW + 1, "1.2.4"))
    assert await store.replicas(seen_since=NOW) == [
        Replica("a", 2**40, ("k1", "k2"), NOW + 0.5, "1.2.3"),
        Replica("b", 3, ("k1",), NOW + 1, "1.2.4"),
    ]
    assert [r.id for r in await store.replicas(seen_since=NOW + 1)] == ["b"]
    assert (await store.changes(None)).position.revision == 0


async def test_a_replica_that_ends_is_forgotten(store: Store) -> None:
    await store.heartbeat(Replica("a", 1, (), NOW))
    await store.forget_replica("a")
    await store.forget_replica("a")
    assert await store.replicas(seen_since=0) == []


async def test_the_latest_use_of_each_key_counts_in_whatever_order_they_come(store: Store, other: Store) -> None:
    await store.record_activity([Activity("c", "k1", NOW + 5), Activity("c", "k1", NOW), Activity("d", "", NOW)])
    await other.record_activity([Activity("c", "k1", NOW + 3), Activity("c", "k2", NOW + 1)])
    await store.record_activity([])
    assert await store.activity("c") == [Activity("c", "k1", NOW + 5), Activity("c", "k2", NOW + 1)]
    assert await store.activity("none") == []
    assert await store.active_since(NOW + 1) == ["c"]
    assert await store.active_since(NOW) == ["c", "d"]
    assert (await store.changes(None)).position.revision == 0


async def test_uses_recorded_by_two_replicas_at_once_do_not_block_one_another(store: Store, other: Store) -> None:
    uses = [Activity(f"c{i}", "k", NOW + i) for i in range(100)]
    turns = [s.record_activity(list(reversed(uses)) if i % 2 else uses) for i, s in enumerate((store, other) * 5)]
    await asyncio.gather(*turns)
    assert len(await store.active_since(NOW)) == 100


async def test_a_key_id_that_no_database_can_hold_spoils_no_other_use(store: Store) -> None:
    await store.record_activity(
        [Activity("c", "nul\0", NOW), Activity("c", "lone\ud800", NOW), Activity("c", "k", NOW)]
    )
    assert "k" in [use.kid for use in await store.activity("c")]
    assert len(await store.activity("c")) == 3
