"""What a status says: conditions and their transitions, decided from what is there and what is wanted."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from keyturn import reasons
from keyturn.problems import Problem
from keyturn.records import Replica
from keyturn.timestamps import format_rfc3339

Truth = Literal["True", "False", "Unknown"]
MAX_MESSAGE = 1024
MAX_PROBLEMS = 10

RECONCILE_FAILED = "ReconcileFailed"
DRIFT_REPAIRED = "DriftRepaired"
DELETED = "Deleted"

ANY_KID: Final = "*"
"""Stands for any signing key, while it is not known yet which one is Active. No key has this kid."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition as it should be."""

    status: Truth
    reason: str
    message: str
    type: str = reasons.READY


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition that has changed its status or its reason, for an Event."""

    verdict: Verdict
    before: str | None  # the reason before


def shorten(message: str) -> str:
    """A message within what a condition and an Event hold."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def of_problems(problems: Sequence[Problem], note: str = "") -> Verdict:
    """Ready=False for a spec with mistakes: the first one's reason, and all of them named."""
    said = [f"{problem.field}: {problem.message}" for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        said.append(f"and {len(problems) - MAX_PROBLEMS} more")
    text = "; ".join(said)
    return Verdict("False", problems[0].reason, shorten(f"{text}. {note}" if note else text))


def of_propagation(replicas: Sequence[Replica], revision: int, kid: str | None = None) -> Verdict:
    """Whether all live replicas act on this revision, and can sign with this kid (`ANY_KID`: with some key).

    `replicas` are those that were seen lately; an installation without any serves nothing, so nothing is ready.
    """
    if not replicas:
        return Verdict("Unknown", reasons.NO_REPLICA, "No API replica is running: nothing answers for this object yet.")
    behind = [one for one in replicas if one.applied_revision < revision or not _can_sign(one, kid)]
    if behind:
        done = len(replicas) - len(behind)
        what = "have applied it" if kid is None else "have applied it and loaded the active key"
        return Verdict("Unknown", reasons.PROPAGATING, f"{done} of {len(replicas)} API replicas {what}.")
    return Verdict("True", reasons.ACCEPTED, "In force on every API replica.")


def _can_sign(replica: Replica, kid: str | None) -> bool:
    if kid is None:
        return True
    return bool(replica.loaded_kids) if kid == ANY_KID else kid in replica.loaded_kids


def merge_conditions(
    present: object, verdicts: Iterable[Verdict], *, generation: int, now: float, absent: Collection[str] = ()
) -> tuple[list[dict[str, Any]], list[Transition]]:
    """The conditions to write, and which of them have changed.

    `lastTransitionTime` moves only when the status does. Conditions of other types that are there stay, but for those in `absent`.
    """
    old: dict[str, Mapping[str, Any]] = {}
    if isinstance(present, list):
        old = {str(one.get("type")): one for one in present if isinstance(one, Mapping)}
    wanted = {verdict.type: verdict for verdict in verdicts}
    conditions: list[dict[str, Any]] = [
        dict(one) for kind, one in old.items() if kind not in wanted and kind not in absent
    ]
    transitions = []
    for kind, verdict in wanted.items():
        before = old.get(kind)
        same = before is not None and before.get("status") == verdict.status and bool(before.get("lastTransitionTime"))
        conditions.append(
            {
                "type": kind,
                "status": verdict.status,
                "reason": verdict.reason,
                "message": verdict.message,
                "observedGeneration": generation,
                "lastTransitionTime": before["lastTransitionTime"]
                if before is not None and same
                else format_rfc3339(now),
            }
        )
        if before is None or not same or before.get("reason") != verdict.reason:
            transitions.append(Transition(verdict, None if before is None else str(before.get("reason"))))
    return sorted(conditions, key=lambda one: str(one["type"])), transitions


def status_patch(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The merge patch from one status to another; None when they are the same, so that nothing is written.

    A member that is wanted as None is taken out; members that are not named stay.
    """
    patch = {
        name: value
        for name, value in wanted.items()
        if (name in present if value is None else present.get(name) != value)
    }
    return patch or None


def ready_of(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The Ready condition in a status."""
    conditions = status.get("conditions")
    if not isinstance(conditions, list):
        return None
    return next((one for one in conditions if isinstance(one, Mapping) and one.get("type") == reasons.READY), None)


def worth_an_event(transition: Transition) -> bool:
    """Whether people want to hear of it: mistakes and their end, not each step in between, nor that nothing is wrong at first."""
    verdict = transition.verdict
    if verdict.type == reasons.READY:
        return verdict.status != "Unknown"
    return verdict.status == "True" or transition.before is not None
