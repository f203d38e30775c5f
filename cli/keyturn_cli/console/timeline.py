"""A SigningKey's keys on a time line: when each was published, signed, and still counts. Pure; the clock is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..client_view import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH: Final = 1000.0
PUBLISHED: Final = "published"
ACTIVE: Final = "active"
RETIRED: Final = "retired"
COMPROMISED: Final = "compromised"
_ORDER: Final = {"Active": 0, "Next": 1, "Retired": 2, "Compromised": 3}


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of one key's life: from `x`, `width` wide, in units of WIDTH."""

    phase: str
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key with its times in epoch seconds (None: not come yet, or not known)."""

    kid: str
    state: str
    algorithm: str
    size: int | None
    imported: bool
    published_at: float | None
    activated_at: float | None
    retired_at: float | None
    remove_at: float | None
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """`now` and `next_rotation` are places on the line, in units of WIDTH; None where it is not on it."""

    keys: tuple[KeyRow, ...]
    starts: float
    ends: float
    now: float
    next_rotation: float | None


def timeline_of(obj: Mapping[str, Any], now: float) -> Timeline:
    """From a SigningKey's status; what is malformed in it is left out."""
    status = obj.get("status") or {}
    listed = [one for one in status.get("keys") or () if isinstance(one, dict)]
    rotation = moment(status.get("nextRotationAt"))
    times = [
        at
        for one in listed
        for name in ("createdAt", "publishedAt", "activatedAt", "retiredAt", "removeAt")
        if (at := moment(one.get(name))) is not None
    ]
    starts = min([*times, now])
    ends = max([*times, now, *([rotation] if rotation is not None else [])])
    # Room after the last moment, so that what goes on now is seen to go on; and never nothing.
    ends += max((ends - starts) * 0.05, 60.0)

    def place(at: float) -> float:
        return round((at - starts) / (ends - starts) * WIDTH, 1)

    def bar(phase: str, since: float, until: float) -> Bar:
        return Bar(phase, place(since), max(place(until) - place(since), 2.0))

    def row(one: Mapping[str, Any]) -> KeyRow:
        state, size = str(one.get("state", "")), one.get("size")
        published = moment(one.get("publishedAt")) or moment(one.get("createdAt"))
        activated, retired = moment(one.get("activatedAt")), moment(one.get("retiredAt"))
        remove = moment(one.get("removeAt"))
        bars: list[Bar] = []
        if state == "Compromised":
            bars.append(bar(COMPROMISED, published or activated or now, retired or now))
        else:
            if published is not None:
                until = activated or (rotation if state == "Next" and rotation is not None else now)
                bars.append(bar(PUBLISHED, published, max(published, until)))
            if activated is not None:
                until = retired or (rotation if state == "Active" and rotation is not None else now)
                bars.append(bar(ACTIVE, activated, max(activated, until)))
            if retired is not None:
                bars.append(bar(RETIRED, retired, max(retired, remove or now)))
        return KeyRow(
            kid=str(one.get("kid", "")),
            state=state,
            algorithm=str(one.get("algorithm", "")),
            size=size if isinstance(size, int) else None,
            imported=one.get("imported") is True,
            published_at=published,
            activated_at=activated,
            retired_at=retired,
            remove_at=remove,
            bars=tuple(bars),
        )

    keys = sorted((row(one) for one in listed), key=lambda key: (_ORDER.get(key.state, 9), -(key.retired_at or 0.0)))
    return Timeline(tuple(keys), starts, ends, place(now), None if rotation is None else place(rotation))
