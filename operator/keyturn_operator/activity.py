"""Which clients were used lately: their status is looked at again. The API records uses coarsely, so this is little."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from keyturn.store.interface import RecordWriter, StoreError
from keyturn_operator.logs import get_logger

if TYPE_CHECKING:
    from keyturn.records import Activity

log = get_logger("activity")

ACTIVITY_INTERVAL = 5.0
OVERLAP = 10.0
"""Seconds by which each look reaches back before the last one: the API writes uses some seconds after them."""


class ActivityWatch:
    """Asks the store at intervals (seconds) and tells `used` of each client with a use since."""

    def __init__(
        self,
        store: RecordWriter,
        used: Callable[[str], None],
        *,
        interval: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._used = used
        self._interval = interval
        self._now = now
        # What was used before is found when the objects are reconciled at the start.
        self._since = now() - OVERLAP
        self._told: dict[str, list[Activity]] = {}

    async def run(self) -> None:
        """Looks until cancelled; an unavailable store only delays it."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.debug("uses cannot be read", cause=type(error).__name__)
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Once. Each use is told of once, although the looks overlap."""
        now = self._now()
        seen: dict[str, list[Activity]] = {}
        for client_id in await self._store.active_since(self._since):
            seen[client_id] = await self._store.activity(client_id)
            if seen[client_id] != self._told.get(client_id):
                self._used(client_id)
        self._told = seen
        self._since = now - OVERLAP
