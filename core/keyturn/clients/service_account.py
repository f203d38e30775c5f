"""Workload identity: from `spec.serviceAccount` to the ServiceAccount whose projected tokens authenticate the client."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from keyturn import reasons
from keyturn.clients.state import PRIVATE_KEY_JWT, ClientState, WorkloadAccount
from keyturn.problems import Problem

FIELDS: Final = frozenset({"name"})
# What would be a second way to authenticate: a client has one.
EXCLUDED: Final = ("publicKeys", "generateKey", "clientSecret", "jwksUri")

_FIELD: Final = "spec.serviceAccount"
# A ServiceAccount's name is a DNS subdomain (Kubernetes: Object Names and IDs).
_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)


def service_account_ref(spec: Mapping[str, Any]) -> str | None:
    """The ServiceAccount of the client's own namespace that this spec names, if the reference can be read and its method uses one."""
    account = spec.get("serviceAccount")
    if spec.get("authMethod", PRIVATE_KEY_JWT) != PRIVATE_KEY_JWT or not isinstance(account, Mapping):
        return None
    name = account.get("name")
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def check_account(spec: Mapping[str, Any], method: str) -> list[Problem]:
    """What is wrong with `spec.serviceAccount`, and what stands beside it that does not go with it."""
    account = spec.get("serviceAccount")
    if account is None:
        return []
    problems = []
    name = account.get("name") if isinstance(account, Mapping) else None
    if not isinstance(account, Mapping):
        problems.append(Problem(reasons.INVALID_SPEC, _FIELD, "expected an object with name"))
    elif not isinstance(name, str) or not _NAME.fullmatch(name):
        fault = "must be the name of a ServiceAccount in this namespace"
        problems.append(Problem(reasons.INVALID_SPEC, f"{_FIELD}.name", fault))
    if method != PRIVATE_KEY_JWT:
        fault = f"goes with authMethod {PRIVATE_KEY_JWT} only: take one of them out"
        problems.append(Problem(reasons.INVALID_SPEC, _FIELD, fault))
    problems += [
        Problem(reasons.INVALID_SPEC, f"spec.{other}", "does not go with serviceAccount: take one of them out")
        for other in EXCLUDED
        if spec.get(other) not in (None, [])
    ]
    return problems


def with_service_account(
    state: ClientState,
    *,
    namespace: str,
    name: str,
    uid: str | None,
    last: ClientState | None,
    valid: bool,
) -> tuple[ClientState, list[Problem]]:
    """The state with the ServiceAccount `name` of the client's `namespace`, and what is wrong with that.

    `uid`: the account's as it is now, None when there is none. `valid` says whether the rest of the edit was (see
    `keyturn.clients.parse.invalidates`): in an invalid edit only the account that was in force already counts, for another one, or one
    made anew under its name, would be an addition.
    """
    bare = replace(state, service_account=None)
    if uid is None:
        fault = f"there is no ServiceAccount {name} in this namespace yet: create it"
        return bare, [Problem(reasons.SERVICE_ACCOUNT_NOT_FOUND, f"{_FIELD}.name", fault)]
    account = WorkloadAccount(namespace, name, uid)
    return (replace(state, service_account=account) if valid else keep_account(state, account, last)), []


def keep_account(state: ClientState, account: WorkloadAccount | None, last: ClientState | None) -> ClientState:
    """The state with this account if that was in force already: what is left where nothing may be added."""
    kept = account is not None and last is not None and last.service_account == account and _still_open(state, last)
    return replace(state, service_account=account if kept else None)


def taken(name: str, owner: str) -> Problem:
    """The ServiceAccount is another client's: that of the ClientCredential `owner`, which is older."""
    fault = (
        f"the ServiceAccount {name} belongs to the ClientCredential {owner}, which is older: give this client a ServiceAccount "
        "of its own, or delete that one"
    )
    return Problem(reasons.SERVICE_ACCOUNT_TAKEN, f"{_FIELD}.name", fault)


def _still_open(state: ClientState, last: ClientState) -> bool:
    """Whether an invalid edit left the client its method and an audience (see `keyturn.clients.parse`)."""
    return state.auth_method == last.auth_method and not (last.audiences and not state.audiences)
