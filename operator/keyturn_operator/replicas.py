"""What the API replicas say of themselves, asked for seldom, and the objects that wait for them."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from keyturn.records import Replica
from keyturn.store.interface import ReplicaRegistry, StoreError
from keyturn_operator.conditions import of_propagation
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Key, Priority

log = get_logger("replicas")

SEEN_WITHIN = 30.0
POLL = 0.25
IDLE_POLL = 5.0
FRESH = 0.1


@dataclass(frozen=True, slots=True)
class Wait:
    """What an object waits for: a revision applied everywhere, and a kid loaded."""

    revision: int
    kid: str | None = None


class Replicas:
    """Reads the replicas' rows; while objects wait it looks every 250 ms and queues those whose wait is over."""

    def __init__(
        self,
        registry: ReplicaRegistry,
        enqueue: Callable[[Key, Priority], None],
        everything: Callable[[], list[Key]],
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._enqueue = enqueue
        self._everything = everything
        self._wall = wall
        self._clock = clock
        self._cached: list[Replica] = []
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()
        self._waiting: dict[Key, Wait] = {}
        self._wake = asyncio.Event()
        self._present: frozenset[str] | None = None
        self.on_look: Callable[[int], None] = lambda _: None

    async def live(self, *, within: float = FRESH) -> list[Replica]:
        """The replicas that were seen in the last 30 s; many callers share one read. Raises StoreUnavailable."""
        async with self._lock:
            if self._clock() - self._read_at > within:
                started = self._clock()
                self._cached = await self._registry.replicas(seen_since=self._wall() - SEEN_WITHIN)
                self._read_at = started
            return self._cached

    def wait_for(self, key: Key, wait: Wait) -> None:
        """Queues the key again once every live replica has come this far."""
        self._waiting[key] = wait
        self._wake.set()

    def forget(self, key: Key) -> None:
        """The key waits for nothing any more."""
        self._waiting.pop(key, None)

    async def run(self) -> None:
        """Watches until cancelled; an unavailable store only delays it."""
        while True:
            self._wake.clear()
            try:
                self.look(await self.live(within=POLL / 2))
            except StoreError as error:
                log.debug("the replicas' rows cannot be read", cause=type(error).__name__)
            if self._waiting and self._present:
                await asyncio.sleep(POLL)
                continue
            # Nothing moves while there is no replica: a newcomer is noticed within a second.
            pause = 1.0 if self._waiting else IDLE_POLL
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def look(self, replicas: list[Replica]) -> None:
        """Queues what has been waited for, and everything once the last replica has gone: then nothing is ready."""
        present = frozenset(one.id for one in replicas)
        self.on_look(len(present))
        gone = self._present and not present
        self._present = present
        if gone:
            for key in self._everything():
                self._enqueue(key, Priority.RESYNC)
        over = [
            key
            for key, wait in self._waiting.items()
            if of_propagation(replicas, wait.revision, wait.kid).status == "True"
        ]
        for key in over:
            del self._waiting[key]
            self._enqueue(key, Priority.CHANGE)
