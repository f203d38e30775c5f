"""Clients that were used lately are looked at again, once for each use that was recorded."""

from keyturn.records import Activity
from keyturn.store.memory import MemoryStore
from keyturn_operator.activity import OVERLAP, ActivityWatch
from tests.unit.operator.fakes import NOW


async def test_a_use_is_told_of_once_it_is_recorded() -> None:
    store = MemoryStore()
    await store.open()
    now = [NOW]
    used: list[str] = []
    watch = ActivityWatch(store, used.append, interval=15.0, now=lambda: now[0])
    await store.record_activity([Activity("shop.old", "k", NOW - 1000), Activity("shop.a", "k", NOW + 3)])
    now[0] = NOW + 10
    await watch.look()
    assert used == ["shop.a"]
    # The API writes uses some seconds after them.
    await store.record_activity([Activity("shop.late", "k", NOW + 11 - OVERLAP)])
    now[0] = NOW + 15
    await watch.look()
    assert used == ["shop.a", "shop.late"]
    await store.record_activity([Activity("shop.a", "other", NOW + 14)])
    await watch.look()
    assert used == ["shop.a", "shop.late", "shop.a"]
    now[0] = NOW + 60
    await watch.look()
    await watch.look()
    assert used == ["shop.a", "shop.late", "shop.a"]
