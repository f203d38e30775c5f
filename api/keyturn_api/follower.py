"""Keeps the snapshot up to the store, and tells the store how far this replica has come."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from keyturn import __version__
from keyturn.records import Replica, Revocation
from keyturn.snapshot import Snapshot
from keyturn.store.interface import Changes, Store, StoreUnavailable
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.signing_keys import SigningKeys

_log = get_logger("follower")
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
# A change of more records is worked out in a thread: requests go on meanwhile.
_INLINE_RECORDS: Final = 20
_LONGEST_WAIT: Final = 5.0
# Other writes (single use of assertions above all) look like changes to some engines: a busy store is not asked without end.
_QUIET: Final = 0.2


class Follower:
    """Reads the store's changes into the snapshot. With the store away it keeps what it has and tries again."""

    def __init__(
        self, store: Store, snapshot: Snapshot, metrics: Metrics, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._metrics = metrics
        self._clock = clock
        self._owed: list[Revocation] = []
        self.synchronized_at: float | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Someone has met a change that the store has not told of: look at once."""
        self._woken.set()

    async def run(self) -> None:
        """Follows the store, forever. Raises SchemaTooNew."""
        pause = _FIRST_PAUSE
        opened = hinted = False
        while True:
            try:
                if not opened:
                    await self._store.open()
                    opened = True
                changed = await self.step()
                pause = _FIRST_PAUSE
                if hinted and not changed:
                    await asyncio.sleep(_QUIET)
                hinted = await self._wait()
            except StoreUnavailable as error:
                self._metrics.store_failures.labels("changes").inc()
                _log.warning("store_unavailable", cause=str(error), retry_in=round(pause, 1))
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _wait(self) -> bool:
        changed = asyncio.ensure_future(self._store.wait(_LONGEST_WAIT))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait((changed, woken), return_when=asyncio.FIRST_COMPLETED)
            return woken.done() or changed.result()
        finally:
            self._woken.clear()
            changed.cancel()
            woken.cancel()
            await asyncio.gather(changed, woken, return_exceptions=True)

    async def step(self) -> bool:
        """Reads and applies what has changed since the last time; whether there was anything."""
        changes = await self._store.changes(self._snapshot.position)
        now = self._clock()
        self.synchronized_at = now
        self._metrics.synchronized.set(now)
        changed = changes.reset or changes.position != self._snapshot.position
        if changed:
            await self._apply(changes)
        if self._owed:
            await self._store.revoke([revocation for revocation in self._owed if revocation.expires_at > now])
            self._owed = []
        return changed

    async def _apply(self, changes: Changes) -> None:
        before = self._snapshot.position
        if changes.reset or len(changes.records) > _INLINE_RECORDS:
            prepared = await asyncio.to_thread(self._snapshot.prepare, changes)
        else:
            prepared = self._snapshot.prepare(changes)
        self._owed += self._snapshot.apply(prepared, now=self._clock())
        if before is not None and before.store_id != changes.position.store_id:
            self._metrics.store_replaced.inc()
            _log.warning("store_replaced", revocations_written_back=len(self._owed))
        elif changes.reset:
            _log.info("snapshot_loaded", revision=changes.position.revision, clients=len(self._snapshot.clients))
        self._metrics.revision.set(changes.position.revision)
        self._metrics.clients.set(len(self._snapshot.clients))
        self.on_change()


class Heartbeat:
    """Writes this replica's row: when it has changed, at most every 200 ms, and every 10 s."""

    _SOONEST: Final = 0.2
    _LATEST: Final = 10.0

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        signing_keys: SigningKeys,
        replica_id: str,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._signing_keys = signing_keys
        self._id = replica_id
        self._metrics = metrics
        self._clock = clock
        self._changed = asyncio.Event()
        self._written: tuple[int, tuple[str, ...]] | None = None

    def notice(self) -> None:
        """Something that the row holds may have changed."""
        self._changed.set()

    async def run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._LATEST):
                    await self._await_change()
            if self._snapshot.loaded:
                try:
                    await self.beat()
                except StoreUnavailable as error:
                    self._metrics.store_failures.labels("heartbeat").inc()
                    _log.debug("heartbeat_failed", cause=str(error))
                    self._changed.set()
                    await asyncio.sleep(1.0)
            await asyncio.sleep(self._SOONEST)

    async def _await_change(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._snapshot.loaded and self._current() != self._written:
                return

    async def beat(self) -> None:
        current = self._current()
        await self._store.heartbeat(Replica(self._id, current[0], current[1], self._clock(), __version__))
        self._written = current

    async def end(self) -> None:
        """Takes the row away; one that stays is forgotten by the operator in time."""
        with suppress(StoreUnavailable):
            await self._store.forget_replica(self._id)

    def _current(self) -> tuple[int, tuple[str, ...]]:
        return self._snapshot.applied_revision, self._signing_keys.loaded_kids
