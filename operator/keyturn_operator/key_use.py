"""When a client's keys and secrets were used last, as the status shows it: coarse, and told in words where an old one is not needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from keyturn.clients.state import ClientKey, SecretHash
from keyturn.records import Activity
from keyturn.timestamps import InvalidTimestamp, format_rfc3339, parse_rfc3339

ACTIVITY_STEP: Final = 3600.0
"""Seconds by which what the status says of uses moves at least: coarse, since each step is a write to the Kubernetes API."""

Held = ClientKey | SecretHash


@dataclass(frozen=True, slots=True)
class Uses:
    """The last use of the client, and of each key (by kid) and secret (by id), in seconds since the epoch."""

    client: float | None = None
    by_id: Mapping[str, float] | None = None

    @classmethod
    def of(cls, recorded: Sequence[Activity]) -> "Uses":
        """From what the store has recorded for one client."""
        return cls(
            max((one.used_at for one in recorded), default=None), {one.kid: one.used_at for one in recorded if one.kid}
        )

    def last(self, name: str) -> float | None:
        """The last use of one key or secret."""
        return (self.by_id or {}).get(name)


def id_of(one: Held) -> str:
    """What a use of this key or secret is recorded under."""
    return one.kid if isinstance(one, ClientKey) else one.id


def in_use_instead(one: Held, others: Sequence[Held], uses: Uses) -> Held | None:
    """A newer one that is in use while this one was not used since that came; None when there is none, or nobody can say."""
    if one.added_at is None:
        return None
    used = uses.last(id_of(one))
    for other in others:
        if other.added_at is None or other.added_at <= one.added_at:
            continue
        taken_up = uses.last(id_of(other))
        if taken_up is not None and taken_up >= other.added_at and (used is None or used < other.added_at):
            return other
    return None


def hint(one: Held, others: Sequence[Held], uses: Uses) -> str | None:
    """For people: that this one may go."""
    newer = in_use_instead(one, others, uses)
    if newer is None or newer.added_at is None:
        return None
    return f"safe to remove: not used since a newer one came ({format_rfc3339(newer.added_at)}), which is in use"


def shown_uses(status: Mapping[str, Any], uses: Uses, *, moved: bool) -> Uses:
    """What the status is to say: what stands there, unless `moved` (it is written anyway), or the newest use is an hour later.

    So uses alone write a client's status once an hour at most.
    """
    present = _present(status)
    newest = max((time for time in (uses.client, *(uses.by_id or {}).values()) if time is not None), default=None)
    shown = max((time for time in (present.client, *(present.by_id or {}).values()) if time is not None), default=None)
    if newest is None:
        return present
    if moved or shown is None or newest >= shown + ACTIVITY_STEP:
        return _later(present, uses)
    return present


def _present(status: Mapping[str, Any]) -> Uses:
    by_id: dict[str, float] = {}
    for field, name in (("keys", "kid"), ("secrets", "id")):
        entries = status.get(field)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, Mapping) and (used := _time(entry.get("lastUsedAt"))) is not None:
                by_id[str(entry.get(name))] = used
    return Uses(_time(status.get("lastTokenIssuedAt")), by_id)


def _later(one: Uses, other: Uses) -> Uses:
    """A store that was lost knows nothing of earlier uses: what stands in the status still holds."""
    by_id = dict(one.by_id or {})
    for name, time in (other.by_id or {}).items():
        by_id[name] = max(time, by_id.get(name, time))
    clients = [time for time in (one.client, other.client) if time is not None]
    return Uses(max(clients, default=None), by_id)


def _time(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        return parse_rfc3339(value)
    except InvalidTimestamp:
        return None
