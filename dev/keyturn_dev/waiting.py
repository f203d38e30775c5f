"""Bounded waiting that says what it waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError

if TYPE_CHECKING:
    from collections.abc import Callable


class TimedOut(DevError):
    """A bounded wait ended without its condition."""


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float, interval: float = 0.05) -> None:
    """Return when `condition()` holds, asked every `interval` seconds; raise `TimedOut` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise TimedOut(f"waited {seconds:g} s in vain for {what}")
        time.sleep(interval)
