"""What becomes of registered clients after a while: the label of those that wait, and the removal of those that waited in vain."""

import asyncio
import math
import random
import time
from collections.abc import Callable
from typing import Final

from keyturn.clients.registration import APPROVAL_LABEL, GRANTED, PENDING
from keyturn.snapshot import Client, Snapshot
from keyturn_api import audit
from keyturn_api.errors import ApiError
from keyturn_api.kubernetes import Object
from keyturn_api.logs import get_logger
from keyturn_api.pending import is_pending
from keyturn_api.registered_objects import name_of
from keyturn_api.registrar import Registrar

_log = get_logger("registration")
_LOOK_EVERY: Final = 1.0
# With nothing changed and no time over, a look now and then makes up for what went wrong.
_TIME_EVERY: Final = 30.0
_GRANTS: Final = ("permissions", "audiences", "allowedCustomClaims")
# Replicas do not agree on who acts: the first one's writes leave nothing to do for the others, which come a little later.
_SPREAD: Final = 1.0
_AFTER_FAILURE: Final = 10.0


class RegistrationUpkeep:
    """Turns `keyturn.dev/approval` from pending to granted once something is granted, so that the label lists what waits, and deletes
    what nobody has approved within `pending_ttl` seconds of its creation (0: never).

    Only objects with the label at `pending` are ever deleted, and only as they are: what is granted in the same moment keeps its object.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        registrar: Registrar,
        *,
        pending_ttl: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot = snapshot
        self._registrar = registrar
        self._ttl = pending_ttl
        self._clock = clock
        self._seen = -1
        self._again = 0.0

    async def run(self) -> None:
        """Looks until cancelled: after each change of the snapshot, and now and then."""
        while True:
            await asyncio.sleep(_LOOK_EVERY * random.uniform(0.8, 1.2))  # noqa: S311
            generation, now = self._snapshot.generation, self._clock()
            if not self._snapshot.loaded or (generation == self._seen and now < self._again):
                continue
            try:
                await self.step(spread=_SPREAD)
                self._seen, self._again = generation, min(self._next_expiry(now), now + _TIME_EVERY)
            except ApiError as error:
                _log.warning("upkeep_failed", cause=error.cause)
                await asyncio.sleep(_AFTER_FAILURE)

    async def step(self, *, spread: float = 0.0) -> None:
        """Does what is due. Raises `ApiError` when Kubernetes does not answer."""
        granted, expired = self.due()
        if (granted or expired) and spread:
            await asyncio.sleep(random.uniform(0.0, spread))  # noqa: S311
            granted, expired = self.due()
        for name, client in granted:
            change = {"metadata": {"uid": client.uid, "labels": {APPROVAL_LABEL: GRANTED}}}
            if await self._registrar.patch(name, change) is not None:
                _log.info("registration_approved", client_id=client.state.client_id)
        for name, client in expired:
            await self._remove(name, client)

    def due(self) -> tuple[list[tuple[str, Client]], list[tuple[str, Client]]]:
        """Objects whose label is out of date, and objects whose time is over."""
        now = self._clock()
        granted, expired = [], []
        for client in self._labelled_pending():
            name = name_of(client.state.client_id, self._registrar.namespace)
            if name is None:
                continue
            if not is_pending(client.state):
                granted.append((name, client))
            elif self._ttl and now >= client.state.created_at + self._ttl:
                expired.append((name, client))
        return granted, expired

    def _labelled_pending(self) -> list[Client]:
        clients = self._snapshot.clients.values()
        return [one for one in clients if one.state.registration and one.state.registration.approval == PENDING]

    def _next_expiry(self, now: float) -> float:
        """When the next one's time is over; of those that are due already something keeps them, and they are looked at now and then."""
        times = [client.state.created_at + self._ttl for client in self._labelled_pending()] if self._ttl else []
        return min((time for time in times if time > now), default=math.inf)

    async def _remove(self, name: str, client: Client) -> None:
        # What this process knows may be a second old.
        now = await self._registrar.read(name, client.uid)
        if now is None or not _still_waits(now):
            return
        version = str(now["metadata"]["resourceVersion"])
        if await self._registrar.delete(name, client.uid, resource_version=version):
            audit.record(
                "registration_expired",
                who=None,
                request_id="",
                object=f"{self._registrar.namespace}/{name}",
                uid=client.uid,
            )


def _still_waits(obj: Object) -> bool:
    labels = obj["metadata"].get("labels") or {}
    spec = obj.get("spec") or {}
    return labels.get(APPROVAL_LABEL) == PENDING and not any(spec.get(field) for field in _GRANTS)
