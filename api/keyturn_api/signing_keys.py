"""The private halves of the signing keys, from the mounted Secret's directory, and the signer that is made of them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from keyturn.jose.signing import TokenSigner
from keyturn.keys.ring import KeyRing, RingDamaged, load_directory
from keyturn.keys.state import KeyPhase
from keyturn.snapshot import Snapshot
from keyturn_api.logs import get_logger

_log = get_logger("keys")
_POLL: Final = 0.25
# A change that leaves no mark in the file system (a coarse clock, an odd mount) is found by reading all the same.
_READ_AT_LEAST_EVERY: Final = 30.0


class SigningKeys:
    """Follows the directory. A damaged or vanished one changes nothing: the keys read last stay, and a line is logged.

    An older one (a mount that lags, a restored backup) takes no key away that a newer one has brought.
    """

    def __init__(
        self, directory: Path, snapshot: Snapshot, *, typ: str, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._directory = directory
        self._snapshot = snapshot
        self._typ = typ
        self._ring = KeyRing()  # the latest by its serial
        self._mounted = KeyRing()  # as the directory was read last
        self._mark: object = None
        self._signer: TokenSigner | None = None
        self._signer_for: tuple[int, int] | None = None
        self._version = 0
        self._complaint = ""
        self.on_change = on_change

    @property
    def loaded_kids(self) -> tuple[str, ...]:
        """The keys whose private halves are here, sorted."""
        return tuple(sorted({*self._ring.private, *self._mounted.private}))

    def signer(self) -> TokenSigner | None:
        """Signs under the key that the store calls Active; None while this replica lacks its private half.

        When the Secret has withdrawn that key and the store has not heard of it yet, its successor signs, if it is published.
        """
        state = (self._snapshot.generation, self._version)
        if self._signer_for != state:
            kid = self._snapshot.active_kid() or self._successor()
            private = None if kid is None else self._ring.private.get(kid) or self._mounted.private.get(kid)
            self._signer = None if private is None else TokenSigner(private, typ=self._typ)
            self._signer_for = state
        return self._signer

    def _successor(self) -> str | None:
        if self._ring.serial <= self._snapshot.signing_serial:
            return None
        return next(
            (key.kid for key in self._ring.in_phase(KeyPhase.ACTIVE) if self._snapshot.publishes(key.kid)), None
        )

    async def reload(self) -> None:
        """Reads the directory, in a thread."""
        try:
            ring = await asyncio.to_thread(load_directory, self._directory)
        except RingDamaged as error:
            self._complain("signing_keys_damaged", error.description)
            return
        if ring is None:
            self._complain("signing_keys_absent", "the directory holds no key ring yet")
            return
        if ring.serial >= self._ring.serial:
            self._complaint = ""
        if ring.keys != self._mounted.keys or set(ring.private) != set(self._mounted.private):
            _log.info("signing_keys_loaded", kids=sorted(ring.private))
        self.use(ring)

    def use(self, ring: KeyRing) -> None:
        """Takes a ring; one that was written before the present one is held beside it."""
        self._snapshot.withdraw(ring.refused)
        self._mounted = ring
        if ring.serial >= self._ring.serial:
            self._ring = ring
        else:
            self._complain("signing_keys_older", "the directory holds an older key ring than the one that is loaded")
        self._version += 1
        self.on_change()

    async def run(self) -> None:
        """Reloads whenever the directory's mark changes."""
        loop = asyncio.get_running_loop()
        read_at = loop.time()
        while True:
            await asyncio.sleep(_POLL)
            mark = await self._current_mark()
            if mark != self._mark or loop.time() - read_at >= _READ_AT_LEAST_EVERY:
                self._mark = mark
                read_at = loop.time()
                await self.reload()

    async def start(self) -> None:
        """The first read, so that a process begins with what is there."""
        self._mark = await self._current_mark()
        await self.reload()

    async def _current_mark(self) -> object:
        # A few stat calls: cheaper than a thread to make them in.
        return _mark(self._directory)

    def _complain(self, event: str, cause: str) -> None:
        if self._complaint != cause:
            self._complaint = cause
            _log.warning(event, cause=cause)


def _mark(directory: Path) -> object:
    """Changes when the directory's content does: the version that `..data` names, and each file's time and size without it."""
    try:
        return str((directory / "..data").readlink())
    except OSError:
        pass
    try:
        stats = sorted((entry.name, entry.stat()) for entry in directory.iterdir())
        return tuple((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in stats)
    except OSError:
        return None
