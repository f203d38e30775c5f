"""Which rules contradict one another, and which only look like it."""

from dataclasses import replace

import pytest

from keyturn.rules.conflicts import Conflict, find_conflicts
from keyturn.rules.state import Condition, RouteState, RuleState

A = Condition(all_of=("a",))
B = Condition(all_of=("b",))


def rule(
    path: str,
    condition: Condition,
    methods: tuple[str, ...] = ("GET",),
    hosts: tuple[str, ...] = (),
    audiences: tuple[str, ...] = (),
    backoffice: Condition | None = None,
) -> RuleState:
    return RuleState(hosts, audiences, routes=(RouteState(path, methods, condition, backoffice),))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(rule("/x", A), rule("/x", B), id="conditions"),
        pytest.param(rule("/x", A), rule("/x/", B), id="a trailing slash is the same path"),
        pytest.param(rule("/:a/x", A), rule("/:b/x", B), id="parameters of other names are the same path"),
        pytest.param(rule("/x", A), rule("/x", A, backoffice=B), id="backoffice parts"),
        pytest.param(rule("/x", A), rule("/x", A, audiences=("s",)), id="audiences"),
        pytest.param(rule("/x", A, ("GET", "POST")), rule("/x", B, ("GET", "PUT")), id="one method in common"),
        pytest.param(rule("/x", A, hosts=("h", "g")), rule("/x", B, hosts=("h", "f")), id="one host in common"),
    ],
)
def test_the_same_place_decided_differently_is_a_conflict_of_both(one: RuleState, other: RuleState) -> None:
    found = find_conflicts({"n/one": one, "n/other": other})
    host = "h" if one.hosts else ""
    assert found == {
        "n/one": [Conflict(("n/other",), host, one.routes[0].path, "GET")],
        "n/other": [Conflict(("n/one",), host, other.routes[0].path, "GET")],
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(rule("/x", A), rule("/x", A), id="the same condition"),
        pytest.param(
            rule("/x", A), replace(rule("/x", B), mode="Audit"), id="a rule under Audit, which decides nothing"
        ),
        pytest.param(
            rule("/x", A, backoffice=A), rule("/x", A), id="a backoffice part that says what the main one does"
        ),
        pytest.param(rule("/x", A, audiences=("a", "b")), rule("/x", A, audiences=("b", "a")), id="the same audiences"),
        pytest.param(rule("/x", A), rule("/y", B), id="another path"),
        pytest.param(rule("/x", A), rule("/x/y", B), id="a longer path"),
        pytest.param(rule("/:a", A), rule("/x", B), id="a parameter and a literal"),
        pytest.param(rule("/:a", A), rule("/*", B), id="a parameter and a wildcard"),
        pytest.param(rule("/x", A), rule("/x", B, ("ALL",)), id="a method and ALL"),
        pytest.param(rule("/x", A), rule("/x", B, ("POST",)), id="another method"),
        pytest.param(rule("/x", A, hosts=("a.h",)), rule("/x", B, hosts=("*.h",)), id="a host and its suffix"),
        pytest.param(rule("/x", A, hosts=("h",)), rule("/x", B), id="a host and no host"),
    ],
)
def test_an_order_or_one_meaning_is_no_conflict(one: RuleState, other: RuleState) -> None:
    assert find_conflicts({"n/one": one, "n/other": other}) == {}


def test_a_rule_can_contradict_itself() -> None:
    state = RuleState(routes=(RouteState("/x", ("GET",), A), RouteState("/x/", ("GET",), B)))
    assert find_conflicts({"n/one": state}) == {"n/one": [Conflict(("n/one",), "", "/x", "GET")]}


def test_only_those_who_differ_are_named() -> None:
    found = find_conflicts({"n/a": rule("/x", A), "n/b": rule("/x", A), "n/c": rule("/x", B), "n/d": rule("/y", B)})
    assert {ref: conflicts[0].others for ref, conflicts in found.items()} == {
        "n/a": ("n/c",),
        "n/b": ("n/c",),
        "n/c": ("n/a", "n/b"),
    }
