"""Why a request is decided as it is: each reading of its path, the routes that decide it, and each condition part by part.

The decision itself comes from `RouteTable.match`, the same code that answers gateways; this module only looks at it from close by.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from keyturn.expressions import Expression, ExpressionError, Subject, compile_expression
from keyturn.rules.decision import Decision, Requirement
from keyturn.rules.paths import Refused, readings
from keyturn.rules.state import METHODS, Condition
from keyturn.rules.table import RouteTable, hosts_of

LOGIN: Final = "login"
AUDIENCES: Final = "audiences"
PUBLIC: Final = "public"
ALL_OF: Final = "allOf"
ANY_OF: Final = "anyOf"
EXPRESSION: Final = "expression"
CLOSED: Final = "closed"

_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DOTTED: Final = re.compile(r"permissions\s*\.\s*([A-Za-z_][\w-]*)")


@dataclass(frozen=True, slots=True)
class TermResult:
    """One elementary test of an expression: its text, its 1-based column, and what it came to."""

    text: str
    position: int
    held: bool


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a route asks. `kind` is a constant of this module, `text` what is asked.

    `missing` are the permissions that the caller lacks; with `one_suffices` any of them would do, else all are needed. It is empty
    where no permission would help.
    """

    kind: str
    text: str
    held: bool
    missing: tuple[str, ...] = ()
    one_suffices: bool = False
    terms: tuple[TermResult, ...] = ()

    def to_body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"kind": self.kind, "text": self.text, "held": self.held}
        if self.missing:
            body["missing"] = {"anyOf" if self.one_suffices else "allOf": list(self.missing)}
        if self.terms:
            body["terms"] = [{"text": term.text, "position": term.position, "held": term.held} for term in self.terms]
        return body


@dataclass(frozen=True, slots=True)
class RouteExplanation:
    """One route that decides a reading: its rule (`namespace/name`), its path as the rule writes it, and what it asks."""

    rule: str
    route: str
    passes: bool
    checks: tuple[Check, ...]

    def to_body(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "route": self.route,
            "passes": self.passes,
            "checks": [check.to_body() for check in self.checks],
        }


@dataclass(frozen=True, slots=True)
class ReadingExplanation:
    """One way to read the path, for one host (None: not known). Without routes, nothing covers it and it is denied."""

    segments: tuple[str, ...]
    host: str | None
    routes: tuple[RouteExplanation, ...]

    def to_body(self) -> dict[str, Any]:
        return {
            "segments": list(self.segments),
            "host": self.host,
            "routes": [route.to_body() for route in self.routes],
        }


@dataclass(frozen=True, slots=True)
class AuditExplanation:
    """What the decision would be if this rule under Audit were in force as well."""

    rule: str
    decision: Decision
    readings: tuple[ReadingExplanation, ...]

    def to_body(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "decision": _decision_body(self.decision),
            "readings": [reading.to_body() for reading in self.readings],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and how it came about. `refused` says why the path cannot be read at all; then there are no readings.

    `audits` are of the rules under Audit that cover the request; they decide nothing.
    """

    decision: Decision
    refused: str | None
    readings: tuple[ReadingExplanation, ...]
    audits: tuple[AuditExplanation, ...] = ()

    def to_body(self) -> dict[str, Any]:
        """JSON; what shows explanations works on this form, wherever the decision was made."""
        return {
            "decision": _decision_body(self.decision),
            "refused": self.refused,
            "readings": [reading.to_body() for reading in self.readings],
            "audits": [audit.to_body() for audit in self.audits],
        }


def _decision_body(decision: Decision) -> dict[str, Any]:
    return {
        "outcome": decision.outcome.value,
        "reason": decision.reason,
        "rule": decision.rule,
        "route": decision.route,
        "public": decision.public,
        "description": decision.description,
    }


def explain(
    table: RouteTable,
    *,
    method: str,
    target: bytes,
    host: str | None,
    is_backoffice: bool = False,
    subject: Subject | None = None,
    audiences: Collection[str] = (),
) -> Explanation:
    """The decision for a request with what led to it; the arguments are those of `decision.decide`. Never raises."""
    match = table.match(method, target, host, is_backoffice=is_backoffice)
    made = match.evaluate(subject, audiences)
    read = readings(target)
    if isinstance(read, Refused):
        return Explanation(made, read.description, ())
    if method not in METHODS:
        return Explanation(made, None, tuple(ReadingExplanation(segments, None, ()) for segments in read.readings))
    places = [(segments, name) for segments in read.readings for name in hosts_of(host, read.host)]

    def looked_at(table: RouteTable) -> tuple[ReadingExplanation, ...]:
        return tuple(
            ReadingExplanation(
                segments,
                name,
                tuple(
                    _route(requirement, subject, audiences, is_backoffice=is_backoffice)
                    for requirement in table.requirements(method, segments, name, is_backoffice=is_backoffice)
                ),
            )
            for segments, name in places
        )

    audits = tuple(
        AuditExplanation(audit.rule, audit.match.evaluate(subject, audiences), looked_at(table.shadow(audit.rule)))
        for audit in match.audits
    )
    return Explanation(made, None, looked_at(table), audits)


def _route(
    requirement: Requirement, subject: Subject | None, audiences: Collection[str], *, is_backoffice: bool
) -> RouteExplanation:
    checks: list[Check] = []
    if not requirement.guard.open:
        checks.append(Check(LOGIN, "a caller with a valid token", subject is not None))
        if requirement.audiences:
            held = subject is not None and not requirement.audiences.isdisjoint(audiences)
            checks.append(Check(AUDIENCES, ", ".join(sorted(requirement.audiences)), held))
    # What a route asks is worth telling without a caller too: then as for one without any permission.
    asking = Subject(is_backoffice=is_backoffice) if subject is None else subject
    checks.extend(_checks(requirement.guard.condition, asking))
    return RouteExplanation(requirement.rule, requirement.route, all(check.held for check in checks), tuple(checks))


def _checks(condition: Condition, subject: Subject) -> Iterator[Check]:
    if condition.deny is not None:
        yield Check(CLOSED, condition.deny, held=False)
    if condition.public:
        yield Check(PUBLIC, "anybody", held=condition.deny is None)
    elif condition.deny is None and not condition.all_of and not condition.any_of and condition.expression is None:
        yield Check(CLOSED, "the route has no condition", held=False)
    if condition.all_of:
        missing = tuple(name for name in condition.all_of if name not in subject.permissions)
        yield Check(ALL_OF, ", ".join(condition.all_of), not missing, missing)
    if condition.any_of:
        held = not subject.permissions.isdisjoint(condition.any_of)
        yield Check(ANY_OF, ", ".join(condition.any_of), held, () if held else condition.any_of, one_suffices=True)
    if condition.expression is not None:
        yield _expression(condition.expression, subject)
    for other in condition.also:
        yield from _checks(other, subject)


def _expression(text: str, subject: Subject) -> Check:
    try:
        expression = compile_expression(text)
    except ExpressionError as error:
        return Check(CLOSED, f"the expression cannot be read: {error}", held=False)
    terms = tuple(TermResult(term.text, term.position, term.test(subject)) for term in expression.terms)
    if expression.evaluate(subject):
        return Check(EXPRESSION, text, True, terms=terms)
    missing, one_suffices = _lacking(expression, subject)
    return Check(EXPRESSION, text, False, missing, one_suffices, terms)


def _lacking(expression: Expression, subject: Subject) -> tuple[tuple[str, ...], bool]:
    """Which permissions would make the expression true: found by trying, so that `!` and `||` are judged as they are meant."""
    named = dict.fromkeys(
        name for term in expression.terms if not term.test(subject) for name in _permissions(term.text)
    )
    single = tuple(name for name in named if expression.evaluate(_with(subject, [name])))
    if single:
        return single, True
    needed = list(named)
    if not expression.evaluate(_with(subject, needed)):
        return (), False
    for name in named:
        fewer = [other for other in needed if other != name]
        if expression.evaluate(_with(subject, fewer)):
            needed = fewer
    return tuple(needed), False


def _permissions(term: str) -> Iterator[str]:
    """The permissions that an elementary test names; it may name something else that looks alike, which trying it will tell."""
    yield from (re.sub(r"\\(.)", r"\1", found) for found in _QUOTED.findall(term))
    yield from _DOTTED.findall(term)


def _with(subject: Subject, permissions: Collection[str]) -> Subject:
    return replace(subject, permissions=subject.permissions.union(permissions))
