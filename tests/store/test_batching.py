"""Requests that share one statement."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from keyturn.records import UsedJti
from keyturn.store.batching import BatchedReplayGuard
from keyturn.store.interface import Store, StoreReplaced, StoreUnavailable

from .samples import NOW, store_id


def jti(name: str) -> UsedJti:
    return UsedJti(name.encode(), NOW)


def use(guard: BatchedReplayGuard, used: UsedJti) -> Coroutine[Any, Any, bool]:
    return guard.use(used, store_id="one")


class Database:
    """A replay guard whose statements end when the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.store_ids: list[str] = []
        self.used: set[bytes] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.running = self.most_running = 0

    async def consume(self, jtis: Sequence[UsedJti], *, store_id: str) -> list[bool]:
        self.batches.append([used.key.decode() for used in jtis])
        self.store_ids.append(store_id)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.open.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1
        fresh = []
        for used in jtis:
            fresh.append(used.key not in self.used)
            self.used.add(used.key)
        return fresh


@pytest.fixture
def database() -> Database:
    return Database()


@pytest_asyncio.fixture
async def guard(database: Database) -> AsyncIterator[BatchedReplayGuard]:
    guard = BatchedReplayGuard(database, max_waiting=20, max_batch=8, max_running=2, eager=4, timeout=0.3)
    yield guard
    database.open.set()
    await guard.close()


async def ticks(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_requests_of_one_moment_share_a_statement(database: Database, guard: BatchedReplayGuard) -> None:
    assert await asyncio.gather(*(use(guard, jti(name)) for name in "abcab")) == [True, True, True, False, False]
    assert database.batches == [["a", "b", "c", "a", "b"]]


async def test_requests_that_come_while_a_statement_runs_share_the_next(
    database: Database, guard: BatchedReplayGuard
) -> None:
    database.open.clear()
    first = asyncio.create_task(use(guard, jti("a")))
    await ticks()
    later = [asyncio.create_task(use(guard, jti(name))) for name in "bc"]
    await ticks()
    assert database.batches == [["a"]]
    assert not first.done()
    database.open.set()
    assert await asyncio.gather(first, *later) == [True, True, True]
    assert database.batches == [["a"], ["b", "c"]]


async def test_many_that_wait_start_a_second_statement_and_never_more_than_allowed(
    database: Database, guard: BatchedReplayGuard
) -> None:
    database.open.clear()
    uses = [asyncio.create_task(use(guard, jti("a")))]
    await ticks()
    for i in range(20):
        uses.append(asyncio.create_task(use(guard, jti(str(i)))))
        await ticks(2)
    assert (len(database.batches), guard.waiting) == (2, 16)
    database.open.set()
    assert all(await asyncio.gather(*uses))
    assert database.most_running == 2
    assert max(len(batch) for batch in database.batches) == 8


async def test_beyond_its_bound_a_request_is_refused_at_once(database: Database, guard: BatchedReplayGuard) -> None:
    database.open.clear()
    uses = [asyncio.create_task(use(guard, jti(f"{i}"))) for i in range(20)]
    await asyncio.sleep(0)
    assert guard.waiting == 20
    with pytest.raises(StoreUnavailable, match="too many"):
        await use(guard, jti("more"))
    database.open.set()
    assert all(await asyncio.gather(*uses))


async def test_requests_judged_by_two_stores_share_no_statement(database: Database, guard: BatchedReplayGuard) -> None:
    pairs = [("a", "one"), ("b", "one"), ("c", "two"), ("d", "two"), ("e", "one")]
    assert all(await asyncio.gather(*(guard.use(jti(name), store_id=known) for name, known in pairs)))
    assert database.batches == [["a", "b"], ["c", "d"], ["e"]]
    assert database.store_ids == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(StoreUnavailable("gone"), StoreUnavailable, id="gone"),
        pytest.param(StoreReplaced("another"), StoreReplaced, id="replaced"),
        pytest.param(RuntimeError("a bug"), StoreUnavailable, id="a bug"),
    ],
)
async def test_a_statement_that_fails_fails_its_own_requests_only(
    database: Database, guard: BatchedReplayGuard, error: Exception, told: type[StoreUnavailable]
) -> None:
    database.open.clear()
    database.error = error
    failing = [asyncio.create_task(use(guard, jti(name))) for name in "ab"]
    await ticks()
    after = asyncio.create_task(use(guard, jti("c")))
    await ticks()
    database.open.set()
    results = await asyncio.gather(*failing, return_exceptions=True)
    database.error = None
    assert [type(result) for result in results] == [told, told]
    assert results[0] is not results[1]
    with suppress(StoreUnavailable):  # it may have been in the same moment
        await after
    assert await use(guard, jti("d")) is True


async def test_a_request_that_is_cancelled_breaks_no_other(database: Database, guard: BatchedReplayGuard) -> None:
    database.open.clear()
    running = [asyncio.create_task(use(guard, jti(name))) for name in "ab"]
    await ticks()
    waiting = [asyncio.create_task(use(guard, jti(name))) for name in "cd"]
    await ticks()
    running[0].cancel()
    waiting[0].cancel()
    await ticks()
    database.open.set()
    results = await asyncio.gather(*running, *waiting, return_exceptions=True)
    assert [result is True for result in results] == [False, True, False, True]
    assert database.batches == [["a", "b"], ["d"]]


async def test_a_statement_that_does_not_end_is_given_up(database: Database, guard: BatchedReplayGuard) -> None:
    database.open.clear()
    with pytest.raises(StoreUnavailable, match="in time"):
        await use(guard, jti("a"))
    await asyncio.sleep(0.05)
    assert database.running == 0
    database.open.set()
    assert await use(guard, jti("b")) is True


async def test_closing_ends_what_runs_and_refuses_what_waits(database: Database, guard: BatchedReplayGuard) -> None:
    database.open.clear()
    running = asyncio.create_task(use(guard, jti("a")))
    await ticks()
    waiting = asyncio.create_task(use(guard, jti("b")))
    await ticks()
    closing = asyncio.create_task(guard.close())
    await ticks()
    database.open.set()
    await closing
    assert await running is True
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting
    with pytest.raises(StoreUnavailable, match="closed"):
        await use(guard, jti("c"))


async def test_two_guards_on_one_database_let_each_jti_through_once(store: Store, other: Store) -> None:
    guards = [BatchedReplayGuard(store), BatchedReplayGuard(other)]
    names = [f"j{i}" for i in range(200)]
    known = await store_id(store)
    results = await asyncio.gather(*(guard.use(jti(name), store_id=known) for name in names for guard in guards))
    pairs = list(zip(results[::2], results[1::2], strict=True))
    assert all(sorted(pair) == [False, True] for pair in pairs)
    for guard in guards:
        await guard.close()
