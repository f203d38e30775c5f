"""A decision from the objects in a cluster, for whoever may read them: what their specs say, not what a replica has applied."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from keyturn.rules.account import Asked, account_of
from keyturn.rules.parse import parse_rule
from keyturn.rules.table import RouteTable
from keyturn.timestamps import parse_rfc3339

from . import release
from .errors import CommandError, Exit
from .in_force import is_applied, permissions_in_force, unready, unseen, watched_namespaces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .kube import Kube, Object
    from .question import Question

_NO_CLIENT: Final = "Check the name and --namespace with `kubectl get cc`."


def account_from_cluster(kube: Kube, question: Question, client: str | None) -> tuple[dict[str, Any], list[str]]:
    """The account of the decision, and what keeps it from being what a replica would say, as sentences.

    Raises:
        CommandError: the objects can't be read, or there is no such client.
    """
    rules, notes = [], []
    for obj in kube.list(kube.path("accessrules")):
        ref = _ref(obj)
        state, problems = parse_rule(obj.get("spec") or {}, None)
        rules.append((ref, state))
        if reason := unready(obj) or (problems and problems[0].reason):
            notes.append(f"AccessRule {ref} is not Ready ({reason}): what is in force of it may be something else.")
    clients = kube.list(kube.path("clientcredentials"))
    subject, audiences = question.subject, question.audiences
    told: dict[str, Any] = {"kind": "anonymous" if question.anonymous else "described"}
    if client is not None:
        found = _client(clients, client, kube.namespace)
        spec = found.get("spec") or {}
        permissions, audiences = permissions_in_force(found), _texts(spec, "audiences")
        if not audiences and (issuer := _issuer(kube)):
            # A client without any has the issuer's.
            audiences = (issuer,)
        told = {
            "kind": "client",
            "clientId": _client_id(found),
            "object": _ref(found),
            "permissions": list(permissions),
            "audiences": list(audiences),
        }
        assert subject is not None
        subject = type(subject)(frozenset(permissions))
        if problem := _stopped(found):
            told["problem"], subject = problem, None
        elif reason := unready(found):
            notes.append(
                f"ClientCredential {_ref(found)} is not Ready ({reason}): what is in force of it may be something else."
            )
    asked = Asked(question.method, question.target, question.host, question.backoffice, question.client_type)
    account = account_of(
        RouteTable.build(rules),
        asked,
        subject=subject,
        audiences=audiences,
        caller=told,
        holders=[(_ref(obj), permissions_in_force(obj)) for obj in clients],
    )
    if scope := unseen(kube.namespace, watched_namespaces(kube)):
        notes.append(scope)
    return account, sorted(notes)


def _issuer(kube: Kube) -> str:
    """The installation's, as its Deployments say; empty where nothing says so, or may be read."""
    try:
        deployments = release.parts(kube.list(f"/apis/apps/v1/namespaces/{kube.namespace}/deployments"))
    except CommandError:
        return ""
    return next((found for one in deployments if (found := release.settings(one).get("KEYTURN_ISSUER"))), "")


def _client(clients: list[Object], named: str, namespace: str) -> Object:
    ref = named if "/" in named else f"{namespace}/{named}"
    # Of two that ask for the same id, the one that has it.
    by_id = sorted((obj for obj in clients if _client_id(obj) == named), key=lambda obj: not is_applied(obj))
    for obj in (*by_id, *(one for one in clients if _ref(one) == ref)):
        return obj
    raise CommandError("No ClientCredential has this client id or name.", _NO_CLIENT, Exit.REFUSED)


def _client_id(obj: Object) -> str:
    given = (obj.get("status") or {}).get("clientId") or (obj.get("spec") or {}).get("clientId")
    return str(given) if given else _ref(obj).replace("/", ".")


def _stopped(obj: Object) -> dict[str, str] | None:
    spec = obj.get("spec") or {}
    if not is_applied(obj):
        return {"reason": "client_not_in_force", "description": f"nothing of the client is in force: {unready(obj)}"}
    if spec.get("suspended") is True:
        return {"reason": "client_suspended", "description": "the client is suspended"}
    try:
        if spec.get("expiresAt") is not None and parse_rfc3339(spec["expiresAt"]) <= time.time():
            return {"reason": "client_expired", "description": "the client has expired"}
    except ValueError:
        return {"reason": "client_expired", "description": "the client's end can't be read"}
    return None


def _texts(spec: Mapping[str, Any], member: str) -> tuple[str, ...]:
    value = spec.get(member)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _ref(obj: Object) -> str:
    metadata = obj.get("metadata") or {}
    return f"{metadata.get('namespace')}/{metadata.get('name')}"
