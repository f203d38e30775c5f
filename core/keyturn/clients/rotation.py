"""When a generated credential is made, what it replaces, and until when that counts: decisions only, with the clock passed in.

Two things know what was made: the record in the Secret, written with the private half, and the client's row, which readers act on. The
record with the higher serial is the newer. So whatever is lost, restored or interrupted, the rules are:

- something new is made only where there is nothing (or nothing whole, or an older copy), where the schedule says so, or where somebody
  asks;
- readers accept a new one before anybody is given it (`announced`), and what it replaces until the overlap ends;
- an end never moves away, and what has ended never counts again.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from keyturn.clients.credentials import Credential, SecretRecord
from keyturn.clients.sources import GenerateSpec

MAX_PREVIOUS: Final = 16
"""Replaced ones that may count at a time; a further rotation waits until one ends, for none of them is cut short of its promise."""
MAX_ORPHANS: Final = 4
GRACE: Final = 60.0
"""Seconds for which an announced one is still accepted, at least, that is not in the Secret: the write that hands it out may be on its
way.
"""
JITTER: Final = 0.1


class Cause(StrEnum):
    """Why a new one is made."""

    FIRST = "First"
    LOST = "Lost"
    RESTORED = "Restored"
    SCHEDULED = "Scheduled"
    ASKED = "Asked"


@dataclass(frozen=True, slots=True)
class Known:
    """What the client's row knows: the serial (None: there is no row, or nothing was made yet) and what is accepted."""

    serial: int | None
    credentials: tuple[Credential, ...] = ()


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What is in force without anything new, and whether something new is to be made.

    `record`: what the Secret's record should say (None: it has none to go on from). `due`: when time alone changes the plan. `postponed`: a
    rotation is due and waits because too many replaced ones still count.
    """

    accepted: tuple[Credential, ...]
    record: SecretRecord | None
    make: Cause | None
    serial: int
    due: float | None
    postponed: bool = False


def rotation_due(record: SecretRecord, rotate_every: int) -> float:
    """When the schedule replaces the current one: up to a tenth earlier than `rotate_every` (seconds) after it was made.

    The share is drawn from uid and serial: the same after each restart, another for each client and each time, so that they spread.
    """
    drawn = hashlib.sha256(f"{record.uid}/{record.serial}".encode()).digest()
    share = int.from_bytes(drawn[:4]) / 2**32
    return record.current.made_at + rotate_every * (1.0 - JITTER * share)


def decide(
    wish: GenerateSpec, record: SecretRecord | None, known: Known, *, asked: str | None, now: float
) -> RotationPlan:
    """`record`: that of a Secret that holds the current one whole. `asked`: the rotate annotation's value."""
    serial = max(known.serial or 0, record.serial if record is not None else 0)
    if record is None or not _is_newest(record, known):
        accepted = _without_record(wish, known, now)
        cause = Cause.RESTORED if record is not None else Cause.LOST if known.serial else Cause.FIRST
        return RotationPlan(accepted, None, cause, serial, _next_end(accepted, now))
    of_row = {one.id: one for one in known.credentials}
    previous = []
    for one in record.previous:
        ended = _shortened(one, wish)
        if (there := of_row.get(one.id)) is not None and there.not_after is not None:
            ended = ended.ending(there.not_after)
        # A row of the same serial has had it: where it is not any more, its end was moved forward and has come.
        gone = there is None and known.serial == record.serial
        if not gone and not ended.has_ended(now):
            previous.append(ended)
    tidy = replace(record, previous=tuple(previous))
    named = {record.current.id, *(one.id for one in record.previous)}
    accepted = (record.current, *previous, *_orphans(wish, known, named, now))
    due = None if wish.rotate_every is None else rotation_due(record, wish.rotate_every)
    wanted = None
    if asked is not None and asked != record.handled:
        wanted = Cause.ASKED
    elif due is not None and now >= due:
        wanted = Cause.SCHEDULED
    full = wish.keep_previous > 0 and len(previous) >= MAX_PREVIOUS
    times = [time for time in (due, _next_end(accepted, now)) if time is not None and time > now]
    return RotationPlan(
        accepted,
        tidy,
        None if full else wanted,
        serial,
        min(times, default=None),
        postponed=full and wanted is not None,
    )


def announced(plan: RotationPlan, fresh: Credential) -> tuple[Credential, ...]:
    """What readers accept while the new one is not handed out yet."""
    return (*(one for one in plan.accepted if one.id != fresh.id), replace(fresh, announced=True))


def handed_out(
    plan: RotationPlan, fresh: Credential, wish: GenerateSpec, *, uid: str, asked: str | None, now: float
) -> SecretRecord:
    """The record that goes into the Secret with the new one: what was current until now is replaced by it."""
    replaced = [
        one if one.is_previous else replace(one, replaced_at=now).ending(now + wish.keep_previous)
        for one in plan.accepted
        if not one.announced and one.id != fresh.id
    ]
    # The longest-lived first; there are more than allowed only after losses.
    counted = sorted((one for one in replaced if not one.has_ended(now)), key=lambda one: -(one.not_after or now))
    return SecretRecord(
        uid=uid,
        kind=wish.kind,
        serial=plan.serial + 1,
        current=replace(fresh, announced=False),
        previous=tuple(counted[:MAX_PREVIOUS]),
        handled=asked,
    )


def accepted_with(record: SecretRecord, plan: RotationPlan) -> tuple[Credential, ...]:
    """What readers accept once this record is in the Secret."""
    named = {record.current.id, *(one.id for one in record.previous)}
    return (record.current, *record.previous, *(one for one in plan.accepted if one.announced and one.id not in named))


def _is_newest(record: SecretRecord, known: Known) -> bool:
    """Whether the row knows nothing that is newer than this record: a Secret restored from a backup is behind the row."""
    if known.serial is None or record.serial > known.serial:
        return True
    if record.serial < known.serial:
        return False
    current = [one.id for one in known.credentials if not one.is_previous and not one.announced]
    return not current or record.current.id in current


def _without_record(wish: GenerateSpec, known: Known, now: float) -> tuple[Credential, ...]:
    """What the row accepts, when no record is newer: the current one until its successor is handed out, the others until their end."""
    kept = [_shortened(one, wish) for one in known.credentials if not one.announced]
    return (*(one for one in kept if not one.has_ended(now)), *_orphans(wish, known, frozenset(), now))


def _shortened(one: Credential, wish: GenerateSpec) -> Credential:
    """A replaced one under the overlap as it is asked for now: it may end earlier than promised, never later."""
    return one if one.replaced_at is None else one.ending(one.replaced_at + wish.keep_previous)


def _orphans(wish: GenerateSpec, known: Known, named: Collection[str], now: float) -> list[Credential]:
    """What was announced and is not in the Secret, the newest few, and only for as long as a replaced one counts.

    Either nobody was ever given it, so that it does no harm; or it was handed out just before the operator died, and the Secret was lost or
    restored since.
    """
    left = [one for one in known.credentials if one.announced and one.id not in named]
    ending = [one.ending(now + max(GRACE, wish.keep_previous)) for one in left[-MAX_ORPHANS:]]
    return [one for one in ending if not one.has_ended(now)]


def _next_end(credentials: Iterable[Credential], now: float) -> float | None:
    return min(
        (one.not_after for one in credentials if one.not_after is not None and one.not_after > now), default=None
    )
