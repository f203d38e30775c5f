"""What stays in force of a rule while its edit is invalid: never more than before, and never more than what it asks for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.expressions import Subject
from keyturn.rules.decision import Outcome, decide
from keyturn.rules.invalid import MAX_BINDINGS
from keyturn.rules.parse import parse_rule
from keyturn.rules.state import METHODS, RuleState
from keyturn.rules.table import RouteTable

BROKEN = {"path": "/broken", "expression": "("}
A = {"permissions": {"allOf": ["a"]}}
B = {"permissions": {"allOf": ["b"]}}
PUBLIC = {"public": True}
UNREADABLE = {"expression": "("}


def route(path: str, condition: dict[str, Any], *methods: str, **more: Any) -> dict[str, Any]:
    return {"path": path, **condition, **({"methods": list(methods)} if methods else {}), **more}


def edited(old: dict[str, Any], *edits: dict[str, Any]) -> RuleState:
    """What is in force after a valid spec and then invalid ones."""
    state, problems = parse_rule(old, None)
    assert not problems
    for edit in edits:
        state, problems = parse_rule(edit, state)
        assert problems
    return state


def outcome(
    state: RuleState, path: str, *held: str, method: str = "GET", host: str = "h", audiences: tuple[str, ...] = ("x",)
) -> str:
    """`open`, `known` (allowed for a caller who holds these permissions), `refused` or `unknown`."""
    table = RouteTable.build([("n/r", state)])
    match = table.match(method, path.encode(), host)
    if match.evaluate(None).allowed:
        return "open"
    decided = match.evaluate(Subject(permissions=frozenset(held)), audiences)
    return {Outcome.ALLOW: "known", Outcome.UNKNOWN_ROUTE: "unknown"}.get(decided.outcome, "refused")


@pytest.mark.parametrize(
    ("old", "new", "path", "held", "expected"),
    [
        pytest.param([route("/a", A)], [route("/a", A), BROKEN], "/a", "a", "known", id="an unchanged route stays"),
        pytest.param([route("/a", A)], [BROKEN], "/a", "a", "unknown", id="an absent route is withdrawn"),
        pytest.param(
            [route("/a", A)], [route("/a", UNREADABLE)], "/a", "a", "known", id="an unreadable one keeps its form"
        ),
        pytest.param([route("/a", PUBLIC)], [route("/a", UNREADABLE)], "/a", "", "open", id="even a public one"),
        pytest.param(
            [route("/b", A)], [route("/a", UNREADABLE)], "/a", "a", "refused", id="without a last form: closed"
        ),
        pytest.param(
            [route("/", PUBLIC)], [route("/", PUBLIC), route("/a", UNREADABLE)], "/a/x", "a", "refused", id="below"
        ),
        pytest.param([route("/a", PUBLIC)], [route("/a", A), BROKEN], "/a", "", "refused", id="a stricter form counts"),
        pytest.param([route("/a", A)], [route("/a", PUBLIC), BROKEN], "/a", "", "refused", id="a looser one does not"),
        pytest.param(
            [route("/a", A)], [route("/a", B), BROKEN], "/a", "a", "refused", id="another form: the old alone"
        ),
        pytest.param(
            [route("/a", A)], [route("/a", B), BROKEN], "/a", "b", "refused", id="another form: the new alone"
        ),
        pytest.param([route("/a", A)], [route("/a", B), BROKEN], "/a", "ab", "known", id="another form: both"),
        pytest.param([route("/b", A)], [route("/a", PUBLIC), BROKEN], "/a", "", "refused", id="a new route is closed"),
        pytest.param([route("/a", A)], [route("/a", A, "POST"), BROKEN], "/a", "a", "unknown", id="a method withdrawn"),
        pytest.param(
            [route("/a", A, "POST")], [route("/a", A), BROKEN], "/a", "a", "refused", id="a method added: closed"
        ),
        pytest.param(
            [route("/a", A, "GET")], [route("/a", A), BROKEN], "/a", "a", "known", id="a method among ALL stays"
        ),
        pytest.param([route("/a", A)], [route("/a", A, "GET", "get")], "/a", "a", "known", id="unreadable methods"),
        pytest.param(
            [route("/a", A), route("/", PUBLIC)],
            [route("/a b", A), route("/", PUBLIC)],
            "/a",
            "a",
            "refused",
            id="a bad path",
        ),
        pytest.param(
            [route("/a", A)], [route("/a", A, rate=1)], "/a", "a", "known", id="an unknown field: the last form"
        ),
        pytest.param(
            [route("/a", A)], [route("/a", PUBLIC, rate=1)], "/a", "", "refused", id="an unknown field opens nothing"
        ),
        pytest.param(
            [route("/a", A)],
            [route("/a", A, backoffice=UNREADABLE)],
            "/a",
            "a",
            "known",
            id="an unreadable backoffice part",
        ),
    ],
)
def test_routes_of_an_invalid_edit(
    old: list[dict[str, Any]], new: list[dict[str, Any]], path: str, held: str, expected: str
) -> None:
    assert outcome(edited({"routes": old}, {"routes": new}), path, *held) == expected


@pytest.mark.parametrize(
    ("old", "new", "host", "expected"),
    [
        pytest.param(None, ["h"], "h", "known", id="narrowed to a host: that one"),
        pytest.param(None, ["h"], "g", "unknown", id="narrowed to a host: another"),
        pytest.param(["h"], None, "g", "unknown", id="widened: not yet"),
        pytest.param(["h", "g"], ["h", "f"], "g", "unknown", id="one taken out"),
        pytest.param(["h", "g"], ["h", "f"], "f", "unknown", id="one put in"),
        pytest.param(["*.h"], ["a.h"], "a.h", "known", id="within a suffix"),
        pytest.param(["*.h"], ["a.h"], "b.h", "unknown", id="outside of the new one"),
        pytest.param(["h"], ["g"], "g", "unknown", id="moved: nowhere"),
        pytest.param(["h", "g"], ["h", "G!"], "h", "known", id="one unreadable: the readable"),
        pytest.param(["h"], ["H!"], "h", "refused", id="none readable: closed where it was"),
    ],
)
def test_hosts_of_an_invalid_edit(old: list[str] | None, new: list[str] | None, host: str, expected: str) -> None:
    state = edited({"hosts": old, "routes": [route("/a", A)]}, {"hosts": new, "routes": [route("/a", A), BROKEN]})
    assert outcome(state, "/a", "a", host=host) == expected


@pytest.mark.parametrize(
    ("old", "new", "audience", "expected"),
    [
        pytest.param(None, ["x"], "x", "known", id="narrowed: that one"),
        pytest.param(None, ["x"], "y", "refused", id="narrowed: another"),
        pytest.param(["x"], None, "y", "refused", id="widened: not yet"),
        pytest.param(["x", "y"], ["x", "z"], "y", "refused", id="one taken out"),
        pytest.param(["x"], ["y"], "y", "refused", id="nothing left: nobody"),
        pytest.param(["x"], ["a b"], "x", "refused", id="none readable: nobody"),
    ],
)
def test_audiences_of_an_invalid_edit(
    old: list[str] | None, new: list[str] | None, audience: str, expected: str
) -> None:
    state = edited(
        {"audiences": old, "routes": [route("/a", A)]}, {"audiences": new, "routes": [route("/a", A), BROKEN]}
    )
    assert outcome(state, "/a", "a", audiences=(audience,)) == expected


def test_an_invalid_rule_without_a_last_state_is_closed_where_it_names_anything() -> None:
    state, _ = parse_rule({"hosts": ["h"], "routes": [route("/a", PUBLIC, "GET"), BROKEN]}, None)
    assert [outcome(state, "/a"), outcome(state, "/broken"), outcome(state, "/a", host="g")] == [
        "refused",
        "refused",
        "unknown",
    ]
    assert outcome(state, "/a", method="POST") == "unknown"


def test_many_invalid_edits_in_a_row_are_bounded_and_end_closed() -> None:
    edits = [
        {"routes": [route("/a", {"permissions": {"allOf": [f"p{number}"]}}), BROKEN]}
        for number in range(MAX_BINDINGS + 2)
    ]
    state = edited({"routes": [route("/a", A)]}, *edits)
    assert outcome(state, "/a", "a", *(f"p{number}" for number in range(20))) == "refused"
    assert len(str(state)) < 1000


CONDITIONS = st.sampled_from([A, B, PUBLIC, UNREADABLE, {"permissions": {"anyOf": ["a", "b"]}}])
ROUTES = st.lists(
    st.builds(
        lambda path, condition, methods: route(path, condition, *methods),
        st.sampled_from(["/", "/a", "/a/b", "/:x", "/a b"]),
        CONDITIONS,
        st.sampled_from([(), ("GET",), ("GET", "POST")]),
    ),
    min_size=1,
    max_size=3,
)
SPECS = st.builds(
    lambda routes, hosts: {"routes": routes, "hosts": hosts}, ROUTES, st.sampled_from([None, ["h"], ["g", "h"], ["H!"]])
)
REQUESTS = [(path, method, host) for path in ("/", "/a", "/a/b", "/c") for method in METHODS[:3] for host in ("h", "g")]


@given(SPECS.filter(lambda spec: not parse_rule(spec, None)[1]), st.lists(SPECS, min_size=1, max_size=2))
def test_invalid_edits_never_add_and_reading_them_again_changes_nothing(
    old: dict[str, Any], edits: list[dict[str, Any]]
) -> None:
    state, _ = parse_rule(old, None)
    for edit in edits:
        before = state
        state, problems = parse_rule(edit, before)
        if not problems:
            continue
        assert parse_rule(edit, state)[0] == state
        named = {path["path"] for path in edit["routes"]}
        for path, method, host in REQUESTS:
            for held in ((), ("a",), ("b",), ("a", "b")):
                if allows(state, path, method, host, held) and not withdrawn(before, named):
                    assert allows(before, path, method, host, held)


def withdrawn(before: RuleState, named: set[str]) -> bool:
    """Whether a route was taken out on purpose: what a shorter one says of its path then holds, as after any deletion."""
    return any(former.path not in named or former.methods != ("ALL",) for former in before.routes)


def allows(state: RuleState, path: str, method: str, host: str, held: tuple[str, ...]) -> bool:
    table = RouteTable.build([("n/r", state)])
    subject = Subject(permissions=frozenset(held))
    return decide(table, method=method, target=path.encode(), host=host, subject=subject).allowed
