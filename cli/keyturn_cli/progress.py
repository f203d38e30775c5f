"""What shows on a terminal that a command is still at work, where it takes longer than a second."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

AFTER_SECONDS: Final = 1.0

_shown = threading.Lock()


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Says on stderr after a second what is being done, and takes it away afterwards: on a terminal only, and one at a time."""
    console = Console(stderr=True)
    # Within another one that one goes on: it says what the whole is about.
    if not console.is_terminal or not _shown.acquire(blocking=False):
        yield
        return
    status = console.status(f"{what}…")
    timer = threading.Timer(AFTER_SECONDS, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
        _shown.release()
