"""The changes that were shown and can be made: each once, however often its button is pressed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .proposals import NotPossible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .proposals import Proposal

MAX_KEPT: Final = 64
KEPT_SECONDS: Final = 3600.0
# A second click comes within moments; whoever goes back later is told that it was made already.
SECOND_CLICK_SECONDS: Final = 10.0
WAIT_SECONDS: Final = 60.0


@dataclass(slots=True)
class Shown:
    """One change that was shown. `made`: it was carried out."""

    proposal: Proposal
    ends: float
    made: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class Proposals:
    """The last few that were shown."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Shown] = OrderedDict()

    def keep(self, proposal: Proposal, now: float) -> None:
        with self._lock:
            known = self._kept.get(proposal.id)
            if known is not None:
                # Shown again, since its name was typed wrong.
                known.proposal = proposal
                return
            self._kept[proposal.id] = Shown(proposal, now + KEPT_SECONDS)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def get(self, identifier: str, now: float) -> Proposal:
        """Raises NotPossible for one that is not kept any more."""
        return self._find(identifier, now).proposal

    @contextmanager
    def making(self, identifier: str, now: float) -> Iterator[Shown]:
        """The change, for one caller at a time: a second click waits for the first, and sees whether that one made it.

        Whoever makes it sets `made`. Raises NotPossible for one that is not kept any more, or is in the making for a minute.
        """
        shown = self._find(identifier, now)
        if not shown.lock.acquire(timeout=WAIT_SECONDS):
            raise NotPossible("This change is still being made.", "Look at the object in a moment.")
        try:
            before = shown.made
            yield shown
            if shown.made and not before:
                shown.ends = now + SECOND_CLICK_SECONDS
        finally:
            shown.lock.release()

    def _find(self, identifier: str, now: float) -> Shown:
        with self._lock:
            shown = self._kept.get(identifier)
        if shown is None or now >= shown.ends:
            raise NotPossible("This change was made already, or shown too long ago.", "Ask for it again.")
        return shown
