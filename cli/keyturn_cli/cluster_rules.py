"""A decision from the objects in a cluster, for whoever may read them: what their specs say, not what a replica has applied."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from keyturn.rules.account import Asked, account_of
from keyturn.rules.parse import parse_rule
from keyturn.rules.table import RouteTable
from keyturn.timestamps import parse_rfc3339

from .errors import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .kube import Kube, Object
    from .question import Question

_NO_CLIENT: Final = "Check the name and --namespace with `kubectl get cc`."


def account_from_cluster(kube: Kube, question: Question, client: str | None) -> tuple[dict[str, Any], list[str]]:
    """The account of the decision, and the rules whose specs are not wholly in force (`namespace/name`).

    Raises:
        CommandError: the objects can't be read, or there is no such client.
    """
    rules, unready = [], []
    for obj in kube.list(kube.path("accessrules")):
        ref = _ref(obj)
        state, problems = parse_rule(obj.get("spec") or {}, None)
        rules.append((ref, state))
        if problems or not _ready(obj):
            unready.append(ref)
    clients = kube.list(kube.path("clientcredentials"))
    subject, audiences = question.subject, question.audiences
    told: dict[str, Any] = {"kind": "anonymous" if question.anonymous else "described"}
    if client is not None:
        found = _client(clients, client, kube.namespace)
        spec = found.get("spec") or {}
        permissions, audiences = _texts(spec, "permissions"), _texts(spec, "audiences")
        told = {
            "kind": "client",
            "clientId": _client_id(found),
            "object": _ref(found),
            "permissions": list(permissions),
            "audiences": list(audiences),
        }
        assert subject is not None
        subject = type(subject)(frozenset(permissions))
        if problem := _stopped(spec):
            told["problem"], subject = problem, None
    asked = Asked(question.method, question.target, question.host, question.backoffice, question.client_type)
    account = account_of(
        RouteTable.build(rules),
        asked,
        subject=subject,
        audiences=audiences,
        caller=told,
        holders=[(_ref(obj), _texts(obj.get("spec") or {}, "permissions")) for obj in clients],
    )
    return account, sorted(unready)


def _client(clients: list[Object], named: str, namespace: str) -> Object:
    ref = named if "/" in named else f"{namespace}/{named}"
    by_id = [obj for obj in clients if _client_id(obj) == named]
    for obj in (*by_id, *(one for one in clients if _ref(one) == ref)):
        return obj
    raise CommandError("No ClientCredential has this client id or name.", _NO_CLIENT, Exit.REFUSED)


def _client_id(obj: Object) -> str:
    given = (obj.get("status") or {}).get("clientId") or (obj.get("spec") or {}).get("clientId")
    return str(given) if given else _ref(obj).replace("/", ".")


def _stopped(spec: Mapping[str, Any]) -> dict[str, str] | None:
    if spec.get("suspended") is True:
        return {"reason": "client_suspended", "description": "the client is suspended"}
    try:
        if spec.get("expiresAt") is not None and parse_rfc3339(spec["expiresAt"]) <= time.time():
            return {"reason": "client_expired", "description": "the client has expired"}
    except ValueError:
        return {"reason": "client_expired", "description": "the client's end can't be read"}
    return None


def _ready(obj: Object) -> bool:
    return any(
        one.get("type") == "Ready" and one.get("status") == "True"
        for one in (obj.get("status") or {}).get("conditions") or ()
    )


def _texts(spec: Mapping[str, Any], member: str) -> tuple[str, ...]:
    value = spec.get(member)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _ref(obj: Object) -> str:
    metadata = obj.get("metadata") or {}
    return f"{metadata.get('namespace')}/{metadata.get('name')}"
