"""Records of who may do what from when on: one JSON line a change, on a logger of its own."""

from collections.abc import Mapping
from typing import Any

import structlog

_log = structlog.stdlib.get_logger("keyturn.audit")

_GRANTS = (
    "permissions",
    "audiences",
    "allowedCustomClaims",
    "authMethod",
    "serviceAccount",
    "suspended",
    "expiresAt",
    "tokenLifetime",
    "revokeBefore",
    "introspection",
)


def editor_of(obj: Mapping[str, Any] | None) -> str | None:
    """The field manager that changed the object's spec last: all that Kubernetes keeps of who did it."""
    entries = ((obj or {}).get("metadata") or {}).get("managedFields")
    if not isinstance(entries, list):
        return None
    edits = [one for one in entries if isinstance(one, Mapping) and not one.get("subresource") and one.get("time")]
    last = max(edits, key=lambda one: str(one["time"]), default=None)
    return None if last is None else str(last.get("manager"))[:128]


def grant_view(body: Mapping[str, Any]) -> dict[str, Any]:
    """What of a client's row says what it may do: kids for keys, and only whether there is a secret."""
    view: dict[str, Any] = {name: body.get(name) for name in _GRANTS}
    view["keys"] = [key.get("kid") for key in body.get("keys") or ()]
    view["secrets"] = len(body.get("secrets") or ())
    return view


def changes(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """`old` → `new`, member by member, only where they differ."""
    before, after = old or {}, new or {}
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: {"old": before.get(name), "new": after.get(name)} for name in names if before.get(name) != after.get(name)
    }


def changed(
    event: str, *, obj: str, uid: str, who: str | None, change: Mapping[str, Any], cause: str | None = None
) -> None:
    """Writes one line: `grant_changed` or `withdrawn`."""
    _log.info(event, object=obj, uid=uid, who=who, change=dict(change), **({"cause": cause} if cause else {}))
