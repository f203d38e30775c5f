"""What the store can do, as narrow interfaces for each kind of user.

Every method raises `StoreUnavailable` when the database cannot be reached or does not answer in time; nothing is recorded
then as far as the caller may rely on it. Writes of the operator carry its epoch and raise `Fenced` when the store has seen
a higher one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from keyturn.records import Activity, Denial, Kind, LastState, Record, Replica, Revocation, StoredRecord, UsedJti

REPLACED: Final = "the database is another store than the one that this process has read"


class StoreError(Exception):
    """Base of the store's errors."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, or did not answer in time."""


class StoreReplaced(StoreUnavailable):
    """The database is another store than the caller's state was read from. Nothing was recorded; `changes` tells what it holds."""


class Fenced(StoreError):
    """Another operator process has taken over: the writer's epoch is no longer the highest."""


class SchemaTooNew(StoreError):
    """The database was migrated by a newer program; this one must not write to it."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader has come: a revision with its random tag, and the store's birth (a lost store has another)."""

    revision: int
    tag: str
    store_id: str


@dataclass(frozen=True, slots=True)
class Written:
    """The row is in the store at `revision`; `changed` is false when it was there already, equal in all fields."""

    revision: int
    changed: bool
    displaced: Record | None = None  # a younger contender for the same client id, whose row gave way


@dataclass(frozen=True, slots=True)
class Taken:
    """Refused: a senior object (see `Record.seniority`) owns the client id; nothing was changed."""

    owner: Record


@dataclass(frozen=True, slots=True)
class Changes:
    """What came after a reader's position, in order of revision, with tombstones and revocations.

    Within one revision tombstones come first, so that who applies them in order never holds one client id twice.
    `reset`: the position was unknown to this store (lost, restored or another one): everything live is in here, and
    what is not must be dropped.
    """

    position: Position
    born_at: float
    records: tuple[StoredRecord, ...]
    revocations: tuple[Revocation, ...]
    reset: bool


class RecordWriter(Protocol):
    """For the operator: rows, one revision a change."""

    async def next_epoch(self, holder: str) -> int:
        """Atomically takes the next epoch; every write with a lower one is refused from then on.

        A write with a higher one than the store knows (it was restored, or lost) raises the store's to that.
        """

    async def put(self, record: Record, *, epoch: int) -> Written | Taken:
        """Writes the row of `record.uid` unless it is there, equal already. One transaction, one revision.

        A live row of another uid with the same client id: the senior of both keeps it (`Taken`, or `Written.displaced`,
        whose row becomes a tombstone in the same transaction). A live row of the same kind, namespace and name with
        another uid is an object that was deleted meanwhile: it becomes a tombstone too, whatever its seniority. Raises
        ValueError when the body is not plain JSON.
        """

    async def remove(self, kind: Kind, uid: str, *, epoch: int) -> int | None:
        """Turns the row of exactly this uid into a tombstone; its revision, or None when there was no live row."""

    async def live(self, kind: Kind | None = None) -> list[StoredRecord]:
        """All live rows (of one kind)."""

    async def get(self, kind: Kind, uid: str) -> StoredRecord | None:
        """The live row of one object."""

    async def owner(self, client_id: str) -> StoredRecord | None:
        """The live row that holds this client id."""

    async def last_states(self, kind: Kind) -> list[LastState]:
        """The body last written for each name, by namespace and name, whether or not an object has it still. Of the kinds in
        `retention.REMEMBERED`; of others none. Written in the transaction of `put`, and never forgotten."""

    async def prune(self, *, now: float, epoch: int) -> int:
        """Forgets what can have no effect any more: expired jtis and revocations, tombstones older than a day, replicas
        not seen for a day, uses long past. In bounded steps, so that no request waits. Returns the number of rows."""

    async def activity(self, client_id: str) -> list[Activity]:
        """The last uses recorded for this client."""

    async def active_since(self, since: float) -> list[str]:
        """Client ids with a use recorded at or after `since`."""


class ReplicaRegistry(Protocol):
    """Replicas tell what they have applied; the operator makes `Ready` of it."""

    async def heartbeat(self, replica: Replica) -> None:
        """Writes the replica's row. Takes no revision."""

    async def forget_replica(self, replica_id: str) -> None:
        """Removes the row of a replica that ends."""

    async def replicas(self, *, seen_since: float) -> list[Replica]:
        """The replicas seen at or after this time."""


class ChangeFeed(Protocol):
    """For replicas: what changed since a position."""

    async def changes(self, after: Position | None) -> Changes:
        """Everything after the position, read in one consistent snapshot; `after=None` or an unknown one: a reset."""

    async def wait(self, seconds: float) -> bool:
        """Returns when something may have changed (true) or after the engine's polling interval (see each engine), never
        later than `seconds`, and never raises for a database that is gone. A hint only: `changes` tells. For one waiter
        a store: of two one may miss what woke the other."""


class ReplayGuard(Protocol):
    """Single use of assertions, across all replicas."""

    async def consume(self, jtis: Sequence[UsedJti], *, store_id: str) -> list[bool]:
        """Records them durably, all or none; for each whether it was new. Of two equal ones in a batch the first is.

        `store_id`: the store by whose state the assertions were judged (`Position.store_id`). Another one may have lost
        what was used before: raises StoreReplaced then, decided in the transaction that would have recorded them.
        """


class RevocationLog(Protocol):
    """Revocations take a revision and so reach every replica."""

    async def revoke(self, revocations: Sequence[Revocation]) -> None:
        """Records them; those already there stay as they are."""


class ActivityLog(Protocol):
    """When clients and their keys were used last. Takes no revision."""

    async def record_activity(self, uses: Sequence[Activity]) -> None:
        """Keeps the latest of each; coarse, for people."""


class DenialLog(Protocol):
    """Why requests were not let through, for as long as somebody may ask. Takes no revision."""

    async def record_denials(self, denials: Sequence[Denial]) -> None:
        """Keeps them. One that is there already (the same id and time) stays as it is."""

    async def denials(self, request_id: str) -> list[Denial]:
        """Those with this id, the newest first; the gateway chooses ids, so there may be several. At most 20."""

    async def trim_denials(self, *, now: float) -> int:
        """Forgets those older than an hour, and the oldest beyond a bound, in bounded steps. Returns the number of rows."""


class Store(RecordWriter, ReplicaRegistry, ChangeFeed, ReplayGuard, RevocationLog, ActivityLog, DenialLog, Protocol):
    """The whole store, as each engine implements it."""

    async def open(self) -> None:
        """Connects and migrates (guarded by a lock). Raises SchemaTooNew, StoreUnavailable."""

    async def close(self) -> None:
        """Lets all connections go. Twice is once; a store may be opened again."""

    async def ping(self) -> None:
        """Raises StoreUnavailable unless the database answers."""
