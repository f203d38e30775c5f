"""The store as the reconcilers write it: under this process's epoch, with a memory of what was written."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from keyturn.records import Kind, LastState, Record, StoredRecord
from keyturn.store.interface import RecordWriter, Taken, Written
from keyturn_operator.queue import Key


def digest(record: Record) -> bytes:
    """Equal for records that are equal as JSON, whatever the order of their members."""
    parts = [record.uid, record.generation, record.created_at, record.client_id, record.body]
    return hashlib.blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def key_of(record: Record) -> Key:
    """The object that the record stands for."""
    return Key(record.kind, record.namespace, record.name)


@dataclass(frozen=True, slots=True)
class Known:
    """The row of an object as this process knows it: `digest` is None for one that it found and has not reconciled."""

    uid: str
    revision: int
    digest: bytes | None


def drifted(before: StoredRecord | None, known: Known | None, wanted: Record) -> list[str]:
    """Which members of a row were changed behind our back: it is not as this process wrote it last. Names, never values.

    Nothing is said of rows that another process wrote: those may differ for good reasons.
    """
    if known is None or known.uid != wanted.uid or known.digest is None:
        return []
    if before is None:
        return ["the whole row"]
    if digest(before.record) == known.digest:
        return []
    names = {
        name for name in {*before.record.body, *wanted.body} if before.record.body.get(name) != wanted.body.get(name)
    }
    if before.record.client_id != wanted.client_id:
        names.add("clientId")
    return sorted(names) or ["the row's metadata"]


class Rows:
    """Writes rows and remembers, for each object, the uid of its row and what it last wrote."""

    def __init__(self, store: RecordWriter, epoch: int) -> None:
        self._store = store
        self._epoch = epoch
        self._known: dict[Key, Known] = {}

    @property
    def epoch(self) -> int:
        """The epoch under which this process writes."""
        return self._epoch

    def known(self, key: Key) -> Known | None:
        """What is known of the object's row."""
        return self._known.get(key)

    def keys(self) -> list[Key]:
        """The objects that have a row."""
        return list(self._known)

    def found(self, rows: list[StoredRecord]) -> None:
        """Takes note of rows that were in the store already, so that a deletion finds them by name."""
        for row in rows:
            self._known.setdefault(key_of(row.record), Known(row.record.uid, row.revision, None))

    async def get(self, key: Key, uid: str) -> StoredRecord | None:
        """The object's live row."""
        return await self._store.get(key.kind, uid)

    async def last_states(self, kind: Kind) -> list[LastState]:
        """What was in force last under each name, also of objects that are gone."""
        return await self._store.last_states(kind)

    async def put(self, record: Record, before: StoredRecord | None = None) -> Written | Taken:
        """Writes the row unless it is there, equal already: when `before`, the live row as read, shows that, nothing is asked for."""
        if before is not None and digest(before.record) == digest(record):
            self._known[key_of(record)] = Known(record.uid, before.revision, digest(record))
            return Written(before.revision, changed=False)
        outcome = await self._store.put(record, epoch=self._epoch)
        if isinstance(outcome, Taken):
            self._known.pop(key_of(record), None)
            return outcome
        self._known[key_of(record)] = Known(record.uid, outcome.revision, digest(record))
        if outcome.displaced is not None:
            self._known.pop(key_of(outcome.displaced), None)
        return outcome

    async def remove(self, key: Key, uid: str) -> int | None:
        """Turns the row of exactly this object into a tombstone."""
        revision = await self._store.remove(key.kind, uid, epoch=self._epoch)
        known = self._known.get(key)
        if known is not None and known.uid == uid:
            del self._known[key]
        return revision


def record_of(
    key: Key, obj: Mapping[str, Any], created_at: float, body: Mapping[str, Any], client_id: str | None = None
) -> Record:
    """The record for an object as read from the API server."""
    metadata = obj["metadata"]
    return Record(
        kind=Kind(key.kind),
        uid=metadata["uid"],
        namespace=key.namespace,
        name=key.name,
        generation=int(metadata.get("generation") or 0),
        created_at=created_at,
        body=body,
        client_id=client_id,
    )
