"""Waiting for this process's own snapshot to be in some state."""

import asyncio
from collections.abc import Callable
from contextlib import suppress


class SnapshotChanges:
    """Told of each change of the snapshot; wakes whoever waits for one."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notice(self) -> None:
        """The snapshot has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Whether `holds` came true in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not holds():
                    await self._changed.wait()
        return holds()
