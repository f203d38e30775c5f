"""From a spec to what is in force: the forms that are accepted, and each mistake by its field."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn import reasons
from keyturn.rules.parse import parse_rule
from keyturn.rules.state import Condition, RouteState, RuleState

PUBLIC = Condition(public=True)


def spec(**members: Any) -> dict[str, Any]:
    """A spec with one route; members replace those of the spec (hosts, audiences, mode, routes) or else of the route."""
    of_spec = {name: members.pop(name) for name in ("hosts", "audiences", "mode", "routes", "color") if name in members}
    route: dict[str, Any] = {"path": "/a", "expression": "permissions.x"} | members
    return {"routes": [{name: value for name, value in route.items() if value is not ...}]} | of_spec


@pytest.mark.parametrize(
    ("given_spec", "expected"),
    [
        pytest.param(
            {"routes": [{"path": "/a", "public": True}]},
            RuleState(routes=(RouteState("/a", ("ALL",), PUBLIC),)),
            id="the least",
        ),
        pytest.param(
            {
                "hosts": ["*.shop.example", "shop.example", "[::1]", "localhost"],
                "audiences": ["https://orders", "b"],
                "mode": "Enforce",
                "routes": [
                    {
                        "path": "/orders/:id/*",
                        "methods": ["POST", "GET"],
                        "permissions": {"anyOf": ["b", "a", "b"], "allOf": ["c"]},
                        "backoffice": {"expression": "groups.ops"},
                    }
                ],
            },
            RuleState(
                ("*.shop.example", "[::1]", "localhost", "shop.example"),
                ("b", "https://orders"),
                routes=(
                    RouteState(
                        "/orders/:id/*",
                        ("GET", "POST"),
                        Condition(any_of=("a", "b"), all_of=("c",)),
                        Condition(expression="groups.ops"),
                    ),
                ),
            ),
            id="everything, in its normal form",
        ),
        pytest.param(
            spec(methods=["GET", "ALL"], public=False),
            RuleState(routes=(RouteState("/a", ("ALL",), Condition(expression="permissions.x")),)),
            id="ALL takes in the others and public false is nothing",
        ),
        pytest.param(
            spec(methods=[], hosts=[], audiences=[]),
            RuleState(routes=(RouteState("/a", ("ALL",), Condition(expression="permissions.x")),)),
            id="empty lists are as absent ones",
        ),
    ],
)
def test_a_valid_spec_is_in_force_as_it_stands(given_spec: dict[str, Any], expected: RuleState) -> None:
    assert parse_rule(given_spec, RuleState(routes=(RouteState("/old", ("ALL",), PUBLIC),))) == (expected, [])


@pytest.mark.parametrize(
    ("given_spec", "reason", "field", "part"),
    [
        pytest.param({}, reasons.INVALID_SPEC, "spec.routes", "list", id="no routes"),
        pytest.param({"routes": []}, reasons.INVALID_SPEC, "spec.routes", "At least one", id="an empty list of routes"),
        pytest.param({"routes": ["x"]}, reasons.INVALID_SPEC, "spec.routes[0]", "object", id="a route that is none"),
        pytest.param(
            {"routes": [{"path": "/a", "public": True}] * 1001},
            reasons.INVALID_SPEC,
            "spec.routes",
            "1000",
            id="too many",
        ),
        pytest.param(
            spec(mode="Warn"), reasons.UNSUPPORTED_FIELD, "spec.mode", "Enforce and Audit", id="a mode of later"
        ),
        pytest.param(spec(color=1), reasons.UNSUPPORTED_FIELD, "spec.color", "does not know", id="a field of later"),
        pytest.param(
            spec(rate=1), reasons.UNSUPPORTED_FIELD, "spec.routes[0].rate", "does not know", id="and of a route"
        ),
        pytest.param(
            spec(backoffice={"public": True, "path": "/"}),
            reasons.UNSUPPORTED_FIELD,
            "spec.routes[0].backoffice.path",
            "does not know",
            id="and of a backoffice part",
        ),
        pytest.param(
            spec(expression=..., permissions={"anyOf": ["a"], "noneOf": ["b"]}),
            reasons.UNSUPPORTED_FIELD,
            "spec.routes[0].permissions.noneOf",
            "does not know",
            id="and of permissions",
        ),
        pytest.param(spec(path=...), reasons.INVALID_PATH, "spec.routes[0].path", "needs a path", id="no path"),
        pytest.param(spec(path="a"), reasons.INVALID_PATH, "spec.routes[0].path", "begins with /", id="no slash"),
        pytest.param(spec(path="/a?b"), reasons.INVALID_PATH, "spec.routes[0].path", "holds no ?", id="a query"),
        pytest.param(spec(path="/a#b"), reasons.INVALID_PATH, "spec.routes[0].path", "holds no #", id="a fragment"),
        pytest.param(spec(path="/a%20b"), reasons.INVALID_PATH, "spec.routes[0].path", "holds no %", id="an escape"),
        pytest.param(spec(path="/a;b"), reasons.INVALID_PATH, "spec.routes[0].path", "holds no ;", id="a parameter"),
        pytest.param(spec(path="/a\\b"), reasons.INVALID_PATH, "spec.routes[0].path", "holds no \\", id="a backslash"),
        pytest.param(spec(path='/a"b'), reasons.INVALID_PATH, "spec.routes[0].path", 'holds no "', id="a quote"),
        pytest.param(spec(path="/a b"), reasons.INVALID_PATH, "spec.routes[0].path", "space", id="a space"),
        pytest.param(
            spec(path="/a\x00"), reasons.INVALID_PATH, "spec.routes[0].path", "control", id="a control character"
        ),
        pytest.param(
            spec(path="/a//b"), reasons.INVALID_PATH, "spec.routes[0].path", "empty segment", id="two slashes"
        ),
        pytest.param(spec(path="//"), reasons.INVALID_PATH, "spec.routes[0].path", "empty segment", id="slashes only"),
        pytest.param(
            spec(path="/a/../b"), reasons.INVALID_PATH, "spec.routes[0].path", "dot segments", id="dot segments"
        ),
        pytest.param(
            spec(path="/a/*/b"), reasons.INVALID_PATH, "spec.routes[0].path", "last segment", id="* in between"
        ),
        pytest.param(spec(path="/a*"), reasons.INVALID_PATH, "spec.routes[0].path", "whole last", id="* in a segment"),
        pytest.param(
            spec(path="/:"), reasons.INVALID_PATH, "spec.routes[0].path", "parameter", id="no parameter's name"
        ),
        pytest.param(
            spec(path="/" + "a" * 1024), reasons.INVALID_PATH, "spec.routes[0].path", "1024", id="a long path"
        ),
        pytest.param(
            spec(path="/a" * 65), reasons.INVALID_PATH, "spec.routes[0].path", "64 segments", id="a deep path"
        ),
        pytest.param(spec(methods=["TRACE"]), reasons.INVALID_SPEC, "spec.routes[0].methods[0]", "GET", id="a method"),
        pytest.param(
            spec(methods=["get"]), reasons.INVALID_SPEC, "spec.routes[0].methods[0]", "GET", id="in lower case"
        ),
        pytest.param(
            spec(methods="GET"), reasons.INVALID_SPEC, "spec.routes[0].methods", "list", id="no list of methods"
        ),
        pytest.param(
            spec(hosts=["Shop.example"]), reasons.INVALID_SPEC, "spec.hosts[0]", "Not a host", id="upper case"
        ),
        pytest.param(spec(hosts=["a", "b:80"]), reasons.INVALID_SPEC, "spec.hosts[1]", "Not a host", id="a port"),
        pytest.param(spec(hosts=["*"]), reasons.INVALID_SPEC, "spec.hosts[0]", "Not a host", id="a bare star"),
        pytest.param(
            spec(hosts=["a.*.b"]), reasons.INVALID_SPEC, "spec.hosts[0]", "Not a host", id="a star in between"
        ),
        pytest.param(spec(hosts=["a" * 254]), reasons.INVALID_SPEC, "spec.hosts[0]", "253", id="a long host"),
        pytest.param(spec(hosts=[7]), reasons.INVALID_SPEC, "spec.hosts[0]", "text", id="a number for a host"),
        pytest.param(spec(audiences=["a b"]), reasons.INVALID_SPEC, "spec.audiences[0]", "visible", id="an audience"),
        pytest.param(spec(expression=...), reasons.INVALID_SPEC, "spec.routes[0]", "exactly one", id="no condition"),
        pytest.param(spec(public=True), reasons.INVALID_SPEC, "spec.routes[0]", "exactly one", id="two conditions"),
        pytest.param(
            spec(public="yes"), reasons.INVALID_SPEC, "spec.routes[0].public", "true or false", id="public: yes"
        ),
        pytest.param(
            spec(expression=..., public=False),
            reasons.INVALID_SPEC,
            "spec.routes[0]",
            "exactly one",
            id="public: false alone",
        ),
        pytest.param(
            spec(expression="true && rolls.x"),
            reasons.INVALID_EXPRESSION,
            "spec.routes[0].expression",
            "column 9",
            id="an expression, with the position",
        ),
        pytest.param(
            spec(backoffice={"expression": "("}),
            reasons.INVALID_EXPRESSION,
            "spec.routes[0].backoffice.expression",
            "column 2",
            id="a backoffice expression",
        ),
        pytest.param(
            spec(backoffice="x"), reasons.INVALID_SPEC, "spec.routes[0].backoffice", "object", id="backoffice"
        ),
        pytest.param(
            spec(expression=..., permissions={}),
            reasons.INVALID_SPEC,
            "spec.routes[0].permissions",
            "at least one",
            id="none",
        ),
        pytest.param(
            spec(expression=..., permissions={"anyOf": []}),
            reasons.INVALID_SPEC,
            "spec.routes[0].permissions.anyOf",
            "At least one",
            id="an empty list of permissions",
        ),
        pytest.param(
            spec(expression=..., permissions={"allOf": ["ok", 'a"b']}),
            reasons.INVALID_SPEC,
            "spec.routes[0].permissions.allOf[1]",
            "visible ASCII",
            id="a permission that is no scope-token",
        ),
        pytest.param(
            spec(expression=..., permissions={"allOf": ["a" * 257]}),
            reasons.INVALID_SPEC,
            "spec.routes[0].permissions.allOf[0]",
            "256",
            id="a long permission",
        ),
    ],
)
def test_a_mistake_is_told_by_its_field_and_opens_nothing(
    given_spec: dict[str, Any], reason: str, field: str, part: str
) -> None:
    state, problems = parse_rule(given_spec, None)
    assert [(problem.reason, problem.field) for problem in problems] == [(reason, field)]
    assert part in problems[0].message
    assert all(route.main.deny and route.backoffice is None for route in state.routes)


@pytest.mark.parametrize(
    "path",
    ["/", "/a", "/a/", "/a.b/~c/-_", "/v1/things:batch", "/caffè", "/:id/:other-id", "/*", "/a/...", "/@me/a+b=c,d"],
)
def test_paths_of_many_forms_are_allowed(path: str) -> None:
    state, problems = parse_rule(spec(path=path), None)
    assert (state.routes[0].path, problems) == (path, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "/a", "GET", "true", "public"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["path", "methods", "public", "expression", "permissions", "anyOf"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["hosts", "audiences", "mode", "routes", "x"]), JSON, max_size=4))
def test_any_json_is_parsed_or_reported(anything: dict[str, Any]) -> None:
    state, problems = parse_rule(anything, None)
    assert problems or state.routes
    assert RuleState.from_body(state.to_body()) == state


def test_a_body_gives_back_the_state() -> None:
    both = Condition(any_of=("a",), all_of=("b",), also=(Condition(expression="true"), Condition(deny="x")))
    state = RuleState(
        ("h",), ("a",), routes=(RouteState("/a", ("GET",), both, PUBLIC), RouteState("/b", ("ALL",), PUBLIC))
    )
    assert RuleState.from_body(state.to_body()) == state
