"""The order of a decision, and what a caller has to meet."""

import pytest

from keyturn.expressions import Subject
from keyturn.rules import decision, guard
from keyturn.rules.decision import Outcome, decide
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn.rules.table import RouteTable


def table_of(condition: Condition, backoffice: Condition | None = None, audiences: tuple[str, ...] = ()) -> RouteTable:
    return RouteTable.build(
        [("shop/rule", RuleState(audiences=audiences, routes=(RouteState("/x", ("ALL",), condition, backoffice),)))]
    )


def caller(*permissions: str) -> Subject:
    return Subject(permissions=frozenset(permissions))


PUBLIC = Condition(public=True)


@pytest.mark.parametrize(
    ("condition", "subject", "outcome", "reason"),
    [
        pytest.param(PUBLIC, None, Outcome.ALLOW, decision.PUBLIC_ROUTE, id="public without a token"),
        pytest.param(PUBLIC, caller(), Outcome.ALLOW, decision.PUBLIC_ROUTE, id="public with a token"),
        pytest.param(
            Condition(all_of=("a",)), None, Outcome.UNAUTHENTICATED, decision.UNAUTHENTICATED, id="not logged in"
        ),
        pytest.param(
            Condition(expression="true"),
            None,
            Outcome.UNAUTHENTICATED,
            decision.UNAUTHENTICATED,
            id="true asks for a login",
        ),
        pytest.param(
            Condition(expression="true"), caller(), Outcome.ALLOW, decision.ALLOWED, id="true for who is logged in"
        ),
        pytest.param(Condition(all_of=("a", "b")), caller("a", "b"), Outcome.ALLOW, decision.ALLOWED, id="all of them"),
        pytest.param(
            Condition(all_of=("a", "b")), caller("a"), Outcome.FORBIDDEN, guard.MISSING_PERMISSION, id="not all of them"
        ),
        pytest.param(Condition(any_of=("a", "b")), caller("b"), Outcome.ALLOW, decision.ALLOWED, id="any of them"),
        pytest.param(
            Condition(any_of=("a", "b")), caller("c"), Outcome.FORBIDDEN, guard.MISSING_PERMISSION, id="none of them"
        ),
        pytest.param(
            Condition(any_of=("a",), all_of=("b",)),
            caller("a"),
            Outcome.FORBIDDEN,
            guard.MISSING_PERMISSION,
            id="any and all: any alone",
        ),
        pytest.param(
            Condition(any_of=("a",), all_of=("b",)),
            caller("b"),
            Outcome.FORBIDDEN,
            guard.MISSING_PERMISSION,
            id="any and all: all alone",
        ),
        pytest.param(
            Condition(any_of=("a",), all_of=("b",)), caller("a", "b"), Outcome.ALLOW, decision.ALLOWED, id="any and all"
        ),
        pytest.param(
            Condition(expression="permissions.a"),
            caller(),
            Outcome.FORBIDDEN,
            guard.EXPRESSION_FALSE,
            id="false expression",
        ),
        pytest.param(
            Condition(expression="nonsense"),
            caller(),
            Outcome.FORBIDDEN,
            guard.ROUTE_CLOSED,
            id="unreadable expression",
        ),
        pytest.param(Condition(), caller("a"), Outcome.FORBIDDEN, guard.ROUTE_CLOSED, id="no condition at all"),
        pytest.param(
            Condition(public=True, deny="x"),
            caller("a"),
            Outcome.FORBIDDEN,
            guard.ROUTE_CLOSED,
            id="closed though public",
        ),
        pytest.param(
            Condition(public=True, also=(Condition(all_of=("a",)),)),
            caller(),
            Outcome.FORBIDDEN,
            guard.MISSING_PERMISSION,
            id="a further condition not met",
        ),
        pytest.param(
            Condition(all_of=("b",), also=(Condition(all_of=("a",)),)),
            caller("a", "b"),
            Outcome.ALLOW,
            decision.ALLOWED,
            id="a further condition met",
        ),
    ],
)
def test_a_condition_is_met_or_not(
    condition: Condition, subject: Subject | None, outcome: Outcome, reason: str
) -> None:
    decided = decide(table_of(condition), method="GET", target=b"/x", host="h", subject=subject)
    assert (decided.outcome, decided.reason, decided.rule, decided.route) == (outcome, reason, "shop/rule", "/x")
    assert decided.allowed is (outcome is Outcome.ALLOW)


@pytest.mark.parametrize("subject", [None, caller("a")], ids=["without a token", "with a token"])
def test_an_unknown_route_needs_no_token_to_be_refused(subject: Subject | None) -> None:
    match = table_of(PUBLIC).match("GET", b"/y", "h")
    assert match.settled is not None
    assert match.evaluate(subject).outcome is Outcome.UNKNOWN_ROUTE


@pytest.mark.parametrize(
    ("audiences", "held", "outcome"),
    [
        pytest.param((), (), Outcome.ALLOW, id="the rule asks for none"),
        pytest.param(("orders",), ("orders", "x"), Outcome.ALLOW, id="one in common"),
        pytest.param(("orders",), ("x",), Outcome.FORBIDDEN, id="none in common"),
        pytest.param(("orders",), (), Outcome.FORBIDDEN, id="the token has none"),
    ],
)
def test_a_rule_narrows_the_audience(audiences: tuple[str, ...], held: tuple[str, ...], outcome: Outcome) -> None:
    table = table_of(Condition(all_of=("a",)), audiences=audiences)
    decided = decide(table, method="GET", target=b"/x", host="h", subject=caller("a"), audiences=held)
    assert decided.outcome is outcome


@pytest.mark.parametrize(
    ("backoffice", "is_backoffice", "outcome"),
    [
        pytest.param(Condition(all_of=("b",)), False, Outcome.ALLOW, id="main part"),
        pytest.param(Condition(all_of=("b",)), True, Outcome.FORBIDDEN, id="backoffice part"),
        pytest.param(None, True, Outcome.ALLOW, id="without one the main part"),
        pytest.param(PUBLIC, True, Outcome.ALLOW, id="public backoffice"),
    ],
)
def test_the_backoffice_part_decides_for_the_backoffice(
    backoffice: Condition | None, is_backoffice: bool, outcome: Outcome
) -> None:
    table = table_of(Condition(all_of=("a",)), backoffice)
    decided = decide(table, method="GET", target=b"/x", host="h", is_backoffice=is_backoffice, subject=caller("a"))
    assert decided.outcome is outcome
