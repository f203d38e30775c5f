"""Private keys made off the event loop: whoever asks is queued again when they are there, and waits for none."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from keyturn.jose import signing
from keyturn.jose.signing import PrivateKey
from keyturn_operator.queue import Key, Priority

Slot = TypeVar("Slot", bound=str)
"""What a key is for, among the keys of one object."""


class KeyMaker:
    """Makes private keys off the event loop, one after the other, and hands each to the reconcile that asked for it."""

    def __init__(self, enqueue: Callable[[Key, Priority], None]) -> None:
        self._enqueue = enqueue
        self._one = asyncio.Semaphore(1)
        self._made: dict[tuple[Key, str, str, int], PrivateKey] = {}
        self._making: dict[tuple[Key, str, str, int], asyncio.Task[None]] = {}
        self._failed: dict[Key, Exception] = {}

    def collect(self, key: Key, slots: Iterable[Slot], *, algorithm: str, size: int) -> dict[Slot, PrivateKey] | None:
        """A key of this algorithm and size (bits) for each slot; None while they are being made: the object is queued again then.

        Raises what has failed, once: the queue's backoff decides when it is tried again.
        """
        if (error := self._failed.pop(key, None)) is not None:
            raise error
        wanted = {slot: (key, str(slot), algorithm, size) for slot in slots}
        if all(one in self._made for one in wanted.values()):
            return {slot: self._made[one] for slot, one in wanted.items()}
        for one in wanted.values():
            if one not in self._made and one not in self._making:
                task = asyncio.get_running_loop().create_task(self._make(one), name=f"key for {key}")
                self._making[one] = task
        return None

    def forget(self, key: Key) -> None:
        """The keys were written, or are not wanted any more."""
        self._failed.pop(key, None)
        for one in [one for one in self._made if one[0] == key]:
            del self._made[one]

    async def _make(self, wanted: tuple[Key, str, str, int]) -> None:
        key, _, algorithm, size = wanted
        try:
            async with self._one:
                self._made[wanted] = await asyncio.to_thread(signing.generate, algorithm, size)
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            self._failed[key] = error
        finally:
            del self._making[wanted]
            self._enqueue(key, Priority.CHANGE)
