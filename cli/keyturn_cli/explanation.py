"""An explanation's JSON as lines for people; where the decision was made does not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .output import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OUTCOMES: Final[Mapping[str, str]] = {
    "Allow": "allow",
    "Forbidden": "deny",
    "Unauthenticated": "unauthenticated",
    "UnknownRoute": "unknown",
}
_LABELS: Final[Mapping[str, str]] = {
    "login": "is logged in",
    "audiences": "its token is for one of",
    "public": "public",
    "allOf": "has all of",
    "anyOf": "has one of",
    "expression": "expression",
    "closed": "closed",
}

# Who was denied, where it was no client.
_CALLERS: Final[Mapping[str, str]] = {
    "user": "a user of another issuer",
    "anonymous": "nobody: the request had no credentials",
}
_NOW: Final[Mapping[str | None, str]] = {
    "client": " with a fresh token for the same permissions",
    "unknown": " without a token",
}


def lines_of(explanation: Mapping[str, Any]) -> Iterator[str]:
    """`explanation` is the form of `Explanation.to_body`."""
    decision = explanation["decision"]
    yield f"{OUTCOMES[decision['outcome']]} ({decision['reason']})"
    if decision["rule"] is not None:
        yield f"  decided by AccessRule {_text(decision['rule'])}, route {_text(decision['route'])}"
    if decision["description"]:
        yield f"  {_text(decision['description'])}"
    if explanation["refused"] is None:
        readings = explanation["readings"]
        if len(readings) > 1:
            yield f"The path can be read in {len(readings)} ways; each must be let through:"
        for reading in readings:
            yield from _reading(reading)
    for audit in explanation.get("audits", ()):
        yield from _audit(audit, decision)
    yield from _surroundings(explanation)


def denial_lines(body: Mapping[str, Any]) -> Iterator[str]:
    """What is known of denials with one id, the newest first, and what the last request would come to now."""
    for denial in body["denials"]:
        place = "" if denial.get("host") is None else f" on {_text(denial['host'])}"
        request = f"{_text(denial.get('method') or '?')} {_text(denial.get('path') or '?')}{place}"
        yield f"{denial['at']}: {request} was answered {denial['status']} ({_text(denial['reason'])})"
        if denial.get("rule"):
            yield f"  decided by AccessRule {_text(denial['rule'])}, route {_text(denial.get('route') or '?')}"
        if denial.get("cause"):
            yield f"  {_text(denial['cause'])}"
        yield f"  caller: {_denied_caller(denial)}"
    now = body.get("now")
    if now is not None:
        yield f"Now the same request{_NOW.get((now.get('caller') or {}).get('kind'), '')} would come to:"
        yield from lines_of(now)
    elif body["denials"][0].get("caller") == "user":
        yield "What it would come to now is not known: a user's groups and permissions are not kept."
    else:
        yield "What it would come to now is not known: the request was not kept whole, or the client is gone."


def _denied_caller(denial: Mapping[str, Any]) -> str:
    if denial.get("clientId"):
        return f"client {_text(denial['clientId'])}"
    return _CALLERS.get(denial.get("caller", ""), "not known")


def _surroundings(explanation: Mapping[str, Any]) -> Iterator[str]:
    """What the rules alone don't tell: who the caller is, which rules contradict, and who has what is missing."""
    caller = explanation.get("caller") or {}
    if caller.get("object"):
        yield f"caller: client {_text(caller['clientId'])}, ClientCredential {_text(caller['object'])}"
    elif caller.get("userId"):
        yield f"caller: user {_text(caller['userId'])}"
    if problem := caller.get("problem"):
        cause = f" ({_text(problem['cause'])})" if problem.get("cause") else ""
        yield f"  not logged in: {_text(problem['description'])}{cause}"
    if caller.get("permissions"):
        yield f"  its permissions: {', '.join(_text(name) for name in caller['permissions'])}"
    for conflict in explanation.get("conflicts", ()):
        others = ", ".join(_text(name) for name in conflict["others"]) or _text(conflict["rule"])
        place = f"{_text(conflict['method'])} {_text(conflict['host'] or '')}{_text(conflict['path'])}"
        yield f"AccessRule {_text(conflict['rule'])} contradicts {others} at {place}: both must be satisfied"
    for grant in explanation.get("grants", ()):
        held = ", ".join(_text(name) for name in grant["clients"]) or "no ClientCredential"
        more = f" and {grant['count'] - len(grant['clients'])} more" if grant["count"] > len(grant["clients"]) else ""
        yield f"{_text(grant['permission'])} is granted by {held}{more}"


def would_deny(explanation: Mapping[str, Any]) -> list[str]:
    """The rules under Audit that would deny what is allowed."""
    if explanation["decision"]["outcome"] != "Allow":
        return []
    return [audit["rule"] for audit in explanation["audits"] if audit["decision"]["outcome"] != "Allow"]


def lacking(explanation: Mapping[str, Any]) -> str:
    """What is missing, on one line: of the first route that does not let the request through."""
    for reading in explanation["readings"]:
        for route in reading["routes"]:
            found = [check for check in route["checks"] if not check["held"]]
            if found:
                return "; ".join(_shortcoming(check) for check in found)
    return _text(explanation["decision"]["description"])


def _reading(reading: Mapping[str, Any]) -> Iterator[str]:
    # A decoded slash within a segment is shown as what it is: no separator.
    path = "/" + "/".join(_text(segment).replace("/", "%2F") for segment in reading["segments"])
    host = "" if reading["host"] is None else f" on {_text(reading['host'])}"
    yield f"path {path}{host}"
    if not reading["routes"]:
        yield "  no route: denied"
    for route in reading["routes"]:
        verdict = "lets it through" if route["passes"] else "denies it"
        yield f"  AccessRule {_text(route['rule'])}, route {_text(route['route'])}: {verdict}"
        for check in route["checks"]:
            yield f"    {_sign(check)} {_LABELS.get(check['kind'], check['kind'])}: {_text(check['text'])}"
            for term in check.get("terms", ()):
                yield f"        {_sign(term)} {_text(term['text'])} (column {term['position']})"
            if missing := check.get("missing"):
                yield f"        missing: {_missing(missing)}"


def _audit(audit: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[str]:
    would, reason = OUTCOMES[audit["decision"]["outcome"]], audit["decision"]["reason"]
    change = "no change" if would == OUTCOMES[actual["outcome"]] else f"would be {would} ({reason})"
    yield f"AccessRule {_text(audit['rule'])} is under Audit and decides nothing; enforced: {change}"
    for reading in audit["readings"]:
        yield from (f"  {line}" for line in _reading(reading))


def _shortcoming(check: Mapping[str, Any]) -> str:
    if missing := check.get("missing"):
        return f"missing {_missing(missing)}"
    match check["kind"]:
        case "login":
            return "no token"
        case "audiences":
            return f"the token is for none of {_text(check['text'])}"
        case "expression":
            return f"false: {_text(check['text'])}"
        case _:
            return _text(f"closed: {check['text']}")


def _missing(missing: Mapping[str, list[str]]) -> str:
    ((kind, names),) = missing.items()
    shown = ", ".join(_text(name) for name in names)
    return f"one of {shown}" if kind == "anyOf" and len(names) > 1 else shown


def _sign(part: Mapping[str, Any]) -> str:
    return "true " if part["held"] else "false"


def _text(text: str) -> str:
    return printable(text)
