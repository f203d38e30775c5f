"""The places for clients that wait for approval: how many are taken, and how many of them by one address."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from keyturn.clients.registration import PENDING
from keyturn.clients.state import ClientState
from keyturn.snapshot import Snapshot
from keyturn_api.errors import SLOW_DOWN, ApiError
from keyturn_api.registered_objects import name_of

_RETRY: Final = 600
# Of all places one address may take a tenth, so that a single one cannot close registration for everybody.
_SHARES: Final = 10


def is_pending(state: ClientState) -> bool:
    """Whether nobody has approved this registered client yet, which is to grant it anything."""
    registration = state.registration
    return (
        registration is not None
        and registration.approval == PENDING
        and not (state.permissions or state.audiences or state.allowed_custom_claims)
    )


class PendingPlaces:
    """At most `limit` registered clients wait at a time (0: no limit). Only those that registration made count: in other namespaces
    anybody may write objects that look the same, which nothing here ever removes.

    The number comes from what all replicas know. Which address they came from only this process knows, and only of those that it made.
    """

    def __init__(self, snapshot: Snapshot, *, namespace: str, limit: int) -> None:
        self._snapshot = snapshot
        self._namespace = namespace
        self._limit = limit
        self._under_way: list[str | None] = []
        self._made_by: dict[str, str] = {}

    @contextmanager
    def one(self, address: str | None) -> Iterator[None]:
        """Holds a place while a client is being made. `address`: whose share it is of; None: nobody's. Raises `ApiError` 429."""
        self._check(address)
        self._under_way.append(address)
        try:
            yield
        finally:
            self._under_way.remove(address)

    def taken(self, client_id: str, address: str | None) -> None:
        """Remembers whose share a client is of that was just made."""
        if address is not None and self._limit:
            self._made_by[client_id] = address

    def _check(self, address: str | None) -> None:
        if not self._limit:
            return
        pending = sum(
            is_pending(client.state) and name_of(client.state.client_id, self._namespace) is not None
            for client in self._snapshot.clients.values()
        )
        if pending + len(self._under_way) >= self._limit:
            raise _full("too many registered clients wait for approval", reason="too_many_pending")
        if address is None:
            return
        self._made_by = {client_id: one for client_id, one in self._made_by.items() if self._waits(client_id)}
        held = self._under_way.count(address) + sum(one == address for one in self._made_by.values())
        if held >= max(1, self._limit // _SHARES):
            raise _full("too many clients from this address wait for approval", reason="too_many_pending_of_address")

    def _waits(self, client_id: str) -> bool:
        client = self._snapshot.client(client_id)
        return client is not None and is_pending(client.state)


def _full(description: str, *, reason: str) -> ApiError:
    return ApiError(429, SLOW_DOWN, description, reason=reason, headers=[(b"retry-after", b"%d" % _RETRY)])
