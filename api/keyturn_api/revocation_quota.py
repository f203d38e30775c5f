"""How many of a client's tokens may stand as revoked: every replica holds each of them in memory until the token would have ended."""

import math
from typing import Final

# Ends are counted together by so many seconds: a day of them, the longest lifetime of a token, is 144 numbers.
_SPAN: Final = 600
_SWEEP_FROM: Final = 1000


class RevocationQuota:
    """At most `limit` revocations of a client that have not ended. Each worker process counts its own. 0: no limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._clients: dict[str, dict[int, int]] = {}  # how many end within which span of time, by its number
        self._sweep_above = _SWEEP_FROM

    def take(self, client_id: str, until: float, now: float) -> float | None:
        """Counts a revocation that stands `until` then; the seconds until some have ended instead where there are too many."""
        if not self._limit:
            return None
        if client_id not in self._clients and len(self._clients) >= self._sweep_above:
            self._sweep(now)
        spans = self._clients[client_id] = _standing(self._clients.get(client_id, {}), now)
        if sum(spans.values()) >= self._limit:
            return max(1.0, min(spans) * _SPAN - now)
        end = math.ceil(until / _SPAN)
        spans[end] = spans.get(end, 0) + 1
        return None

    def give_back(self, client_id: str, until: float) -> None:
        """The revocation did not come about."""
        spans, end = self._clients.get(client_id, {}), math.ceil(until / _SPAN)
        if spans.get(end, 0) > 1:
            spans[end] -= 1
        else:
            spans.pop(end, None)

    def _sweep(self, now: float) -> None:
        left = {client_id: _standing(spans, now) for client_id, spans in self._clients.items()}
        self._clients = {client_id: spans for client_id, spans in left.items() if spans}
        self._sweep_above = max(_SWEEP_FROM, 2 * len(self._clients))


def _standing(spans: dict[int, int], now: float) -> dict[int, int]:
    return {end: count for end, count in spans.items() if end * _SPAN > now}
