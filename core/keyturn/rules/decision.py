"""What a request comes to: the part that needs no token first, then who asks.

The order: an unknown route (or a path that cannot be trusted) is refused with or without a token; a public route is open
whatever the token; then a caller is needed; then the caller must meet the condition of every route that decides the request
(several where rules contradict one another or the path can be read in several ways).
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from keyturn.expressions import Subject
from keyturn.rules.guard import Guard

if TYPE_CHECKING:
    from keyturn.rules.table import RouteTable

ALLOWED: Final = "Allowed"
PUBLIC_ROUTE: Final = "PublicRoute"
UNKNOWN: Final = "UnknownRoute"
PATH_REFUSED: Final = "PathRefused"
UNAUTHENTICATED: Final = "Unauthenticated"
AUDIENCE_NOT_ALLOWED: Final = "AudienceNotAllowed"


class Outcome(StrEnum):
    """What the gateway is told: 200, 403, 401, 403."""

    ALLOW = "Allow"
    UNKNOWN_ROUTE = "UnknownRoute"
    UNAUTHENTICATED = "Unauthenticated"
    FORBIDDEN = "Forbidden"


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, its reason (a constant of this module or of `keyturn.rules.guard`), and the rule and route that decided.

    `rule` is `namespace/name`, `route` the path as the rule writes it; both None for an unknown route. `description` is for
    the log, it names what is missing: the caller is not told how a rule is made.
    """

    outcome: Outcome
    reason: str
    rule: str | None = None
    route: str | None = None
    public: bool = False
    description: str = ""

    @property
    def allowed(self) -> bool:
        return self.outcome is Outcome.ALLOW


@dataclass(frozen=True, slots=True, eq=False)
class Requirement:
    """One route's condition with where it comes from."""

    rule: str
    route: str
    guard: Guard
    audiences: frozenset[str]


@dataclass(frozen=True, slots=True)
class Audit:
    """What a rule under Audit says of a request: `match` is what would decide it if this rule were in force as well."""

    rule: str
    match: "Match"


@dataclass(frozen=True, slots=True)
class Match:
    """The routes that decide one request. `settled` is the decision where it needs no token; else evaluate a caller.

    `audits` are of the rules under Audit that cover the request; they change nothing about the decision.
    """

    settled: Decision | None
    requirements: tuple[Requirement, ...] = field(default=())
    audits: tuple[Audit, ...] = field(default=())

    def evaluate(self, subject: Subject | None, audiences: Collection[str] = ()) -> Decision:
        """The decision for a caller (None: nobody is logged in). `audiences` are those in effect of the caller's token."""
        if self.settled is not None:
            return self.settled
        first = self.requirements[0]
        if subject is None:
            return Decision(Outcome.UNAUTHENTICATED, UNAUTHENTICATED, first.rule, first.route)
        for requirement in self.requirements:
            guard = requirement.guard
            if guard.open:
                continue
            if requirement.audiences and requirement.audiences.isdisjoint(audiences):
                return Decision(
                    Outcome.FORBIDDEN,
                    AUDIENCE_NOT_ALLOWED,
                    requirement.rule,
                    requirement.route,
                    description="The token is for none of the rule's audiences",
                )
            failure = guard.failure(subject)
            if failure is not None:
                return Decision(
                    Outcome.FORBIDDEN,
                    failure.reason,
                    requirement.rule,
                    requirement.route,
                    description=failure.description,
                )
        return Decision(Outcome.ALLOW, ALLOWED, first.rule, first.route)


def would_deny(match: Match, subject: Subject | None, audiences: Collection[str] = ()) -> list[tuple[str, Decision]]:
    """The rules under Audit that would deny what was allowed, each with the decision that it would lead to."""
    found = ((audit.rule, audit.match.evaluate(subject, audiences)) for audit in match.audits)
    return [(rule, decision) for rule, decision in found if not decision.allowed]


def refused(description: str) -> Match:
    """Nobody passes: the path cannot be trusted."""
    return Match(Decision(Outcome.FORBIDDEN, PATH_REFUSED, description=description))


def unknown(description: str = "No rule names this host, path and method") -> Match:
    """Nobody passes: no rule speaks of this request."""
    return Match(Decision(Outcome.UNKNOWN_ROUTE, UNKNOWN, description=description))


def matched(requirements: tuple[Requirement, ...]) -> Match:
    """The routes that all must let a request pass; at least one."""
    if all(requirement.guard.open for requirement in requirements):
        first = requirements[0]
        return Match(Decision(Outcome.ALLOW, PUBLIC_ROUTE, first.rule, first.route, public=True), requirements)
    # The first one stands in answers to those who are not logged in: one that asks for a login.
    return Match(None, tuple(sorted(requirements, key=lambda requirement: requirement.guard.open)))


def decide(
    table: "RouteTable",
    *,
    method: str,
    target: bytes,
    host: str | None,
    is_backoffice: bool = False,
    subject: Subject | None = None,
    audiences: Collection[str] = (),
) -> Decision:
    """Both steps at once, for callers that know who asks: the strictest decision over all readings and all rules."""
    return table.match(method, target, host, is_backoffice=is_backoffice).evaluate(subject, audiences)
