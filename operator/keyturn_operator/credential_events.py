"""What people are told of generated credentials: Events, in words that hold no value."""

from typing import Final

from keyturn import reasons
from keyturn.clients.credentials import SecretRecord
from keyturn.clients.rotation import MAX_PREVIOUS, Cause
from keyturn.clients.sources import GenerateSpec
from keyturn.durations import format_duration
from keyturn_operator import conditions
from keyturn_operator.conditions import Verdict

ROTATED: Final = "Rotated"
SECRET_RECREATED: Final = "SecretRecreated"
SECRET_RESTORED: Final = "SecretRestored"


def handed_out(wish: GenerateSpec, record: SecretRecord, cause: Cause | None, *, moved: bool) -> Verdict | None:
    """A new one is in the Secret. Nothing is said of the first one. `moved`: it is another Secret than before."""
    name, what = wish.secret_name, wish.kind.value
    ends = (
        f"; the one before stays valid for {format_duration(wish.keep_previous)}."
        if record.previous
        else "; the one before has ended."
    )
    if cause is None or cause is Cause.FIRST:
        return None
    if cause is Cause.LOST and not moved:
        text = f"Secret {name} did not hold the client's {what} any more: a new one was made{ends}"
        return Verdict("False", SECRET_RECREATED, text)
    if cause is Cause.RESTORED and not moved:
        text = f"Secret {name} held an older {what} than was in force (a restored copy?): a new one was made{ends}"
        return Verdict("False", SECRET_RESTORED, text)
    return Verdict("True", ROTATED, f"A new {what} is in Secret {name}{ends}")


def postponed() -> Verdict:
    """A rotation that is due has to wait."""
    text = f"{MAX_PREVIOUS} replaced ones count still: the rotation that is due waits until one of them ends (see keepPrevious)."
    return Verdict("False", reasons.ROTATION_PENDING, text)


def put_right(name: str, members: list[str]) -> Verdict:
    """Others had changed members that belong to what we wrote."""
    text = f"Members of Secret {name} were not as they belong and were put right: {', '.join(members)}."
    return Verdict("Unknown", conditions.DRIFT_REPAIRED, text)
