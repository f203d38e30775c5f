"""Progress on standard error: one line that is rewritten on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Says what goes on and since when. `interval`: seconds between two lines where they do not go to a terminal."""

    def __init__(self, stream: TextIO | None = None, *, interval: float = 15.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._rewrites = self._stream.isatty()
        self._interval = 1.0 if self._rewrites else interval
        self._began = 0.0
        self._last = 0.0
        self._width = 0

    def say(self, text: str) -> None:
        """Write one whole line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def begin(self, text: str) -> None:
        """Start a step: from now on the elapsed seconds count."""
        self._began = self._last = time.monotonic()
        self._write(f"  {text} …")

    def update(self, text: str) -> None:
        """Say how far the step is, if it is time to."""
        now = time.monotonic()
        if now - self._last >= self._interval:
            self._last = now
            self._write(f"  {text} … {now - self._began:.0f} s")

    def end(self, text: str) -> None:
        """Finish the step."""
        self._write(f"  {text}: {time.monotonic() - self._began:.0f} s")
        if self._rewrites:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0

    def abandon(self) -> None:
        """Leave the step where it is, so that what follows begins on a line of its own."""
        if self._rewrites and self._width:
            self.say("")
            self._width = 0

    def _write(self, text: str) -> None:
        if self._rewrites:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
