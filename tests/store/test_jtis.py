"""Single use of assertions."""

import asyncio
import hashlib

from keyturn.records import UsedJti
from keyturn.store.interface import Store

from .conftest import Backend
from .samples import NOW


def jti(name: str) -> UsedJti:
    return UsedJti(hashlib.sha256(name.encode()).digest(), NOW)


async def test_a_jti_is_new_once(store: Store, other: Store) -> None:
    assert await store.consume([jti("a")]) == [True]
    assert await store.consume([jti("a")]) == [False]
    assert await other.consume([jti("b"), jti("a")]) == [True, False]
    assert await store.consume([]) == []


async def test_of_two_equal_jtis_in_one_batch_the_first_is_new(store: Store) -> None:
    await store.consume([jti("z")])
    batch = [jti("b"), jti("z"), jti("a"), jti("b"), jti("a")]
    assert await store.consume(batch) == [True, False, True, False, False]


async def test_two_stores_that_consume_the_same_jtis_at_once_share_them(store: Store, other: Store) -> None:
    names = [f"j{i}" for i in range(40)]
    for turn in range(5):
        forth = [jti(f"{turn}{name}") for name in names]
        back = list(reversed(forth))
        one, two, three = await asyncio.gather(store.consume(forth), other.consume(back), store.consume(back))
        for a, b, c in zip(one, reversed(two), reversed(three), strict=True):
            assert [a, b, c].count(True) == 1


async def test_a_jti_takes_no_revision(store: Store) -> None:
    await store.consume([jti("a")])
    assert (await store.changes(None)).position.revision == 0


async def test_a_used_jti_outlives_the_process(durable: Backend) -> None:
    first = durable.connect()
    await first.consume([jti("a")])
    await first.close()
    second = durable.connect()
    assert await second.consume([jti("a")]) == [False]
    await second.close()
