"""Explanations: the same decision as the gateway's, and the parts that led to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.expressions import Subject
from keyturn.rules import explain as explaining
from keyturn.rules.decision import decide
from keyturn.rules.explain import Check, Explanation, explain
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn.rules.table import RouteTable

CONDITIONS = [
    Condition(public=True),
    Condition(any_of=("p", "q")),
    Condition(all_of=("p", "q")),
    Condition(any_of=("p",), all_of=("q",)),
    Condition(expression="!isBackoffice && permissions.p"),
    Condition(expression='clientType == "app" || !permissions.q'),
    Condition(deny="InvalidEdit"),
    Condition(),
    Condition(public=True, also=(Condition(any_of=("p",)),)),
    Condition(expression="no expression ("),
]
ROUTES = st.builds(
    lambda path, methods, main, backoffice: RouteState(path, methods, main, backoffice),
    st.sampled_from(["/", "/a", "/a/b", "/a/:id", "/b", "/b/*"]),
    st.sampled_from([("ALL",), ("GET",), ("GET", "POST")]),
    st.sampled_from(CONDITIONS),
    st.none() | st.sampled_from(CONDITIONS),
)
RULES = st.builds(
    lambda hosts, audiences, routes: RuleState(hosts, audiences, routes=tuple(routes)),
    st.sampled_from([(), ("shop.example",), ("*.example",)]),
    st.sampled_from([(), ("orders",)]),
    st.lists(ROUTES, min_size=1, max_size=4),
)
TARGETS = [
    b"/",
    b"/a",
    b"/a/b?x",
    b"/a%2fb",
    b"/b/../a",
    b"/a;x/b",
    b"/b%252fc",
    b"/c",
    b"/%00",
    b"http://other/a",
    b"*",
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(RULES, max_size=3),
    st.sampled_from(["GET", "POST", "TRACE", "ALL"]),
    st.sampled_from(TARGETS),
    st.sampled_from([None, "shop.example", "other", "?"]),
    st.none()
    | st.builds(Subject, permissions=st.frozensets(st.sampled_from("pq")), client_type=st.sampled_from(["", "app"])),
    st.sampled_from([(), ("orders",)]),
    st.booleans(),
)
def test_the_parts_add_up_to_the_gateways_decision(
    rules: list[RuleState],
    method: str,
    target: bytes,
    host: str | None,
    subject: Subject | None,
    audiences: tuple[str, ...],
    backoffice: bool,
) -> None:
    table = RouteTable.build((f"default/rule-{index}", rule) for index, rule in enumerate(rules))
    if subject is not None:
        subject = Subject(subject.permissions, client_type=subject.client_type, is_backoffice=backoffice)
    explanation = explain(
        table,
        method=method,
        target=target,
        host=host,
        is_backoffice=backoffice,
        subject=subject,
        audiences=audiences,
    )
    made = decide(
        table,
        method=method,
        target=target,
        host=host,
        is_backoffice=backoffice,
        subject=subject,
        audiences=audiences,
    )
    assert explanation.decision == made
    adds_up = bool(explanation.readings) and all(
        reading.routes and all(route.passes for route in reading.routes) for reading in explanation.readings
    )
    assert adds_up is made.allowed


def explained(condition: Condition, subject: Subject | None, **more: tuple[str, ...]) -> Explanation:
    rule = RuleState(audiences=more.get("rule_audiences", ()), routes=(RouteState("/a", ("ALL",), condition),))
    table = RouteTable.build([("default/orders", rule)])
    return explain(table, method="GET", target=b"/a/7", host=None, subject=subject, audiences=more.get("audiences", ()))


def failing(explanation: Explanation) -> list[Check]:
    return [
        check
        for reading in explanation.readings
        for route in reading.routes
        for check in route.checks
        if not check.held
    ]


@pytest.mark.parametrize(
    ("expression", "held", "missing", "one_suffices"),
    [
        pytest.param("permissions.p", "", ("p",), True, id="the one"),
        pytest.param('permissions["p:x"] || permissions.q', "", ("p:x", "q"), True, id="either of two"),
        pytest.param("permissions.p && permissions.q", "", ("p", "q"), False, id="both of two"),
        pytest.param("permissions.p && permissions.q", "p", ("q",), True, id="the other of two"),
        pytest.param('["p", "q"] in permissions', "", ("p", "q"), True, id="one of a list"),
        pytest.param("!permissions.p", "p", (), False, id="one too many"),
        pytest.param("permissions.p && groups.x", "", (), False, id="a group as well"),
        pytest.param("isBackoffice || permissions.p", "", ("p",), True, id="a permission instead of the back office"),
        pytest.param('"a\\"b" in permissions', "", ('a"b',), True, id="a name with a quotation mark"),
        pytest.param('userProperties["p"]', "", (), False, id="a name that is no permission's"),
    ],
)
def test_the_missing_permissions_of_an_expression_are_those_that_would_make_it_true(
    expression: str, held: str, missing: tuple[str, ...], one_suffices: bool
) -> None:
    (check,) = failing(explained(Condition(expression=expression), Subject(permissions=frozenset(held))))
    assert (check.kind, check.missing, check.one_suffices) == (explaining.EXPRESSION, missing, one_suffices)


def test_an_expression_is_told_part_by_part_with_columns() -> None:
    text = 'permissions.p && (groups.x || clientType == "app")'
    (check,) = failing(explained(Condition(expression=text), Subject(client_type="app")))
    assert [(term.text, term.position, term.held) for term in check.terms] == [
        ("permissions.p", 1, False),
        ("groups.x", 19, False),
        ('clientType == "app"', 31, True),
    ]


def test_permissions_tell_what_is_missing_of_each_list() -> None:
    explanation = explained(Condition(any_of=("a", "b"), all_of=("c", "d")), Subject(permissions=frozenset("c")))
    assert [(check.kind, check.missing, check.one_suffices) for check in failing(explanation)] == [
        (explaining.ALL_OF, ("d",), False),
        (explaining.ANY_OF, ("a", "b"), True),
    ]


def test_somebody_without_a_token_is_told_what_the_route_asks() -> None:
    explanation = explained(Condition(any_of=("a",)), None)
    assert [check.kind for check in failing(explanation)] == [explaining.LOGIN, explaining.ANY_OF]


def test_a_token_for_another_audience_is_told() -> None:
    explanation = explained(Condition(any_of=("a",)), Subject(frozenset("a")), rule_audiences=("x",), audiences=("y",))
    assert [(check.kind, check.text) for check in failing(explanation)] == [(explaining.AUDIENCES, "x")]


def test_a_path_that_is_refused_has_no_readings() -> None:
    table = RouteTable.build([])
    explanation = explain(table, method="GET", target=b"/a%00", host=None)
    assert explanation.refused == "The path holds a control character"
    assert explanation.readings == ()


def test_the_body_is_plain_json_with_all_parts() -> None:
    body = explained(Condition(expression="permissions.p"), Subject()).to_body()
    assert body == {
        "decision": {
            "outcome": "Forbidden",
            "reason": "ExpressionFalse",
            "rule": "default/orders",
            "route": "/a",
            "public": False,
            "description": "The expression is false for this caller",
        },
        "refused": None,
        "audits": [],
        "readings": [
            {
                "segments": ["a", "7"],
                "host": None,
                "routes": [
                    {
                        "rule": "default/orders",
                        "route": "/a",
                        "passes": False,
                        "checks": [
                            {"kind": "login", "text": "a caller with a valid token", "held": True},
                            {
                                "kind": "expression",
                                "text": "permissions.p",
                                "held": False,
                                "missing": {"anyOf": ["p"]},
                                "terms": [{"text": "permissions.p", "position": 1, "held": False}],
                            },
                        ],
                    }
                ],
            }
        ],
    }
