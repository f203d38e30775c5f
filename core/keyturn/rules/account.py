"""The whole account of a decision: the explanation, contradictions among the rules that decide, and who has what is missing.

Plain JSON; what shows it works on this form, wherever the decision was made.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from keyturn.expressions import Subject
from keyturn.rules.conflicts import Conflict, find_conflicts
from keyturn.rules.explain import explain
from keyturn.rules.hosts import ANY_HOST, suffixes
from keyturn.rules.state import ALL
from keyturn.rules.table import RouteTable

MAX_GRANTS: Final = 20
MAX_HOLDERS: Final = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that is to be explained, as a gateway would tell of it."""

    method: str
    target: bytes
    host: str | None
    is_backoffice: bool = False
    client_type: str = ""


def account_of(
    table: RouteTable,
    asked: Asked,
    *,
    subject: Subject | None,
    audiences: Collection[str],
    caller: Mapping[str, Any],
    holders: Iterable[tuple[str, Collection[str]]],
) -> dict[str, Any]:
    """`caller` is what is told of whoever asks; `holders` are all ClientCredentials (`namespace/name`) with their permissions."""
    if subject is not None:
        subject = replace(subject, client_type=asked.client_type, is_backoffice=asked.is_backoffice)
    body = explain(
        table,
        method=asked.method,
        target=asked.target,
        host=asked.host,
        is_backoffice=asked.is_backoffice,
        subject=subject,
        audiences=audiences,
    ).to_body()
    return {
        **body,
        "caller": dict(caller),
        "conflicts": [
            {
                "rule": ref,
                "others": list(one.others),
                "host": one.host or None,
                "path": one.path,
                "method": one.method,
            }
            for ref, one in _contradictions(table, asked.method, body["readings"])
        ],
        "grants": _grants(_missing(body)[:MAX_GRANTS], holders),
    }


def _contradictions(
    table: RouteTable, method: str, readings: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, Conflict]]:
    """Those among the routes that decide. Of the other paths, methods and hosts of their rules nobody has asked."""
    routes = {(route["rule"], route["route"]) for reading in readings for route in reading["routes"]}
    hosts = {reading["host"] for reading in readings}
    refs = sorted({ref for ref, _ in routes})
    deciding = {ref: table.rules[ref][0] for ref in refs if ref in table.rules}
    for ref, conflicts in find_conflicts(deciding).items():
        here = [one for one in conflicts if (ref, one.path) in routes and one.method in (method, ALL)]
        for one in here:
            named = {other.host for other in here if other.path == one.path}
            if None in hosts or one.host in {_closest(host, named) for host in hosts}:
                yield ref, one


def _closest(host: str, named: Collection[str]) -> str | None:
    return next((name for name in (host, *suffixes(host), ANY_HOST) if name in named), None)


def _missing(body: Mapping[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for reading in body["readings"]:
        for route in reading["routes"]:
            for check in route["checks"]:
                for names in check.get("missing", {}).values():
                    found |= dict.fromkeys(names)
    return list(found)


def _grants(permissions: list[str], holders: Iterable[tuple[str, Collection[str]]]) -> list[dict[str, Any]]:
    """For each permission the ClientCredentials that list it."""
    if not permissions:
        return []
    refs: dict[str, list[str]] = {permission: [] for permission in permissions}
    for ref, held in holders:
        for permission in permissions:
            if permission in held:
                refs[permission].append(ref)
    return [
        {"permission": permission, "clients": sorted(found)[:MAX_HOLDERS], "count": len(found)}
        for permission, found in refs.items()
    ]
