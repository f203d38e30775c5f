"""What is in force of the objects in a cluster: their specs say what is wanted, their statuses what the operator has made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyturn import reasons

from .errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .kube import Kube

NOT_YET: Final = "the operator has not spoken of its present version"
EVERY: Final = "*"
_MAX_NAMED: Final = 10


def unready(obj: Mapping[str, Any]) -> str:
    """Why an object is not Ready, in a word or two; empty where it is. What was said of an older generation says nothing of this one."""
    ready = _ready(obj)
    if ready is None:
        return NOT_YET
    if ready.get("status") == "True":
        return ""
    return str(ready.get("reason") or ready.get("status") or "Unknown")


def is_applied(client: Mapping[str, Any]) -> bool:
    """Whether anything of a ClientCredential is in force. The operator takes the client id out of the status of one that has no row:
    its id is another's, or can't be used at all.
    """
    return bool(_mapping(client.get("status")).get("clientId"))


def permissions_in_force(client: Mapping[str, Any]) -> tuple[str, ...]:
    """The permissions of the spec, as far as the status does not say that none of them counts."""
    status = _mapping(client.get("status"))
    ready = _ready(client)
    refused = ready is not None and ready.get("status") == "False" and status.get("permissions") == 0
    if not is_applied(client) or refused:
        return ()
    listed = _mapping(client.get("spec")).get("permissions")
    return tuple(one for one in listed if isinstance(one, str)) if isinstance(listed, list) else ()


def watched_namespaces(kube: Kube) -> tuple[str, ...] | None:
    """The namespaces that the installation in this one watches, as its operator's Deployment says; None where nothing says so, or may
    be read.
    """
    try:
        deployments = kube.list(f"/apis/apps/v1/namespaces/{kube.namespace}/deployments")
    except CommandError:
        return None
    for deployment in deployments:
        pod = _mapping(_mapping(_mapping(deployment.get("spec")).get("template")).get("spec"))
        for container in pod.get("containers") or ():
            for one in container.get("env") or ():
                if one.get("name") == "KEYTURN_NAMESPACES" and isinstance(value := one.get("value"), str):
                    return tuple(part.strip() for part in value.split(",") if part.strip())
    return None


def unseen(home: str, watched: Sequence[str] | None) -> str:
    """What is to be said where only the objects of `home` are looked at; empty where there are no others."""
    if watched is None:
        return (
            f"Only the rules and clients of namespace {home} are looked at. If the installation watches others, theirs "
            "count as well."
        )
    if EVERY in watched:
        return (
            f"The installation watches all namespaces. Only the rules and clients of {home} are looked at; the others' "
            "count as well."
        )
    others = sorted(set(watched) - {home})
    if not others:
        return ""
    named = ", ".join(others[:_MAX_NAMED]) + (f" and {len(others) - _MAX_NAMED} more" if others[_MAX_NAMED:] else "")
    return f"The installation also watches {named}: rules and clients there count as well, and are not looked at."


def _ready(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    generation = _mapping(obj.get("metadata")).get("generation")
    conditions = _mapping(obj.get("status")).get("conditions")
    for one in conditions if isinstance(conditions, list) else ():
        if isinstance(one, dict) and one.get("type") == reasons.READY and one.get("observedGeneration") == generation:
            return one
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
