"""A SigningKey as its status shows it, and the annotations that ask the operator for something."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from keyturn.durations import InvalidDuration, parse_duration
from keyturn.timestamps import InvalidTimestamp, parse_rfc3339

from .errors import CommandError, Exit
from .kube import GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

ROTATE: Final = f"{GROUP}/rotate"
COMPROMISED: Final = f"{GROUP}/compromised"
PUBLISH_BEFORE: Final = "10m"  # what a SigningKey has that names none
_PLAIN: Final = re.compile(r"[^\s,\[]+")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is: the kid that signs when it is done, and until then what it waits for."""

    done: str | None = None
    waits_for: str = ""


def shown_keys(obj: Mapping[str, Any]) -> dict[str, str]:
    """The states of the keys by kid."""
    listed = (obj.get("status") or {}).get("keys") or ()
    return {str(one.get("kid")): str(one.get("state")) for one in listed if isinstance(one, dict)}


def active_kid(obj: Mapping[str, Any]) -> str | None:
    return next((kid for kid, state in shown_keys(obj).items() if state == "Active"), None)


def condition(obj: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The condition of this type; empty when there is none."""
    listed = (obj.get("status") or {}).get("conditions") or ()
    return next((one for one in listed if isinstance(one, dict) and one.get("type") == kind), {})


def request_rotation(value: str) -> dict[str, str]:
    """Any new value starts one rotation."""
    return {ROTATE: value}


def kids_to_withdraw(obj: Mapping[str, Any], *, only_active: bool) -> frozenset[str]:
    """The keys that sign or are about to. Raises CommandError when there are none."""
    wanted = {"Active"} if only_active else {"Active", "Next"}
    kids = frozenset(kid for kid, state in shown_keys(obj).items() if state in wanted)
    if not kids:
        name = obj["metadata"]["name"]
        raise CommandError(
            f"SigningKey {name} has no keys.",
            f"Look at its conditions: kubectl describe signingkey {name}.",
            Exit.REFUSED,
        )
    return kids


def annotations_to_withdraw(obj: Mapping[str, Any], kids: frozenset[str]) -> dict[str, str]:
    """The annotation that calls these kids compromised, with those that it names already."""
    present = str((obj["metadata"].get("annotations") or {}).get(COMPROMISED, ""))
    try:
        named = json.loads(present) if present.lstrip().startswith("[") else re.split(r"[,\s]+", present)
    except ValueError:
        named = []
    every = list(dict.fromkeys([*(one for one in named if isinstance(one, str) and one), *sorted(kids)]))
    plain = all(_PLAIN.fullmatch(kid) for kid in every)
    return {COMPROMISED: ",".join(every) if plain else json.dumps(every)}


def young_next(obj: Mapping[str, Any], *, now: float) -> str:
    """What to expect when Next has to sign before its time; empty when it has been published for long enough."""
    listed = (obj.get("status") or {}).get("keys") or ()
    following = next((one for one in listed if isinstance(one, dict) and one.get("state") == "Next"), {})
    try:
        published = parse_rfc3339(following.get("publishedAt"))
        lead = parse_duration((obj.get("spec") or {}).get("publishBefore", PUBLISH_BEFORE))
    except (InvalidTimestamp, InvalidDuration):
        published, lead = None, 0
    if published is not None and now - published >= lead:
        return ""
    return (
        "The next key is new: until every API replica has mounted it (a minute or two) /oauth/token answers 503, and verifiers that "
        "keep the JWKS may not know it for their max-age."
    )


def rotation_progress(now: Mapping[str, Any], before: Mapping[str, Any]) -> Progress:
    """Whether another key signs than before, on every replica."""
    active = active_kid(now)
    if active is not None and active != active_kid(before):
        return _ready(now, active)
    waiting = condition(now, "RotationPending")
    return Progress(waits_for=str(waiting.get("message", "")) if waiting.get("status") == "True" else _not_used(now))


def withdrawal_progress(now: Mapping[str, Any], withdrawn: frozenset[str]) -> Progress:
    """Whether none of the withdrawn keys counts, and another one signs on every replica."""
    counting = {kid for kid, state in shown_keys(now).items() if state != "Compromised"}
    active = active_kid(now)
    if counting & withdrawn or active is None:
        return Progress(waits_for=_not_used(now))
    return _ready(now, active)


def _ready(obj: Mapping[str, Any], active: str) -> Progress:
    ready = condition(obj, "Ready")
    return Progress(done=active) if ready.get("status") == "True" else Progress(waits_for=str(ready.get("message", "")))


def _not_used(obj: Mapping[str, Any]) -> str:
    ready = condition(obj, "Ready")
    if ready.get("reason") == "NotUsed":
        raise CommandError(str(ready.get("message", "")), "Name that one.", Exit.REFUSED)
    return ""
