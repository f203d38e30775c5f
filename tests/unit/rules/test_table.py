"""Which route decides a request: path, then host, then method; and what a change of rules changes."""

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.expressions import Subject
from keyturn.rules import table as tables
from keyturn.rules.decision import Outcome, decide
from keyturn.rules.state import METHODS, Condition, RouteState, RuleState
from keyturn.rules.table import RouteTable

PUBLIC = Condition(public=True)


def needs(*permissions: str) -> Condition:
    return Condition(all_of=permissions)


def rule(*routes: tuple[str, str], hosts: tuple[str, ...] = ()) -> RuleState:
    """Routes as (path, methods); each asks for a permission that names the route, so that a test sees which one decided."""
    return RuleState(
        hosts=hosts,
        routes=tuple(RouteState(path, tuple(methods.split()), needs(f"{path}|{methods}")) for path, methods in routes),
    )


def decided_by(table: RouteTable, method: str, path: str, host: str | None = "shop.example") -> set[str]:
    """The permissions that the deciding routes ask for; empty for an unknown route."""
    match = table.match(method, path.encode(), host)
    return {name for requirement in match.requirements for name in requirement.guard.condition.all_of}


ROUTES = rule(
    ("/orders", "ALL"),
    ("/orders", "POST"),
    ("/orders/:id", "ALL"),
    ("/orders/new", "ALL"),
    ("/orders/:id/lines", "ALL"),
    ("/orders/new/lines/*", "ALL"),
    ("/files/*", "ALL"),
    ("/files/:name", "GET"),
    ("/a/b", "ALL"),
    ("/a/:x/c", "ALL"),
    ("/only/get", "GET"),
    ("/only", "ALL"),
    ("/slash/", "ALL"),
)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        pytest.param("GET", "/orders", "/orders|ALL", id="the route itself"),
        pytest.param("POST", "/orders", "/orders|POST", id="a method before ALL"),
        pytest.param("POST", "/orders/7", "/orders/:id|ALL", id="a method overrides ALL for its path only"),
        pytest.param("GET", "/orders/7", "/orders/:id|ALL", id="a parameter"),
        pytest.param("GET", "/orders/7/deep/er", "/orders/:id|ALL", id="a prefix on segments after a parameter"),
        pytest.param("GET", "/orders/new", "/orders/new|ALL", id="a literal before a parameter"),
        pytest.param("GET", "/orders/new/x", "/orders/new|ALL", id="a literal as prefix"),
        pytest.param("GET", "/orders/new/lines", "/orders/:id/lines|ALL", id="more segments before a literal"),
        pytest.param(
            "GET", "/orders/new/lines/1/2", "/orders/new/lines/*|ALL", id="a wildcard covers several segments"
        ),
        pytest.param("GET", "/files/x", "/files/:name|GET", id="a parameter before a wildcard"),
        pytest.param("GET", "/files", None, id="a wildcard needs a segment"),
        pytest.param("POST", "/files/x", None, id="a less specific route is not asked for another method"),
        pytest.param("POST", "/only/get/x", None, id="nor is a shorter path"),
        pytest.param("POST", "/only/post", "/only|ALL", id="a shorter path where none is longer"),
        pytest.param("GET", "/a/b/c", "/a/:x/c|ALL", id="the longer match through a parameter"),
        pytest.param("GET", "/a/b/d", "/a/b|ALL", id="the literal where both are as long"),
        pytest.param("GET", "/orders-old", None, id="no prefix within a segment"),
        pytest.param("GET", "/order", None, id="no part of a segment"),
        pytest.param("GET", "/ORDERS", None, id="case counts"),
        pytest.param("GET", "/slash", "/slash/|ALL", id="a trailing slash in the rule means nothing"),
        pytest.param("GET", "/orders/", "/orders|ALL", id="nor one in the request"),
        pytest.param("GET", "/:id", None, id="a parameter's sign in a request is a letter"),
        pytest.param("GET", "/files/*", "/files/:name|GET", id="and so is a wildcard's"),
        pytest.param("TRACE", "/orders", None, id="ALL does not cover TRACE"),
        pytest.param("get", "/orders", None, id="methods are in upper case"),
        pytest.param("ALL", "/orders", None, id="ALL is no method"),
        pytest.param("GET", "/", None, id="nothing stands at the root"),
    ],
)
def test_path_then_method_find_the_route(method: str, path: str, expected: str | None) -> None:
    table = RouteTable.build([("shop/rule", ROUTES)])
    assert decided_by(table, method, path) == ({expected} if expected else set())


@pytest.mark.parametrize("method", METHODS)
def test_all_covers_each_of_the_seven_methods(method: str) -> None:
    assert decided_by(RouteTable.build([("shop/rule", rule(("/", "ALL")))]), method, "/any/where") == {"/|ALL"}


HOSTS = [
    ("n/exact", RuleState(("shop.example",), routes=(RouteState("/a", ("GET",), needs("exact")),))),
    ("n/suffix", RuleState(("*.example",), routes=(RouteState("/a", ("ALL",), needs("suffix")),))),
    ("n/longer", RuleState(("*.eu.example",), routes=(RouteState("/a", ("ALL",), needs("longer")),))),
    (
        "n/none",
        RuleState(routes=(RouteState("/a", ("ALL",), needs("none")), RouteState("/a/b", ("ALL",), needs("deep")))),
    ),
    ("n/six", RuleState(("[2001:db8::1]",), routes=(RouteState("/a", ("ALL",), needs("six")),))),
]


@pytest.mark.parametrize(
    ("method", "host", "path", "expected"),
    [
        pytest.param("GET", "shop.example", "/a", {"exact"}, id="the exact host"),
        pytest.param("GET", "Shop.Example.:8443", "/a", {"exact"}, id="case, port and root dot mean nothing"),
        pytest.param("POST", "shop.example", "/a", set(), id="a wider host is not asked for another method"),
        pytest.param("GET", "other.example", "/a", {"suffix"}, id="a suffix"),
        pytest.param("GET", "a.b.example", "/a", {"suffix"}, id="a suffix of several labels"),
        pytest.param("GET", "a.eu.example", "/a", {"longer"}, id="the longer suffix"),
        pytest.param("GET", "example", "/a", {"none"}, id="a suffix does not cover its own name"),
        pytest.param("GET", "notexample", "/a", {"none"}, id="nor a part of a label"),
        pytest.param("GET", "shop.test", "/a", {"none"}, id="rules without hosts for the rest"),
        pytest.param("GET", "[2001:DB8::1]:80", "/a", {"six"}, id="an address"),
        pytest.param("GET", "shop.example", "/a/b", {"deep"}, id="the path comes before the host"),
        pytest.param("GET", None, "/a", {"exact", "suffix", "longer", "none", "six"}, id="no host: all of them"),
        pytest.param(
            "GET", "shop example", "/a", {"exact", "suffix", "longer", "none", "six"}, id="no host in it: all"
        ),
        pytest.param("POST", None, "/a", set(), id="no host: one that says nothing denies"),
        pytest.param("GET", None, "/a/b", {"deep"}, id="no host: the closest path for every host"),
        pytest.param("GET", "shop.example", "http://other.example/a", {"exact", "suffix"}, id="two hosts: both"),
        pytest.param("GET", None, "http://other.example/a", {"suffix"}, id="the host of an absolute target"),
    ],
)
def test_the_closest_host_decides(method: str, host: str | None, path: str, expected: set[str]) -> None:
    assert decided_by(RouteTable.build(HOSTS), method, path, host) == expected


def test_a_public_rule_without_hosts_does_not_open_the_path_of_one_with_hosts() -> None:
    table = RouteTable.build(
        [
            ("a/closed", RuleState(("shop.example",), routes=(RouteState("/a", ("GET",), needs("x")),))),
            ("b/open", RuleState(routes=(RouteState("/a", ("GET", "POST"), PUBLIC),))),
        ]
    )
    outcomes = [
        decide(table, method=method, target=b"/a", host=host).outcome
        for method, host in (("GET", "shop.example"), ("POST", "shop.example"), ("GET", None), ("GET", "other.example"))
    ]
    assert outcomes == [Outcome.UNAUTHENTICATED, Outcome.UNKNOWN_ROUTE, Outcome.UNAUTHENTICATED, Outcome.ALLOW]


def test_equals_are_all_to_be_satisfied() -> None:
    table = RouteTable.build(
        [
            ("a/one", RuleState(routes=(RouteState("/x/:a", ("GET",), needs("one")),))),
            ("b/two", RuleState(routes=(RouteState("/x/:b", ("GET",), needs("two")),))),
            ("c/open", RuleState(routes=(RouteState("/x/:c/", ("GET",), PUBLIC),))),
        ]
    )
    outcomes = [
        decide(table, method="GET", target=b"/x/1", host="h", subject=Subject(permissions=frozenset(held))).outcome
        for held in ({"one"}, {"two"}, {"one", "two"})
    ]
    assert outcomes == [Outcome.FORBIDDEN, Outcome.FORBIDDEN, Outcome.ALLOW]
    assert decide(table, method="GET", target=b"/x/1", host="h").outcome is Outcome.UNAUTHENTICATED


def test_the_cache_is_bounded_and_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CACHE_ENTRIES", 8)
    table = RouteTable.build([("shop/rule", ROUTES)])
    first = [table.match("GET", f"/orders/{number}".encode(), "h").requirements for number in range(50)]
    again = [table.match("GET", f"/orders/{number}".encode(), "h").requirements for number in range(50)]
    table.match("GET", b"/orders/" + b"x" * tables.MAX_CACHED_LENGTH, "h")
    assert first == again
    assert len(table._cache) == 8
    assert not any(len(path) > tables.MAX_CACHED_LENGTH for _, _, path, _ in table._cache)


def test_a_cached_answer_is_the_one_for_its_own_host_method_and_part() -> None:
    state = RuleState(("a.example",), routes=(RouteState("/x", ("GET",), needs("main"), PUBLIC),))
    table = RouteTable.build([("n/r", state)])
    requests = [
        ("GET", "a.example", False, Outcome.UNAUTHENTICATED),
        ("GET", "a.example", True, Outcome.ALLOW),
        ("GET", "b.example", True, Outcome.UNKNOWN_ROUTE),
        ("POST", "a.example", True, Outcome.UNKNOWN_ROUTE),
    ]
    for method, host, backoffice, expected in requests * 2:
        decided = decide(table, method=method, target=b"/x", host=host, is_backoffice=backoffice)
        assert decided.outcome is expected


def test_a_change_leaves_the_table_before_it_as_it_was() -> None:
    before = RouteTable.build([("n/a", rule(("/a", "ALL"))), ("n/b", rule(("/a/b", "ALL")))])
    after = before.updated({"n/b": (), "n/c": (rule(("/c", "GET")),)})
    assert [decided_by(before, "GET", path) for path in ("/a/b", "/c")] == [{"/a/b|ALL"}, set()]
    assert [decided_by(after, "GET", path) for path in ("/a/b", "/c")] == [{"/a|ALL"}, {"/c|GET"}]
    assert sorted(after.rules) == ["n/a", "n/c"]


def test_a_name_that_stands_twice_holds_twice_and_goes_at_once() -> None:
    one = RuleState(routes=(RouteState("/a", ("GET",), needs("one")),))
    two = RuleState(
        ("shop.example",), routes=(RouteState("/a", ("GET",), needs("two")), RouteState("/b", ("GET",), PUBLIC))
    )
    table = RouteTable.build([("n/a", one), ("n/a", two), ("n/a", one)])
    assert decided_by(table, "GET", "/a", None) == {"one", "two"}
    assert table.updated({"n/a": ()})._root.empty


def test_a_path_whose_rules_are_gone_leaves_nothing_behind() -> None:
    deep = rule(("/a/:b/c/*", "ALL"), hosts=("x.example",))
    table = RouteTable.build([("n/deep", deep), ("n/a", rule(("/a", "ALL")))]).updated({"n/deep": (), "n/a": ()})
    assert table._root.empty


SEGMENTS = st.sampled_from(["a", "b", ":x", ":y"])
PATHS = st.builds(
    lambda segments, tail: "/" + "/".join([*segments, *tail]),
    st.lists(SEGMENTS, max_size=3),
    st.sampled_from([[], [], ["*"]]),
)
METHOD_SETS = st.sampled_from(["ALL", "GET", "POST", "GET POST"])
HOST_SETS = st.sampled_from([(), ("a.example",), ("*.example",), ("a.example", "b.test")])
RULES = st.builds(
    lambda routes, hosts: rule(*routes, hosts=hosts), st.lists(st.tuples(PATHS, METHOD_SETS), max_size=4), HOST_SETS
)
CHANGES = st.lists(st.dictionaries(st.sampled_from(["n/a", "n/b", "n/c"]), st.none() | RULES, max_size=3), max_size=5)
REQUESTS = st.tuples(
    st.sampled_from(["GET", "POST", "PUT"]),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(lambda segments: "/" + "/".join(segments)),
    st.sampled_from(["a.example", "c.example", "b.test", "other"]),
)


@given(CHANGES, st.lists(REQUESTS, min_size=1, max_size=8))
def test_changes_one_by_one_come_to_what_one_scan_of_all_rules_finds(
    changes: list[dict[str, RuleState | None]], requests: list[tuple[str, str, str]]
) -> None:
    table = RouteTable()
    rules: dict[str, RuleState] = {}
    for change in changes:
        table = table.updated({ref: () if state is None else (state,) for ref, state in change.items()})
        for ref, state in change.items():
            rules.pop(ref, None)
            if state is not None:
                rules[ref] = state
    for method, path, host in requests:
        assert decided_by(table, method, path, host) == scanned(rules, method, path, host)
        assert decided_by(RouteTable.build(rules.items()), method, path, host) == scanned(rules, method, path, host)


def scanned(rules: Mapping[str, RuleState], method: str, path: str, host: str) -> set[str]:
    """The same rule, written as a scan over every route with sort keys."""
    covering = list(_covering(rules, path.strip("/").split("/") if path != "/" else [], host))
    if not covering:
        return set()
    place = min((path_key, host_key) for path_key, host_key, _ in covering)
    routes = [route for path_key, host_key, route in covering if (path_key, host_key) == place]
    exact = [route for route in routes if method in route.methods] or [
        route for route in routes if "ALL" in route.methods
    ]
    return {name for route in exact for name in route.main.all_of}


def _covering(
    rules: Mapping[str, RuleState], segments: list[str], host: str
) -> Iterator[tuple[tuple[int, tuple[int, ...]], int, RouteState]]:
    for state in rules.values():
        host_keys = [
            0 if host == name else 1 for name in state.hosts if name in (host, "*.example") and host.endswith(name[1:])
        ]
        if state.hosts and not host_keys:
            continue
        for route in state.routes:
            pattern = [part for part in route.path.split("/") if part]
            if len(pattern) > len(segments):
                continue
            kinds = tuple({":": 1, "*": 2}.get(part[0], 0) for part in pattern)
            if all(kind or part == segment for kind, part, segment in zip(kinds, pattern, segments, strict=False)):
                yield (-len(pattern), kinds), min(host_keys, default=2), route


def lines_run(table: RouteTable, target: bytes, host: str | None) -> int:
    """How many lines of Python one look-up runs that no cache answers: its cost, without a clock."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        table._match("GET", target, host, is_backoffice=False)
    finally:
        sys.settrace(before)
    return count


@cache
def many(number: int) -> RouteTable:
    paths = [(f"/tenants/t{index}/:id", "ALL") for index in range(number)]
    rules = [(f"n/r{first}", rule(*paths[first : first + 100])) for first in range(0, number, 100)]
    return RouteTable.build(rules)


@pytest.mark.parametrize("host", [None, "shop.example"], ids=["without a host", "with a host"])
@pytest.mark.parametrize("target", [b"/tenants/t7/9", b"/tenants/none/9", b"/a%2f../b", b"/"], ids=repr)
def test_a_look_up_costs_the_same_among_ten_routes_and_among_ten_thousand(target: bytes, host: str | None) -> None:
    assert lines_run(many(10), target, host) == lines_run(many(10_000), target, host)


def test_a_rule_changed_among_ten_thousand_routes_shares_all_the_rest() -> None:
    before = many(10_000)
    after = before.updated({"n/r0": []})
    kept = [segment for segment, node in after._root.literals["tenants"].literals.items() if node.parameter]
    assert len(kept) == 9_900
    assert all(
        before._root.literals["tenants"].literals[segment] is after._root.literals["tenants"].literals[segment]
        for segment in kept
    )


@pytest.mark.parametrize("target", [b"/a/b", b"/a/b?x=1", b"/a/%62", b"//a/b", b"/a/b/", b"/%61//b//?y"], ids=repr)
def test_ways_to_write_one_path_are_decided_alike(target: bytes) -> None:
    table = RouteTable.build([("n/r", rule(("/a/b", "ALL"), ("/a", "ALL"), ("/:x/:y", "ALL")))])
    assert {one.route for one in table.match("GET", target, None).requirements} == {"/a/b"}
