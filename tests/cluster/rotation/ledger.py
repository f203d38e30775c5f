"""What happened during a load: how often what went well, what failed, and what else went on around each failure."""

from __future__ import annotations

import time
from collections import Counter

# Of failures the first ones tell the most; of events there are some dozens a minute.
_MOST_FAILURES = 12
_MOST_EVENTS = 20_000
_AROUND_SECONDS = 4.0


class Ledger:
    """Times are seconds since its start."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.failed = 0
        self._failures: list[tuple[float, str]] = []
        self._events: list[tuple[float, str]] = []

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    def event(self, what: str) -> None:
        """A change of state, told with each failure near it."""
        if len(self._events) < _MOST_EVENTS:
            self._events.append((self.now, what))

    def well(self, what: str) -> None:
        self.counts[what] += 1

    def fail(self, what: str) -> None:
        self.failed += 1
        if len(self._failures) < _MOST_FAILURES:
            self._failures.append((self.now, what))

    def report(self) -> str:
        """Each failure with the events around it, then the counts."""
        lines = [f"{self.failed} failures"]
        for at, what in self._failures:
            lines.append(f"{at:8.3f} FAILED {what}")
            lines += [f"{when:8.3f}   {event}" for when, event in self._events if abs(when - at) < _AROUND_SECONDS][
                -40:
            ]
        lines.append(", ".join(f"{what}: {count}" for what, count in sorted(self.counts.items())))
        return "\n".join(lines)
