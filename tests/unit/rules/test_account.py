"""What is told around a decision: contradictions that concern the request, and no others."""

import pytest

from keyturn.rules.account import Asked, account_of
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn.rules.table import RouteTable

ONE, OTHER = Condition(any_of=("one",)), Condition(any_of=("other",))


def rule(condition: Condition) -> RuleState:
    return RuleState(
        hosts=("*.example", "shop.example"),
        routes=(
            RouteState("/orders", ("GET", "POST"), condition),
            RouteState("/stock", ("ALL",), condition),
            RouteState("/alike", ("GET",), ONE),
        ),
    )


TABLE = RouteTable.build([("team/a", rule(ONE)), ("team/b", rule(OTHER))])


@pytest.mark.parametrize(
    ("method", "path", "host", "told"),
    [
        pytest.param("GET", "/orders/7", "shop.example", {("/orders", "GET", "shop.example")}, id="a method by name"),
        pytest.param("PUT", "/stock", "shop.example", {("/stock", "ALL", "shop.example")}, id="all methods"),
        pytest.param("GET", "/orders", "old.example", {("/orders", "GET", "*.example")}, id="a host by its suffix"),
        pytest.param("GET", "/alike", "shop.example", set(), id="a path on which they agree"),
        pytest.param("GET", "/nowhere", "shop.example", set(), id="a path that neither names"),
        pytest.param(
            "GET",
            "/orders",
            None,
            {("/orders", "GET", "shop.example"), ("/orders", "GET", "*.example")},
            id="any host, where it is not known",
        ),
    ],
)
def test_contradictions_are_told_of_what_was_asked(
    method: str, path: str, host: str | None, told: set[tuple[str, str, str]]
) -> None:
    body = account_of(TABLE, Asked(method, path.encode(), host), subject=None, audiences=(), caller={}, holders=())
    found = {(one["path"], one["method"], one["host"]) for one in body["conflicts"]}
    assert found == told
    assert [one["rule"] for one in body["conflicts"]] == sorted(["team/a", "team/b"] * len(told))
