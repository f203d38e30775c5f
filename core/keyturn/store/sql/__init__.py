"""The store over SQL, a module for each of its interfaces."""

from abc import abstractmethod
from collections.abc import Sequence

from keyturn.records import UsedJti
from keyturn.store.sql.activity import SqlActivity
from keyturn.store.sql.changes import SqlChanges
from keyturn.store.sql.database import Upsert, identified
from keyturn.store.sql.denials import SqlDenials
from keyturn.store.sql.pruning import SqlPruning
from keyturn.store.sql.records import SqlRecords
from keyturn.store.sql.replicas import SqlReplicas

__all__ = ["SqlStore", "Upsert", "identified"]


class SqlStore(SqlRecords, SqlPruning, SqlActivity, SqlDenials, SqlReplicas, SqlChanges):
    """All that does not depend on the engine. What is left to it: single use of assertions, and waiting for changes."""

    @abstractmethod
    async def consume(self, jtis: Sequence[UsedJti], *, store_id: str) -> list[bool]: ...

    @abstractmethod
    async def wait(self, seconds: float) -> bool: ...
