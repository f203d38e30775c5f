"""Who acts: a Lease of our own, held by one process at a time.

kopf knows no Lease, and the elector of the `kubernetes` package neither survives a broken connection nor stops its leader. The decision
is a pure function; times are of the monotonic clock, since a wall clock that is set back would make two leaders.
"""

import asyncio
import datetime
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from keyturn_operator.kube.client import Kube, Object, collection
from keyturn_operator.kube.errors import Conflict, KubeError, KubeUnavailable
from keyturn_operator.logs import get_logger

log = get_logger("election")

EXIT_LEASE_LOST = 75


class Step(Enum):
    """What to do about the Lease now."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class LeaseView:
    """What a Lease says, as far as it counts."""

    holder: str
    duration: float
    transitions: int
    acquired: str | None
    resource_version: str

    @classmethod
    def read(cls, lease: Object) -> "LeaseView":
        """The view of a Lease as the API server gives it."""
        spec = lease.get("spec") or {}
        return cls(
            holder=spec.get("holderIdentity") or "",
            duration=float(spec.get("leaseDurationSeconds") or 0),
            transitions=int(spec.get("leaseTransitions") or 0),
            acquired=spec.get("acquireTime"),
            resource_version=str((lease.get("metadata") or {}).get("resourceVersion") or ""),
        )


@dataclass(frozen=True, slots=True)
class Sighting:
    """A version of the Lease and when this process saw it first: the only time that may be held against its duration."""

    view: LeaseView
    since: float


def sight(previous: Sighting | None, view: LeaseView, now: float) -> Sighting:
    """Keeps the first sighting while the Lease does not change."""
    if previous is not None and previous.view.resource_version == view.resource_version:
        return previous
    return Sighting(view, now)


def decide(sighting: Sighting | None, identity: str, now: float) -> Step:
    """Create what is absent, renew what is ours, take what is released or has not been renewed for its duration, else wait."""
    if sighting is None:
        return Step.CREATE
    view = sighting.view
    if view.holder == identity:
        return Step.RENEW
    if not view.holder or now >= sighting.since + view.duration:
        return Step.TAKE
    return Step.WAIT


def lease_spec(
    view: LeaseView | None, step: Step, identity: str, duration: float, wall: datetime.datetime
) -> dict[str, Any]:
    """The spec to write: a change of holder counts as a transition and has a new acquireTime."""
    stamp = wall.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    acquired = stamp
    transitions = 0
    if view is not None:
        acquired = (view.acquired or stamp) if step is Step.RENEW else stamp
        transitions = view.transitions + (step is Step.TAKE)
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": max(1, round(duration)),
        "acquireTime": acquired,
        "renewTime": stamp,
        "leaseTransitions": transitions,
    }


def new_identity() -> str:
    """Unique to this process: a restarted container has the host name of the one before."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:12]}"


class Elector:
    """Takes, renews and releases one Lease. While it is held, a thread ends the process as soon as the renew deadline has passed."""

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: float,
        deadline: float,
        period: float,
        clock: Callable[[], float] = time.monotonic,
        die: Callable[[int], Any] = os._exit,
    ) -> None:
        self._kube = kube
        self._collection = collection("coordination.k8s.io/v1", "leases", namespace)
        self._metadata = {"name": name, "namespace": namespace}
        self.identity = identity
        self._duration = duration
        self._deadline = deadline
        self._period = period
        self._clock = clock
        self._die = die
        self._sighting: Sighting | None = None
        self._renewed = 0.0
        self._held = threading.Event()
        self._released = threading.Event()

    async def acquire(self) -> None:
        """Returns when the Lease is ours. An unreachable API server only delays it."""
        waiting_for: str | None = None
        while True:
            if await self._attempt():
                self._held.set()
                threading.Thread(target=self._watchdog, name="lease-watchdog", daemon=True).start()
                log.info("the Lease is held: this process acts", identity=self.identity)
                return
            holder = self._sighting.view.holder if self._sighting else ""
            if holder != waiting_for:
                waiting_for = holder
                log.info("standing by: another process holds the Lease", holder=holder or None)
            await asyncio.sleep(self._period * random.uniform(0.8, 1.2))  # noqa: S311

    async def renew(self) -> None:
        """Renews until cancelled; returns as soon as the Lease is another's."""
        while True:
            await asyncio.sleep(self._period)
            if not await self._attempt() and self._sighting is not None and self._sighting.view.holder != self.identity:
                log.error("the Lease is another process's now", holder=self._sighting.view.holder or None)
                return

    async def release(self) -> None:
        """Gives the Lease up, so that the next process need not wait for its end. Best effort, within the retry period."""
        self._released.set()
        if not self._held.is_set() or self._sighting is None or self._sighting.view.holder != self.identity:
            return
        self._held.clear()
        view = self._sighting.view
        wall = datetime.datetime.now(datetime.UTC)
        spec = lease_spec(view, Step.RENEW, "", 1, wall)
        try:
            async with asyncio.timeout(self._period):
                await self._kube.replace(self._path, self._body(spec, view))
        except (KubeError, KubeUnavailable, TimeoutError) as error:
            log.warning("the Lease could not be released; it ends by itself", cause=str(error))

    @property
    def _path(self) -> str:
        return f"{self._collection}/{self._metadata['name']}"

    def _body(self, spec: dict[str, Any], view: LeaseView | None) -> Object:
        metadata: dict[str, Any] = dict(self._metadata)
        if view is not None:
            metadata["resourceVersion"] = view.resource_version
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    async def _attempt(self) -> bool:
        """One look and at most one write, guarded by the resourceVersion that was read; whether the Lease is ours then."""
        # The new duration runs from before the write: it may take effect long before the answer is here.
        started = self._clock()
        try:
            async with asyncio.timeout(max(1.0, self._deadline / 2)):
                found = await self._kube.get(self._path)
                self._sighting = None if found is None else sight(self._sighting, LeaseView.read(found), self._clock())
                step = decide(self._sighting, self.identity, self._clock())
                if step is Step.WAIT:
                    return False
                view = self._sighting.view if self._sighting else None
                spec = lease_spec(view, step, self.identity, self._duration, datetime.datetime.now(datetime.UTC))
                if step is Step.CREATE:
                    written = await self._kube.create(self._collection, self._body(spec, None))
                else:
                    written = await self._kube.replace(self._path, self._body(spec, view))
        except Conflict:
            return False
        except (KubeError, KubeUnavailable, TimeoutError) as error:
            log.warning("the Lease could not be read or written", cause=str(error) or type(error).__name__)
            return False
        self._sighting = Sighting(LeaseView.read(written), self._clock())
        self._renewed = started
        return True

    def _watchdog(self) -> None:
        # A thread of its own: an event loop that hangs would not notice that its time is over.
        while not self._released.wait(self._period / 4):
            if self._clock() - self._renewed > self._deadline:
                log.error("the Lease could not be renewed in time; the process ends")
                self._die(EXIT_LEASE_LOST)
                return
