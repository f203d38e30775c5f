"""What a namespace may use of an installation that watches more than its own."""

from typing import Any

import pytest

from keyturn import reasons
from keyturn.clients.state import ClientState
from keyturn.grants import Grant, Grants, InvalidGrants, bound_client, bound_rule
from keyturn.rules.state import Condition, RouteState, RuleState

CLIENT = ClientState(
    client_id="pay.billing",
    created_at=0.0,
    permissions=("pay.read", "pay.write", "shop.read"),
    audiences=("payments", "shop"),
    allowed_custom_claims=("tenant",),
)
RULE = RuleState(
    hosts=("pay.example", "shop.example"),
    routes=(
        RouteState("/pay", ("ALL",), Condition(any_of=("pay.read",))),
        RouteState("/pay/:id", ("GET",), Condition(any_of=("pay.read",))),
        RouteState("/payments", ("ALL",), Condition(public=True)),
        RouteState("/:any", ("ALL",), Condition(public=True)),
    ),
)


def grant(**members: Any) -> Grant:
    found = Grants.read("home", [{"namespace": "pay", **members}]).of("pay")
    assert found is not None
    return found


def test_the_releases_own_namespace_is_bound_by_nothing() -> None:
    grants = Grants.read("home", [])
    assert bound_client(CLIENT, grants.of("home")) == (CLIENT, [])
    assert bound_rule(RULE, grants.of("home")) == (RULE, [])


def test_a_namespace_without_a_grant_may_use_nothing() -> None:
    state, problems = bound_client(CLIENT, Grants.read("home", []).of("pay"))
    assert (state.permissions, state.audiences, state.allowed_custom_claims) == ((), (), ())
    assert [problem.field for problem in problems] == ["spec.permissions", "spec.audiences", "spec.allowedCustomClaims"]
    assert {problem.reason for problem in problems} == {reasons.NOT_GRANTED}
    rule, problems = bound_rule(RULE, Grants.read("home", []).of("pay"))
    assert rule.routes == ()
    assert [problem.field for problem in problems] == ["spec.hosts", "spec.routes"]


PERMISSIONS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "one by its name": (["pay.read"], ("pay.read",)),
    "all that begin alike": (["pay.*"], ("pay.read", "pay.write")),
    "all that end alike": (["*.read"], ("pay.read", "shop.read")),
    "all": (["*"], ("pay.read", "pay.write", "shop.read")),
    "a dot is a dot": (["pay?read", "pay.rea"], ()),
    "several patterns": (["pay.write", "shop.*"], ("pay.write", "shop.read")),
}


@pytest.mark.parametrize(("patterns", "left"), PERMISSIONS.values(), ids=PERMISSIONS)
def test_permissions_are_granted_by_patterns(patterns: list[str], left: tuple[str, ...]) -> None:
    state, problems = bound_client(CLIENT, grant(permissions=patterns, audiences=["*"], customClaims=["*"]))
    assert state.permissions == left
    assert [problem.field for problem in problems] == ([] if len(left) == 3 else ["spec.permissions"])


def test_a_client_whose_every_audience_is_refused_gets_no_token_for_the_issuer_instead() -> None:
    state, _ = bound_client(CLIENT, grant(permissions=["*"]))
    assert state.audiences == ()
    assert state.suspended


def test_a_client_that_asks_for_no_audience_is_not_stopped() -> None:
    state, problems = bound_client(ClientState(client_id="pay.billing", created_at=0.0), grant())
    assert (state.suspended, problems) == (False, [])


def test_only_the_releases_namespace_has_clients_that_look_at_others_tokens() -> None:
    curious = ClientState(client_id="pay.billing", created_at=0.0, introspection="any")
    state, problems = bound_client(curious, grant(permissions=["*"], audiences=["*"]))
    assert state.introspection == "own"
    assert [problem.field for problem in problems] == ["spec.introspection"]


HOSTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "one by its name": (["pay.example"], ("pay.example",)),
    "in any case": (["PAY.example"], ("pay.example",)),
    "all below a domain": (["*.example"], ("pay.example", "shop.example")),
    "any": (["*"], ("pay.example", "shop.example")),
    "no part of a name": (["y.example", "*.pay.example"], ()),
}


@pytest.mark.parametrize(("patterns", "left"), HOSTS.values(), ids=HOSTS)
def test_hosts_are_granted_by_patterns(patterns: list[str], left: tuple[str, ...]) -> None:
    rule, _ = bound_rule(RULE, grant(hosts=patterns, paths=["/"]))
    assert rule.hosts == left
    assert bool(rule.routes) == bool(left)


def test_a_wildcard_host_is_covered_by_its_own_domain_and_not_by_a_deeper_one() -> None:
    wild = RuleState(hosts=("*.shop.example",), routes=RULE.routes)
    assert bound_rule(wild, grant(hosts=["*.shop.example"], paths=["/"]))[0].hosts == ("*.shop.example",)
    assert bound_rule(wild, grant(hosts=["a.shop.example"], paths=["/"]))[0].hosts == ()


def test_a_rule_for_every_host_needs_every_host() -> None:
    everywhere = RuleState(routes=RULE.routes)
    assert bound_rule(everywhere, grant(hosts=["*.example"], paths=["/"]))[0].routes == ()
    assert bound_rule(everywhere, grant(hosts=["*"], paths=["/"])) == (everywhere, [])


PATHS: dict[str, tuple[list[str], list[str]]] = {
    "a path and what lies below it": (["/pay"], ["/pay", "/pay/:id"]),
    "on whole segments": (["/pay/"], ["/pay", "/pay/:id"]),
    "everything": (["/"], ["/pay", "/pay/:id", "/payments", "/:any"]),
    "nothing by a parameter": (["/orders"], []),
}


@pytest.mark.parametrize(("prefixes", "left"), PATHS.values(), ids=PATHS)
def test_paths_are_granted_by_prefixes(prefixes: list[str], left: list[str]) -> None:
    rule, _ = bound_rule(RULE, grant(hosts=["*"], paths=prefixes))
    assert [route.path for route in rule.routes] == left


def test_what_several_entries_grant_a_namespace_adds_up() -> None:
    grants = Grants.read(
        "home", [{"namespace": "pay", "permissions": ["a"]}, {"namespace": "pay", "permissions": ["b"]}]
    )
    assert grants.of("pay") == Grant(permissions=("a", "b"))


MISTAKES: dict[str, tuple[object, str]] = {
    "no list": ({"namespace": "pay"}, "grants must be a list"),
    "no namespace": ([{"permissions": ["a"]}], r"grants\[0\] must name a namespace"),
    "an entry that is no object": (["pay"], r"grants\[0\] must name a namespace"),
    "an unknown member": ([{"namespace": "pay", "scopes": []}], r"grants\[0\]: there is no member 'scopes'"),
    "a text for a list": ([{"namespace": "pay", "permissions": "*"}], r"grants\[0\]\.permissions must be a list"),
    "an empty pattern": ([{"namespace": "pay", "audiences": [""]}], r"grants\[0\]\.audiences must be a list"),
    "a path without a slash": ([{"namespace": "pay", "paths": ["pay"]}], r"grants\[0\]\.paths must begin with a slash"),
}


@pytest.mark.parametrize(("document", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_grants_names_its_place(document: object, words: str) -> None:
    with pytest.raises(InvalidGrants, match=words):
        Grants.read("home", document)
