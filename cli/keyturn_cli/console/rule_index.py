"""The AccessRules as one table: what each route needs, which rules contradict, what a permission opens, and who may call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from keyturn.expressions import Subject
from keyturn.rules.account import Asked, account_of
from keyturn.rules.conflicts import find_conflicts
from keyturn.rules.parse import parse_rule
from keyturn.rules.table import RouteTable

from ..in_force import unready

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from keyturn.rules.conflicts import Conflict
    from keyturn.rules.state import Condition, RouteState, RuleState

    from ..client_view import ClientView
    from ..kube import Object
    from .clients import Row

MAX_RULES: Final = 5_000
PAGE_SIZE: Final = 100
# Clients with the same rights are judged together; more kinds than these are not looked at, and the page says so.
MAX_KINDS: Final = 2_000
MAX_NAMED: Final = 50


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One AccessRule: what its spec says, and what the operator says of it. `unready`: why it is not Ready; empty where it is."""

    ref: str
    name: str
    state: RuleState
    problems: tuple[str, ...]
    ready: str
    reason: str
    message: str
    unready: str


@dataclass(frozen=True, slots=True)
class RouteRow:
    """One route of one rule. `conflict`: the rules that decide it otherwise."""

    rule: RuleRow
    route: RouteState
    hosts: tuple[str, ...]
    conflict: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Callers:
    """Who may make a request. `everybody`: no token is needed. `unjudged`: how many clients were not looked at.

    `unready`: those of `names` that are not Ready, and why: what is in force of them may be less.
    """

    everybody: bool
    names: tuple[str, ...]
    count: int
    unjudged: int = 0
    unready: Mapping[str, str] = field(default_factory=dict)


class RuleIndex:
    """Made anew when a rule changes."""

    def __init__(self, rules: Sequence[RuleRow]) -> None:
        self.rules = rules
        self.table = RouteTable.build((rule.ref, rule.state) for rule in rules)
        self.conflicts: Mapping[str, list[Conflict]] = find_conflicts({rule.ref: rule.state for rule in rules})
        self.unready = tuple(rule for rule in rules if rule.unready)
        self.routes = tuple(
            _route_row(rule, route, self.conflicts.get(rule.ref, ())) for rule in rules for route in rule.state.routes
        )

    def search(self, text: str, number: int) -> tuple[Sequence[RouteRow], int, int, int]:
        """The routes on a page, its number, how many pages there are, and how many routes."""
        wanted = text.casefold()
        found = [row for row in self.routes if wanted in row.text]
        pages = max(1, -(-len(found) // PAGE_SIZE))
        number = min(max(1, number), pages)
        return found[(number - 1) * PAGE_SIZE : number * PAGE_SIZE], number, pages, len(found)

    def opened_by(self, permission: str, limit: int = 5) -> tuple[list[RouteRow], int]:
        """The routes whose condition names a permission, a few of them, and how many there are."""
        found = [row for row in self.routes if _names(row.route, permission)]
        return found[:limit], len(found)

    def callers(self, asked: Asked, rows: Iterable[Row], now: float) -> Callers:
        """The clients that this request would be let through for, with a token for all of their audiences.

        One of which nothing is in force is none of them.
        """
        match = self.table.match(asked.method, asked.target, asked.host, is_backoffice=asked.is_backoffice)
        if match.settled is not None:
            return Callers(match.settled.allowed, (), 0)
        judged: dict[tuple[frozenset[str], tuple[str, ...]], bool] = {}
        names: list[str] = []
        waiting: dict[str, str] = {}
        unjudged = 0
        for row in rows:
            client = row.client
            if not row.applied or is_stopped(client, now):
                continue
            key = (frozenset(row.held), client.audiences.granted)
            if key not in judged:
                if len(judged) >= MAX_KINDS:
                    unjudged += 1
                    continue
                subject = Subject(key[0], frozenset(), asked.client_type, asked.is_backoffice)
                judged[key] = match.evaluate(subject, key[1]).allowed
            if judged[key]:
                names.append(client.name)
                if row.unready and len(names) <= MAX_NAMED:
                    waiting[client.name] = row.unready
        return Callers(False, tuple(names[:MAX_NAMED]), len(names), unjudged, waiting)

    def account(
        self,
        asked: Asked,
        rows: Collection[Row],
        row: Row | None,
        described: tuple[Collection[str], Collection[str]] | None,
        now: float,
    ) -> dict[str, Any]:
        """The whole account of a decision, for a client, or for a caller with these permissions and audiences (None: without a token)."""
        permissions, audiences = described or ((), ())
        subject = None if described is None else Subject(frozenset(permissions))
        caller: dict[str, Any] = {"kind": "anonymous" if described is None else "described"}
        if row is not None:
            client = row.client
            subject, audiences = Subject(frozenset(row.held)), client.audiences.granted
            caller = {
                "kind": "client",
                "clientId": client.client_id,
                "object": f"{client.namespace}/{client.name}",
                "permissions": list(row.held),
                "audiences": list(audiences),
            }
            if not row.applied:
                subject = None
                said = f"nothing of the client is in force: {row.unready}"
                caller["problem"] = {"reason": "client_not_in_force", "description": said}
            elif is_stopped(client, now):
                subject = None
                word = "is suspended" if client.suspended else "has expired"
                caller["problem"] = {"reason": "client_stopped", "description": f"the client {word}"}
        return account_of(
            self.table,
            asked,
            subject=subject,
            audiences=audiences,
            caller=caller,
            holders=[(one.client.name, one.held) for one in rows],
        )


def rule_of(obj: Object) -> RuleRow:
    """What is kept of an AccessRule."""
    metadata = obj.get("metadata") or {}
    state, problems = parse_rule(obj.get("spec") or {}, None)
    conditions = (obj.get("status") or {}).get("conditions") or ()
    ready = next((one for one in conditions if isinstance(one, dict) and one.get("type") == "Ready"), {})
    current = ready.get("observedGeneration") == metadata.get("generation")
    name = str(metadata.get("name", ""))
    return RuleRow(
        ref=f"{metadata.get('namespace', '')}/{name}",
        name=name,
        state=state,
        problems=tuple(f"{one.field}: {one.message}" for one in problems),
        ready=str(ready.get("status", "Unknown")) if current else "Unknown",
        reason=str(ready.get("reason", "")) if current else "",
        message=str(ready.get("message", "")) if current else "",
        unready=unready(obj) or (problems[0].reason if problems else ""),
    )


def needs(condition: Condition) -> list[tuple[str, tuple[str, ...]]]:
    """What a condition asks for, as labels with permissions or with one text."""
    found: list[tuple[str, tuple[str, ...]]] = []
    if condition.deny is not None:
        found.append(("closed", (condition.deny,)))
    elif condition.public:
        found.append(("public", ()))
    if condition.all_of:
        found.append(("all of", condition.all_of))
    if condition.any_of:
        found.append(("one of", condition.any_of))
    if condition.expression is not None:
        found.append(("expression", (condition.expression,)))
    for other in condition.also:
        found += needs(other)
    return found


def is_stopped(client: ClientView, now: float) -> bool:
    return client.suspended or (client.expires_at is not None and client.expires_at <= now)


def _names(route: RouteState, permission: str) -> bool:
    return any(_condition_names(part, permission) for part in (route.main, route.backoffice) if part is not None)


def _condition_names(condition: Condition, permission: str) -> bool:
    return (
        permission in condition.any_of
        or permission in condition.all_of
        or (condition.expression is not None and f'"{permission}"' in condition.expression)
        or any(_condition_names(other, permission) for other in condition.also)
    )


def _route_row(rule: RuleRow, route: RouteState, conflicts: Iterable[Conflict]) -> RouteRow:
    conflict = sorted(
        {
            other
            for one in conflicts
            if one.path == route.path and one.method in route.methods
            for other in (one.others or (rule.ref,))
        }
    )
    asked = [text for part in (route.main, route.backoffice) if part for _, texts in needs(part) for text in texts]
    text = "\n".join((rule.name, route.path, *rule.state.hosts, *route.methods, *asked)).casefold()
    return RouteRow(rule, route, rule.state.hosts, tuple(conflict), text)
