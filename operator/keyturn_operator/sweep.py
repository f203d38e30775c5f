"""The sweep: the live list held against the store. What events can miss is found here: deletions, drift, an emptied store."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from keyturn.records import Kind, Record, StoredRecord
from keyturn.store.interface import Fenced, StoreError
from keyturn_operator.context import Context, path_of
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Forbidden, KubeError, KubeUnavailable
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Key, Priority
from keyturn_operator.references import place_of
from keyturn_operator.rows import Known, digest, key_of
from keyturn_operator.scope import WHOLE_CLUSTER
from keyturn_operator.settings import API_VERSION, PLURALS

log = get_logger("sweep")

RETRY = 10.0


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a complete list shows it."""

    uid: str
    generation: int
    deleting: bool = False

    @classmethod
    def read(cls, obj: Mapping[str, Any]) -> "Listed":
        """From an object's metadata."""
        metadata = obj["metadata"]
        return cls(str(metadata["uid"]), int(metadata.get("generation") or 0), bool(metadata.get("deletionTimestamp")))


@dataclass
class Plan:
    """What a sweep does: keys to queue, rows whose object is to be read once more before they go, rows of unwatched namespaces."""

    queue: dict[Key, Priority] = field(default_factory=dict)
    suspects: list[Record] = field(default_factory=list)
    unwatched: list[Record] = field(default_factory=list)


def plan(
    rows: Iterable[StoredRecord],
    listed: Mapping[Key, Listed],
    known: Callable[[Key], Known | None],
    *,
    watched: Container[str],
    complete: bool,
    refused: Container[str] = (),
    first: bool,
) -> Plan:
    """Compares what the store held before the list with the list.

    `first`, after a takeover: every object is looked at, changed ones before the rest, since a change may restrict. Removals are
    considered after a complete list only, and not in the `refused` namespaces, which may not be listed.
    """
    result = Plan()
    rowless = dict(listed)
    for row in rows:
        record = row.record
        key = key_of(record)
        there = listed.get(key)
        if there is None or there.uid != record.uid:
            if record.namespace not in watched:
                result.unwatched.append(record)
            elif complete and record.namespace not in refused:
                result.suspects.append(record)
            continue
        rowless.pop(key, None)
        if there.deleting or there.generation != record.generation or (key.kind is Kind.SIGNING_KEY and first):
            result.queue[key] = Priority.RESTRICTION
        elif first:
            result.queue[key] = Priority.RESYNC
        else:
            mine = known(key)
            if mine is None or mine.digest != digest(record):
                result.queue[key] = Priority.CHANGE
    for key in rowless:
        # Also those that may have no row (a client id that is taken, a spec without one): to look again costs little.
        result.queue[key] = Priority.CHANGE if first else Priority.RESYNC
    return result


class DeletionSink(Protocol):
    """Who is told of a deletion."""

    def __call__(self, key: Key, uid: str) -> None:
        """The object of this uid is gone."""


class Sweeper:
    """Sweeps at start and at every interval."""

    def __init__(
        self,
        context: Context,
        *,
        deleted: DeletionSink,
        swept: Callable[[], None],
        found: Callable[[list[StoredRecord]], None],
    ) -> None:
        self._context = context
        self._deleted = deleted
        self._swept = swept
        self._found = found
        self._first = True
        self._asked = asyncio.Event()
        self.listed: set[Key] = set()
        self.refused: frozenset[str] = frozenset()
        """Namespaces of the installation's list whose rights are gone. No restart brings them back: it is told by the metrics."""

    async def run(self) -> None:
        """Sweeps until cancelled. A sweep that failed is repeated soon. Raises Fenced when another process has taken over."""
        interval = self._context.settings.sweep_interval
        while True:
            try:
                complete = await self.sweep()
            except Fenced:
                raise
            except (StoreError, KubeError, KubeUnavailable) as error:
                log.warning("the sweep has failed", cause=str(error) or type(error).__name__)
                metrics = self._context.metrics
                failed = metrics.store_failures if isinstance(error, StoreError) else metrics.kubernetes_failures
                failed.labels("sweep").inc()
                complete = False
                if isinstance(error, StoreError):
                    # A restart brings no store back: for liveness the sweep has been tried.
                    self._swept()
            if complete:
                self._first = False
                self._swept()
            if complete and not self.refused:
                self._context.metrics.last_sweep.set(time.time())
            else:
                self._context.metrics.sweep_failures.inc()
            pause = interval if complete else min(RETRY, interval)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), pause * random.uniform(0.9, 1.1))  # noqa: S311
            self._asked.clear()

    def soon(self) -> None:
        """Asks for a sweep before the interval is over: what is watched has changed."""
        self._asked.set()

    async def sweep(self) -> bool:
        """One sweep; whether everything could be listed that may be."""
        context = self._context
        # The store first: a row written after the list would look like one without an object.
        rows = await context.store.live()
        if self._first:
            context.rows.found(rows)
            self._found(rows)
        listed, complete = await self._list()
        self.listed = set(listed)
        decided = plan(
            rows,
            listed,
            context.rows.known,
            watched=context.scope,
            complete=complete,
            refused=self.refused,
            first=self._first,
        )
        for key, priority in decided.queue.items():
            context.enqueue(key, priority)
        for record in decided.suspects:
            if await self._is_gone(record):
                self._deleted(key_of(record), record.uid)
        for record in decided.unwatched:
            log.warning("the namespace is not watched any more: the object is withdrawn", object=str(key_of(record)))
            await context.withdraw(key_of(record), record.uid, "its namespace is not watched")
        await context.store.prune(now=context.now(), epoch=context.rows.epoch)
        return complete

    async def _list(self) -> tuple[dict[Key, Listed], bool]:
        listed: dict[Key, Listed] = {}
        complete = True
        refused = set()
        for kind in (Kind.SIGNING_KEY, Kind.CLIENT, Kind.ACCESS_RULE):
            for namespace in self._context.scope.places:
                path = collection(API_VERSION, PLURALS[kind], namespace)
                try:
                    objects, _ = await self._context.kube.list_metadata(path)
                    found = {Key(kind, *place_of(one)): Listed.read(one) for one in objects}
                except (KubeError, KubeUnavailable, KeyError, TypeError, ValueError) as error:
                    log.warning(
                        "a list is not complete: nothing is removed where it was asked for",
                        kind=str(kind),
                        namespace=namespace,
                        cause=str(error),
                    )
                    if isinstance(error, Forbidden) and namespace not in (WHOLE_CLUSTER, self._context.scope.home):
                        refused.add(namespace)
                    else:
                        complete = False
                    self._context.metrics.kubernetes_failures.labels("sweep").inc()
                    continue
                listed |= {key: one for key, one in found.items() if key.namespace in self._context.scope}
        self.refused = frozenset(refused)
        return listed, complete

    async def _is_gone(self, record: Record) -> bool:
        try:
            obj: Object | None = await self._context.kube.get(path_of(key_of(record)))
        except (KubeError, KubeUnavailable) as error:
            log.warning("an object cannot be read: its row stays", object=str(key_of(record)), cause=str(error))
            return False
        return obj is None or obj["metadata"]["uid"] != record.uid or bool(obj["metadata"].get("deletionTimestamp"))
