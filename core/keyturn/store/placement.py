"""Who keeps a client id, and whose row gives way: the decision behind `put`, the same for every engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from keyturn.records import Record
from keyturn.store.interface import Taken


@dataclass(frozen=True, slots=True)
class Placement:
    """The record may be written; these rows become tombstones in the same transaction."""

    displaced: Record | None
    superseded: tuple[Record, ...]

    @property
    def giving_way(self) -> tuple[Record, ...]:
        return self.superseded if self.displaced is None else (self.displaced, *self.superseded)


def place(record: Record, *, owner: Record | None, namesakes: Sequence[Record]) -> Placement | Taken:
    """Decides from live rows: `owner` holds the record's client id, `namesakes` its kind, namespace and name.

    In Kubernetes a name stands for one object at a time, so a namesake with another uid is gone: it contends for
    nothing.
    """
    superseded = tuple(other for other in namesakes if other.uid != record.uid)
    if owner is None or owner.uid == record.uid or any(owner.uid == other.uid for other in superseded):
        return Placement(None, superseded)
    if owner.seniority < record.seniority:
        return Taken(owner)
    return Placement(owner, superseded)
