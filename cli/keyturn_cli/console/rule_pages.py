"""The routes with what each needs; who may make a request; and why one was denied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from keyturn.rules.account import Asked
from keyturn.rules.asked import NoRequest, parse_request
from keyturn.rules.state import AUDIT, METHODS

from .clients import query_of
from .counts import Counts
from .proposals import NotPossible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.responses import Response

    from .app import Call
    from .clients import Row

MAX_URL: Final = 4_096
OUTCOMES: Final = {
    "Allow": "Allowed",
    "Forbidden": "Denied",
    "Unauthenticated": "Denied: not logged in",
    "UnknownRoute": "Denied: no rule covers it",
}
LABELS: Final = {
    "login": "is logged in",
    "audiences": "has a token for one of",
    "public": "open to",
    "allOf": "has all of",
    "anyOf": "has one of",
    "expression": "meets the expression",
    "closed": "is closed",
}


def list_rules(call: Call) -> Response:
    query = query_of(call.query)
    snapshot = call.console.rules.snapshot()
    index = call.console.rule_index()
    routes, number, pages, total = index.search(query.text, query.page)
    audited = [rule for rule in index.rules if rule.state.mode == AUDIT]

    def address(page: int) -> str:
        return f"{call.console.door.base}/rules?{urlencode({'q': query.text, 'page': page})}"

    return call.page(
        "rules.html",
        index=index,
        routes=routes,
        number=number,
        pages=pages,
        total=total,
        query=query,
        snapshot=snapshot,
        audited=audited,
        counts=call.console.counts.read() if audited else Counts(),
        clients=call.console.clients.snapshot(),
        holders=call.console.holders(),
        address=address,
    )


def explain(call: Call) -> Response:
    """Who may call this, and what a request comes to for a caller; by the objects as they are."""
    console, query = call.console, call.query
    method = query.get("method", "GET")
    context: dict[str, Any] = {
        "methods": METHODS,
        "outcomes": OUTCOMES,
        "labels": LABELS,
        "asked": {
            "method": method if method in METHODS else "GET",
            "url": query.get("url", "").strip()[:MAX_URL],
            "client": query.get("client", "").strip()[:256],
            "permissions": query.get("permissions", "").strip()[:MAX_URL],
            "audiences": query.get("audiences", "").strip()[:MAX_URL],
            "backoffice": query.get("backoffice") == "1",
            "request_id": query.get("request-id", "").strip()[:256],
        },
        "account": None,
        "callers": None,
        "denials": None,
        "problem": "",
        "next_step": "",
        "rules": console.rules.snapshot(),
        "clients": console.clients.snapshot(),
    }
    if context["asked"]["request_id"]:
        context["denials"] = console.service.denials(context["asked"]["request_id"])
    elif context["asked"]["url"]:
        try:
            context |= _explained(call, context["asked"])
        except (NoRequest, NotPossible) as error:
            context["problem"] = str(error)
    return call.page("explain.html", **context)


def _explained(call: Call, asked: Mapping[str, Any]) -> dict[str, Any]:
    method, target, host = parse_request(asked["method"], asked["url"])
    if not call.console.rules.snapshot().loaded:
        raise NotPossible("As long as the rules can't be read, nothing can be said of a request.")
    request = Asked(method, target, host, asked["backoffice"])
    index = call.console.rule_index()
    clients = call.console.clients.snapshot()
    if asked["client"] and not clients.loaded:
        raise NotPossible(
            "As long as the clients can't be read, nothing can be said of one. Name its permissions instead."
        )
    rows = clients.items.values()
    row = _row(rows, asked["client"]) if asked["client"] else None
    permissions, audiences = asked["permissions"].split(), asked["audiences"].split()
    account = index.account(
        request, rows, row, (permissions, audiences) if permissions or audiences else None, call.now
    )
    deciding = {route["rule"] for reading in account["readings"] for route in reading["routes"]}
    return {
        "account": account,
        "caller_unready": row.unready if row is not None and row.applied else "",
        "callers": index.callers(request, rows, call.now),
        "holders": call.console.holders(),
        "unready": (unready := [rule for rule in index.unready if rule.ref in deciding]),
        "others_unready": len(index.unready) - len(unready),
        "unseen": call.console.unseen(),
    }


def _row(rows: Iterable[Row], named: str) -> Row:
    """A client id counts before a name, as with `keyturn explain`; of two that ask for the same id, the one that has it."""
    found = sorted(
        (row for row in rows if named in (row.client.client_id, row.client.name)),
        key=lambda row: (row.client.client_id != named, not row.applied),
    )
    if not found:
        raise NotPossible("No client has this name or client id.")
    return found[0]
