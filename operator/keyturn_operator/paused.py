"""The annotation that holds changes back: what is in force while it is set.

Held back is what an edit would add; what it restricts takes effect even so. That is just what an edit with a mistake leaves in force, so
the parsers decide it: they are given the spec with one unreadable element more, which grants nothing by itself.
"""

from collections.abc import Mapping
from typing import Any

from keyturn.clients.parse import ClientSettings, parse_client
from keyturn.clients.state import ClientState
from keyturn.problems import Problem
from keyturn.rules.parse import parse_rule
from keyturn.rules.state import RuleState
from keyturn_operator.settings import PAUSED_ANNOTATION

_MARK = PAUSED_ANNOTATION

NOTE = f"The annotation {PAUSED_ANNOTATION} holds back what this edit adds; what it restricts is in force."


def client_in_force(
    spec: Mapping[str, Any],
    *,
    namespace: str,
    name: str,
    created_at: float,
    last: ClientState | None,
    settings: ClientSettings,
) -> tuple[ClientState | None, list[Problem]]:
    """`parse_client` while paused."""
    state, problems = parse_client(
        {**spec, _MARK: True}, namespace=namespace, name=name, created_at=created_at, last=last, settings=settings
    )
    return state, [problem for problem in problems if problem.field != f"spec.{_MARK}"]


def rule_in_force(spec: Mapping[str, Any], last: RuleState | None) -> tuple[RuleState, list[Problem]]:
    """`parse_rule` while paused."""
    routes = spec.get("routes")
    listed = list(routes) if isinstance(routes, list) else []
    state, problems = parse_rule({**spec, "routes": [None, *listed]}, last)
    own = [Problem(one.reason, _shifted(one.field), one.message) for one in problems if one.field != "spec.routes[0]"]
    return state, own


def _shifted(field: str) -> str:
    """The field as the author counts it: the unreadable route stands before his."""
    head, bracket, rest = field.partition("spec.routes[")
    if head or not bracket:
        return field
    number, _, tail = rest.partition("]")
    return f"spec.routes[{int(number) - 1}]{tail}"
