import asyncio

import pytest

from keyturn.records import Kind
from keyturn_operator.queue import BACKOFF_LAST, Done, Key, Priority, Schedule, WorkQueue, backoff

A, B, C = (Key(Kind.CLIENT, "shop", name) for name in "abc")


def test_a_key_added_twice_is_worked_on_once() -> None:
    schedule = Schedule()
    schedule.add(A)
    schedule.add(A)
    assert schedule.pop(0.0) == A
    assert schedule.pop(0.0) is None


def test_a_key_is_never_worked_on_twice_at_once_but_again_afterwards() -> None:
    schedule = Schedule()
    schedule.add(A)
    assert schedule.pop(0.0) == A
    schedule.add(A)
    assert schedule.pop(0.0) is None
    schedule.done(A, 0.0)
    assert schedule.pop(0.0) == A


def test_restrictions_go_before_changes_and_those_before_a_resync() -> None:
    schedule = Schedule()
    schedule.add(A, Priority.RESYNC)
    schedule.add(B, Priority.CHANGE)
    schedule.add(C, Priority.RESTRICTION)
    assert [schedule.pop(0.0) for _ in range(3)] == [C, B, A]


def test_a_key_that_waits_is_raised_to_the_more_urgent_priority() -> None:
    schedule = Schedule()
    schedule.add(A, Priority.RESYNC)
    schedule.add(B, Priority.CHANGE)
    schedule.add(A, Priority.RESTRICTION)
    assert [schedule.pop(0.0) for _ in range(3)] == [A, B, None]


def test_a_failed_key_waits_for_its_backoff() -> None:
    schedule = Schedule()
    schedule.add(A)
    schedule.pop(0.0)
    schedule.done(A, 10.0, failed=True)
    assert schedule.pop(10.9) is None
    assert schedule.next_due() == 11.0
    assert schedule.pop(11.0) == A


def test_a_new_event_does_not_wait_behind_a_backoff() -> None:
    schedule = Schedule()
    schedule.add(A)
    for _ in range(8):
        schedule.pop(1e6)
        schedule.done(A, 0.0, failed=True)
    schedule.add(A)
    assert schedule.pop(0.0) == A
    schedule.done(A, 0.0, failed=True)
    assert schedule.next_due() == 1.0, "the event begins the backoff anew"


def test_a_resync_does_not_begin_the_backoff_anew() -> None:
    schedule = Schedule()
    schedule.add(A)
    schedule.pop(0.0)
    schedule.done(A, 0.0, failed=True)
    schedule.add(A, Priority.RESYNC)
    schedule.pop(0.0)
    schedule.done(A, 0.0, failed=True)
    assert schedule.next_due() == 2.0


def test_success_ends_the_backoff_and_leaves_nothing_behind() -> None:
    schedule = Schedule()
    schedule.add(A)
    schedule.pop(0.0)
    schedule.done(A, 0.0)
    assert schedule.next_due() is None
    assert (schedule.ready, schedule.delayed) == (0, 0)
    assert not schedule._entries


def test_a_due_time_makes_the_key_ready_by_itself() -> None:
    schedule = Schedule()
    schedule.add(A)
    schedule.pop(0.0)
    schedule.done(A, 0.0, again_at=50.0)
    assert schedule.pop(49.9) is None
    assert schedule.pop(50.0) == A


def test_of_two_due_times_the_earlier_one_counts() -> None:
    schedule = Schedule()
    schedule.add_at(A, 50.0)
    schedule.add_at(A, 20.0)
    schedule.add_at(A, 70.0)
    assert schedule.next_due() == 20.0
    assert schedule.pop(20.0) == A
    schedule.done(A, 20.0)
    assert schedule.pop(100.0) is None


def test_an_event_takes_the_place_of_a_due_time() -> None:
    schedule = Schedule()
    schedule.add_at(A, 50.0)
    schedule.add(A)
    assert schedule.pop(0.0) == A
    schedule.done(A, 0.0)
    assert schedule.pop(60.0) is None


@pytest.mark.parametrize(
    ("failures", "jitter", "seconds"),
    [
        pytest.param(1, 1.0, 1.0, id="the first"),
        pytest.param(1, 0.75, 1.0, id="never below a second"),
        pytest.param(4, 1.25, 10.0, id="doubling, with jitter"),
        pytest.param(60, 1.25, BACKOFF_LAST, id="never above five minutes"),
    ],
)
def test_the_backoff_doubles_between_one_second_and_five_minutes(failures: int, jitter: float, seconds: float) -> None:
    assert backoff(failures, jitter) == seconds


async def test_no_more_workers_than_allowed_run_at_once() -> None:
    running = most = 0
    keys = [Key(Kind.CLIENT, "shop", str(number)) for number in range(20)]
    left = set(keys)
    finished = asyncio.Event()

    async def work(key: Key) -> Done:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        left.discard(key)
        if not left:
            finished.set()
        return Done()

    queue = WorkQueue(work, workers=3)
    for key in keys:
        queue.add(key)
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        await finished.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert most == 3


async def test_an_event_during_the_work_is_worked_on_afterwards() -> None:
    seen = 0
    again = asyncio.Event()

    async def work(key: Key) -> Done:
        nonlocal seen
        seen += 1
        if seen == 1:
            queue.add(key)
        else:
            again.set()
        return Done(failed=seen == 1)

    queue = WorkQueue(work)
    queue.add(A)
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        await again.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == 2


async def test_a_reconcile_that_asks_for_it_comes_again() -> None:
    times = 0
    enough = asyncio.Event()

    async def work(_key: Key) -> Done:
        nonlocal times
        times += 1
        if times == 3:
            enough.set()
            return Done()
        return Done(again=0.001)

    queue = WorkQueue(work)
    queue.add(A)
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        await enough.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert times == 3


async def test_an_error_that_the_work_lets_through_ends_the_queue() -> None:
    async def work(_key: Key) -> Done:
        raise RuntimeError("another process has taken over")

    queue = WorkQueue(work)
    queue.add(A)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(queue.run(), 5)
