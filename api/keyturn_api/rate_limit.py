"""How often somebody may do something: so many at once, and so many a minute after that."""

from typing import Final

_MAX_BUCKETS: Final = 20_000
_MINUTE: Final = 60.0


class RateLimiter:
    """A bucket of `per_minute` tokens a key, filled evenly. Each worker process counts for itself. 0: no limit.

    Bounded: with too many keys those that were seen longest ago are forgotten first, which have most likely filled up again.
    """

    def __init__(self, per_minute: int) -> None:
        self._limit = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and when that was; the latest last

    def take(self, key: str, now: float) -> float | None:
        """Takes one token; the seconds to wait for it instead where there is none."""
        if not self._limit:
            return None
        left, at = self._buckets.pop(key, (float(self._limit), now))
        left = min(float(self._limit), left + max(0.0, now - at) * self._limit / _MINUTE)
        wait = None if left >= 1 else (1 - left) * _MINUTE / self._limit
        self._buckets[key] = (left - 1 if wait is None else left, now)
        if len(self._buckets) > _MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        return wait
