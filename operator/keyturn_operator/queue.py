"""The work queue: which object is reconciled next, one worker a key, failures apart from everything else.

`Schedule` decides and knows neither tasks nor clocks; `WorkQueue` runs it.
"""

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum

from keyturn.records import Kind

BACKOFF_FIRST = 1.0
BACKOFF_LAST = 300.0


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One object to reconcile."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def ref(self) -> str:
        """`namespace/name`, as messages and rule references name it."""
        return f"{self.namespace}/{self.name}"


class Priority(IntEnum):
    """Lower goes first."""

    RESTRICTION = 0
    CHANGE = 1
    RESYNC = 2


def backoff(failures: int, jitter: float) -> float:
    """Seconds to wait after so many failures in a row: doubling from 1 s to 5 min, times a jitter of 0.75 to 1.25."""
    return min(
        BACKOFF_LAST, max(BACKOFF_FIRST, min(BACKOFF_LAST, BACKOFF_FIRST * 2.0 ** min(failures - 1, 16)) * jitter)
    )


@dataclass
class _Entry:
    priority: Priority | None = None  # set: ready (or to be run again, when active)
    ticket: int = 0
    due: float | None = None
    active: bool = False
    failures: int = 0


@dataclass
class Schedule:
    """Keys that are ready, active, or due later. A key is at most once in each; its size is that of the objects in it."""

    _entries: dict[Key, _Entry] = field(default_factory=dict)
    _ready: list[tuple[int, int, Key]] = field(default_factory=list)
    _due: list[tuple[float, int, Key]] = field(default_factory=list)
    _tickets: int = 0

    def add(self, key: Key, priority: Priority = Priority.CHANGE) -> None:
        """Makes the key ready now. It cancels a backoff: no edit waits behind the retry of what it replaces."""
        entry = self._entries.setdefault(key, _Entry())
        entry.due = None
        if priority is not Priority.RESYNC:
            entry.failures = 0
        if entry.priority is None or priority < entry.priority:
            entry.priority = priority
            if not entry.active:
                self._push(key, entry)

    def add_at(self, key: Key, due: float) -> None:
        """Makes the key ready at this time, unless it is ready or due before."""
        entry = self._entries.setdefault(key, _Entry())
        if entry.priority is None and (entry.due is None or due < entry.due):
            entry.due = due
            self._push_due(key, entry)

    def pop(self, now: float) -> Key | None:
        """The next key to work on, marked active; None when nothing is ready."""
        self._ripen(now)
        while self._ready:
            _, ticket, key = heapq.heappop(self._ready)
            entry = self._entries.get(key)
            if entry is None or entry.active or entry.priority is None or entry.ticket != ticket:
                continue  # superseded
            entry.priority = None
            entry.due = None
            entry.active = True
            return key
        return None

    def done(
        self, key: Key, now: float, *, failed: bool = False, again_at: float | None = None, jitter: float = 1.0
    ) -> None:
        """The worker is through with the key. What came in meanwhile goes before a retry or a due time."""
        entry = self._entries[key]
        entry.active = False
        entry.failures = entry.failures + 1 if failed else 0
        if entry.priority is not None:
            self._push(key, entry)
            return
        times = [time for time in (entry.due, again_at) if time is not None]
        if failed:
            times.append(now + backoff(entry.failures, jitter))
        if times:
            entry.due = min(times)
            self._push_due(key, entry)
        else:
            del self._entries[key]

    def next_due(self) -> float | None:
        """When the next key becomes ready by itself."""
        while self._due:
            due, ticket, key = self._due[0]
            entry = self._entries.get(key)
            if entry is not None and entry.due == due and entry.ticket == ticket and not entry.active:
                return due
            heapq.heappop(self._due)
        return None

    @property
    def ready(self) -> int:
        """How many keys wait for a worker."""
        return sum(1 for entry in self._entries.values() if entry.priority is not None)

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        return sum(1 for entry in self._entries.values() if entry.priority is None and entry.due is not None)

    def _ripen(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, _, key = heapq.heappop(self._due)
            entry = self._entries[key]
            entry.due = None
            entry.priority = Priority.CHANGE
            self._push(key, entry)

    def _push(self, key: Key, entry: _Entry) -> None:
        assert entry.priority is not None
        self._tickets += 1
        entry.ticket = self._tickets
        heapq.heappush(self._ready, (entry.priority, entry.ticket, key))

    def _push_due(self, key: Key, entry: _Entry) -> None:
        assert entry.due is not None
        self._tickets += 1
        entry.ticket = self._tickets
        heapq.heappush(self._due, (entry.due, entry.ticket, key))


@dataclass(frozen=True, slots=True)
class Done:
    """A reconcile's outcome: `again` is in how many seconds to look anew, `failed` asks for a retry with backoff."""

    again: float | None = None
    failed: bool = False


class WorkQueue:
    """Runs `work` for each key, at most `workers` at a time and never twice for one key. `work` handles its own errors."""

    def __init__(
        self, work: Callable[[Key], Awaitable[Done]], *, workers: int = 8, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._work = work
        self._workers = workers
        self._clock = clock
        self.schedule = Schedule()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, key: Key, priority: Priority = Priority.CHANGE) -> None:
        """See `Schedule.add`."""
        self.schedule.add(key, priority)
        self._wake.set()

    def add_in(self, key: Key, delay: float) -> None:
        """Makes the key ready in so many seconds, unless it is before."""
        self.schedule.add_at(key, self._clock() + delay)
        self._wake.set()

    async def run(self) -> None:
        """Works until cancelled. Raises what `work` lets through: such an error is meant to end the process."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                while len(self._tasks) < self._workers and (key := self.schedule.pop(self._clock())) is not None:
                    task = group.create_task(self._one(key), name=f"reconcile {key}")
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                due = self.schedule.next_due() if len(self._tasks) < self._workers else None
                timeout = None if due is None else max(0.0, due - self._clock())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()

    async def _one(self, key: Key) -> None:
        done = Done(failed=True)
        try:
            done = await self._work(key)
        finally:
            now = self._clock()
            again_at = None if done.again is None else now + done.again
            jitter = random.uniform(0.75, 1.25)  # noqa: S311
            self.schedule.done(key, now, failed=done.failed, again_at=again_at, jitter=jitter)
            # Not before this task has left the set: the loop wakes after it.
            asyncio.get_running_loop().call_soon(self._wake.set)
