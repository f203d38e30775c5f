"""When clients and their keys were used last: for people, coarse, and never in a request's way."""

import asyncio
from typing import Final

from keyturn.clients.state import ClientState
from keyturn.records import Activity
from keyturn.store.interface import ActivityLog, StoreUnavailable
from keyturn_api.logs import get_logger

_log = get_logger("activity")
_COARSE: Final = 3600.0
_FLUSH_EVERY: Final = 5.0
_MAX_PENDING: Final = 50_000


class ActivityRecorder:
    """Collects uses and writes them in batches, for each client and key at most once an hour and process.

    And once after each change of the client: whether an old key was used since a new one came can be told to the second so.
    """

    def __init__(self, store: ActivityLog) -> None:
        self._store = store
        self._written: dict[tuple[str, str], tuple[float, ClientState]] = {}
        self._pending: dict[tuple[str, str], float] = {}

    def used(self, client: ClientState, kid: str, now: float) -> None:
        """Takes note of a use of the client's key (or secret) `kid`. `client` is its state as the snapshot holds it."""
        key = (client.client_id, kid)
        written = self._written.get(key)
        if written is not None and now - written[0] < _COARSE and written[1] is client:
            return
        if len(self._written) >= _MAX_PENDING:
            self._written.clear()
        self._written[key] = (now, client)
        self._pending[key] = now

    async def flush(self) -> None:
        """Writes what has gathered. With the store down it waits for the next time."""
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        try:
            await self._store.record_activity([Activity(client, kid, at) for (client, kid), at in pending.items()])
        except StoreUnavailable as error:
            self._pending = pending | self._pending
            _log.warning("activity_not_written", cause=str(error))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY)
            await self.flush()
