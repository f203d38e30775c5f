"""Collects the jtis of waiting requests into one statement, which costs the database little more than one jti does."""

import asyncio
from collections import deque
from dataclasses import dataclass

from keyturn.records import UsedJti
from keyturn.store.interface import ReplayGuard, StoreReplaced, StoreUnavailable


@dataclass(frozen=True, slots=True)
class _Waiting:
    jti: UsedJti
    store_id: str
    answer: asyncio.Future[bool]


class BatchedReplayGuard:
    """Single use of assertions. Each request is answered only after its own jti is safe.

    A batch holds what waits for one store when a statement may start: at once while none runs; a further one runs beside it only when
    `eager` have gathered meanwhile. So a quiet service waits for nothing, and a busy one writes large batches. A failed
    statement fails the requests in it alone. `timeout` (seconds) bounds each request's wait.
    """

    def __init__(
        self,
        store: ReplayGuard,
        *,
        max_waiting: int = 10_000,
        max_batch: int = 500,
        max_running: int = 2,
        eager: int = 64,
        timeout: float = 5.0,
    ) -> None:
        self._store = store
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._max_running = max_running
        self._eager = eager
        self._timeout = timeout
        self._waiting: deque[_Waiting] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests whose jti is in no statement yet."""
        return len(self._waiting)

    async def use(self, jti: UsedJti, *, store_id: str) -> bool:
        """Whether the jti was new; it is used from then on. Raises StoreUnavailable when that cannot be told.

        `store_id` as in `ReplayGuard.consume`, with its StoreReplaced. A caller that is cancelled may have used its jti all the same.
        """
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if len(self._waiting) >= self._max_waiting:
            raise StoreUnavailable("too many requests wait for the store")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(_Waiting(jti, store_id, answer))
        self._schedule(loop)
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError as error:
            raise StoreUnavailable("the store did not answer in time") from error

    async def close(self) -> None:
        """Lets the running statements end, and fails the requests that are in none."""
        self._closed = True
        self._fail([waiting.answer for waiting in self._waiting], StoreUnavailable("the store is closed"))
        self._waiting.clear()
        await asyncio.gather(*self._running)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not at once: the other requests of this turn of the loop come along.
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._running) < self._max_running:
            if self._running and len(self._waiting) < self._eager:
                return
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < self._max_batch:
                # Two stores are among those that wait only while a replica changes from one to the other.
                if batch and self._waiting[0].store_id != batch[0].store_id:
                    break
                waiting = self._waiting.popleft()
                if not waiting.answer.done():  # else its request was cancelled, or waited too long
                    batch.append(waiting)
            if batch:
                task = asyncio.get_running_loop().create_task(self._flush(batch))
                self._running.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _flush(self, batch: list[_Waiting]) -> None:
        answers = [waiting.answer for waiting in batch]
        try:
            async with asyncio.timeout(self._timeout):
                fresh = await self._store.consume([waiting.jti for waiting in batch], store_id=batch[0].store_id)
            for answer, new in zip(answers, fresh, strict=True):
                if not answer.done():
                    answer.set_result(new)
        except TimeoutError:
            self._fail(answers, StoreUnavailable("the store did not answer in time"))
        except asyncio.CancelledError:
            self._fail(answers, StoreUnavailable("the statement was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the requests must have an answer
            self._fail(answers, error)

    @staticmethod
    def _fail(answers: list[asyncio.Future[bool]], error: Exception) -> None:
        for answer in answers:
            if not answer.done():
                # An exception of its own each: one that is raised in several tasks gathers all their tracebacks.
                kind = StoreReplaced if isinstance(error, StoreReplaced) else StoreUnavailable
                own = kind(str(error))
                own.__cause__ = error
                answer.set_exception(own)
