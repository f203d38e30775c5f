"""Counts wrong client secrets, so that guessing them ends soon."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from keyturn_api.addresses import counted

_WINDOW = 60.0
_MAX_COUNTERS = 50_000


class GuessLimiter:
    """At most `limit` failures in a minute from an address, and for a client from an address. Each worker process counts for itself.

    An attempt counts as a failure from its start, so that a hundred at once are no way round; a success takes it back.
    """

    def __init__(self, limit: int, exempt: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._limit = limit
        self._exempt = tuple(exempt)
        self._window = 0.0
        self._counts: dict[tuple[str, str], int] = {}

    def begin(self, client_id: str, address: str, now: float) -> float | None:
        """Counts an attempt; the seconds to wait instead where there were too many."""
        if not self._limit or is_exempt(address, self._exempt):
            return None
        if not 0 <= now - self._window < _WINDOW or len(self._counts) > _MAX_COUNTERS:
            self._window, self._counts = now, {}
        keys = _keys(client_id, address)
        if any(self._counts.get(key, 0) >= self._limit for key in keys):
            return max(1.0, self._window + _WINDOW - now)
        for key in keys:
            self._counts[key] = self._counts.get(key, 0) + 1
        return None

    def succeeded(self, client_id: str, address: str) -> None:
        """Takes the attempt back."""
        for key in _keys(client_id, address):
            count = self._counts.get(key, 0)
            if count > 1:
                self._counts[key] = count - 1
            else:
                self._counts.pop(key, None)


def _keys(client_id: str, address: str) -> tuple[tuple[str, str], tuple[str, str]]:
    place = counted(address)
    return (place, ""), (place, client_id)


def is_exempt(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether the installation excepts this address from limits."""
    if not networks:
        return False
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
