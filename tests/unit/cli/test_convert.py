"""`keyturn convert`: what the reference allowed and Keyturn allows, apart from what the report says."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.expressions import Subject
from keyturn.rules.conflicts import find_conflicts
from keyturn.rules.decision import Outcome, decide
from keyturn.rules.parse import parse_rule
from keyturn.rules.state import METHODS
from keyturn.rules.table import RouteTable
from keyturn_cli import conversion
from keyturn_cli.access_rule import MAX_ROUTES, MAX_TEXT_BYTES, beyond_bounds, text_bytes
from keyturn_cli.conversion import Conversion, Difference, convert, split

from ..expressions.evaluator import evaluate
from .command import keyturn

Configuration = dict[str, Any]


def needs(expression: str) -> dict[str, Any]:
    return {"authorization": {"expression": expression}}


PUBLIC = {"authorization": {"public": True}}


def table_of(converted: Conversion) -> RouteTable:
    """Compiled as the operator and the API do; what is converted is valid and within bounds."""
    rules = []
    for index, routes in enumerate(split(converted.routes)):
        spec = {"routes": routes}
        state, problems = parse_rule(spec, None)
        assert not problems
        assert not beyond_bounds(spec)
        rules.append((f"default/rule-{index}", state))
    return RouteTable.build(rules)


def decided(converted: Conversion, method: str, path: str, subject: Subject | None, *, backoffice: bool = False) -> str:
    return decide(
        table_of(converted), method=method, target=path.encode(), host=None, is_backoffice=backoffice, subject=subject
    ).outcome


def kinds(converted: Conversion) -> list[str]:
    """Those of single places."""
    return [difference.kind for difference in converted.differences if difference.path]


# The reference, as its documentation tells; written apart from ours.


def reference_segments(path: str) -> list[str]:
    path = re.sub("%2f", "/", path.split("?")[0], flags=re.IGNORECASE)
    return [segment for segment in path.split("/") if segment]


def reference_fits(rule: list[str], request: list[str]) -> bool:
    if len(rule) > len(request):
        return False
    return all(
        mine == "*" or mine.startswith(":") or mine == theirs for mine, theirs in zip(rule, request, strict=False)
    )


def reference_specificity(rule: list[str]) -> tuple[int, str]:
    return len(rule), "".join("a" if part == "*" else "b" if part.startswith(":") else "c" for part in rule)


def reference_route(
    configuration: Configuration, method: str, request: str, *, having_method: bool = True
) -> tuple[str, dict[str, Any]] | None:
    """The most specific path that covers the request and speaks of its method, with what it says."""
    asked = reference_segments(request)
    covering = [path for path in configuration if reference_fits(reference_segments(path), asked)]
    for path in sorted(covering, key=lambda path: reference_specificity(reference_segments(path)), reverse=True):
        entry = configuration[path].get(method, configuration[path].get("ALL"))
        if entry is not None or not having_method:
            return path, entry or {}
    return None


def reference_decision(
    configuration: Configuration, method: str, request: str, subject: Subject | None, *, backoffice: bool
) -> str:
    found = reference_route(configuration, method, request)
    if found is None:
        return Outcome.UNKNOWN_ROUTE
    entry = found[1]
    part = entry["authorization"]
    if backoffice:
        part = entry.get("backofficeAuthorization", part)
    if part.get("public"):
        return Outcome.ALLOW
    if subject is None:
        return Outcome.UNAUTHENTICATED
    return Outcome.ALLOW if evaluate(part["expression"], subject) else Outcome.FORBIDDEN


EXPRESSIONS = [
    "true",
    "false",
    "groups.a",
    'permissions["p:q"]',
    '["p:q", "r"] in permissions && !groups.a',
    'clientType == "app" || isBackoffice',
    'permissions.r && (groups.a || "b" in groups)',
]
PARTS = st.one_of(
    st.just({"public": True}),
    st.sampled_from(EXPRESSIONS).map(lambda text: {"expression": text}),
    st.sampled_from(EXPRESSIONS).map(lambda text: {"expression": text, "public": False}),
    st.sampled_from(EXPRESSIONS).map(lambda text: {"expression": text, "public": True}),
)
ENTRIES = st.builds(
    lambda main, backoffice: {
        "authorization": main,
        **({} if backoffice is None else {"backofficeAuthorization": backoffice}),
    },
    PARTS,
    st.none() | PARTS,
)
SEGMENTS = ("a", "b", "ab", "c")
RULE_PATHS = st.builds(
    lambda parts, wildcard, slash: "/" + "/".join([*parts, *wildcard]) + slash,
    st.lists(st.sampled_from((*SEGMENTS, ":id", ":x")), max_size=3),
    st.sampled_from([[], [], [], ["*"]]),
    st.sampled_from(["", "", "", "/"]),
).map(lambda path: "/" if path == "//" else path)
CONFIGURATIONS = st.dictionaries(
    RULE_PATHS,
    st.dictionaries(st.sampled_from(("GET", "POST", "ALL", "ALL", "DELETE")), ENTRIES, min_size=1),
    min_size=1,
    max_size=6,
)
REQUESTS = st.builds(
    lambda parts, separator, end: "/" + separator.join(parts) + end,
    st.lists(st.sampled_from((*SEGMENTS, "7")), max_size=4),
    st.sampled_from(["/", "/", "/", "//"]),
    st.sampled_from(["", "", "/", "?x=/a"]),
)
SUBJECTS = st.none() | st.builds(
    Subject,
    permissions=st.frozensets(st.sampled_from(["p:q", "r"])),
    groups=st.frozensets(st.sampled_from(["a", "b"])),
    client_type=st.sampled_from(["", "app"]),
)


def is_reported(configuration: Configuration, converted: Conversion, method: str, request: str) -> bool:
    """Whether the report tells of a difference for the routes that this request may meet."""
    closest = reference_route(configuration, method, request, having_method=False)
    if closest is None:
        return False
    shape = [part[:1] if part.startswith(":") else part for part in reference_segments(closest[0])]

    def here(difference: Difference) -> bool:
        own = [part[:1] if part.startswith(":") else part for part in reference_segments(difference.path)]
        return bool(difference.path) and own == shape and difference.method in ("", "ALL", method)

    notes = (conversion.TRAILING_SLASH, conversion.WILDCARD)
    return any(here(difference) for difference in converted.differences if difference.kind not in notes)


@settings(max_examples=400, deadline=None)
@given(CONFIGURATIONS, st.sampled_from(("GET", "POST", "PATCH")), REQUESTS, SUBJECTS, st.booleans())
def test_both_answer_alike_apart_from_what_is_reported(
    configuration: Configuration, method: str, request: str, subject: Subject | None, backoffice: bool
) -> None:
    converted = convert(configuration)
    assert converted.complete
    if subject is not None:
        subject = Subject(subject.permissions, subject.groups, subject.client_type, backoffice)
    ours = decided(converted, method, request, subject, backoffice=backoffice)
    theirs = reference_decision(configuration, method, request, subject, backoffice=backoffice)
    if is_reported(configuration, converted, method, request):
        # What differs is never looser.
        assert ours != Outcome.ALLOW or theirs == Outcome.ALLOW
    else:
        assert ours == theirs


@settings(max_examples=150, deadline=None)
@given(CONFIGURATIONS, REQUESTS, SUBJECTS)
def test_an_encoded_slash_never_gets_more_than_the_reference_gives(
    configuration: Configuration, request: str, subject: Subject | None
) -> None:
    converted = convert(configuration)
    path, _, query = request.partition("?")
    request = "/" + path[1:].replace("/", "%2F") + ("?" + query if query else "")
    if decided(converted, "GET", request, subject) == Outcome.ALLOW:
        assert reference_decision(configuration, "GET", request, subject, backoffice=False) == Outcome.ALLOW


def test_a_method_that_a_longer_path_leaves_out_is_denied_and_reported_with_the_shorter_path() -> None:
    converted = convert({"/a": {"ALL": needs("true")}, "/a/b": {"GET": needs("true")}})
    assert decided(converted, "POST", "/a/b", Subject()) == Outcome.UNKNOWN_ROUTE
    reported = {d.method: d for d in converted.differences if d.kind == conversion.METHOD_NOT_COVERED}
    assert set(reported) == set(METHODS) - {"GET"}
    assert "/a decide" in reported["POST"].message
    assert converted.complete


def test_a_method_that_no_shorter_path_has_is_not_reported() -> None:
    assert kinds(convert({"/a": {"GET": PUBLIC}, "/b": {"ALL": PUBLIC}})) == []


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        pytest.param(needs("nobody.knows"), conversion.INVALID_EXPRESSION, id="an unknown name"),
        pytest.param(needs("groups.a &&"), conversion.INVALID_EXPRESSION, id="an expression that ends too early"),
        pytest.param(needs(""), conversion.INVALID_EXPRESSION, id="an empty expression"),
        pytest.param({"authorization": {"expression": 1}}, conversion.INVALID_EXPRESSION, id="a number"),
        pytest.param(needs('"é" in groups || ' * 400 + "true"), conversion.INVALID_EXPRESSION, id="a long expression"),
        pytest.param({"authorization": {"public": False}}, conversion.INVALID_AUTHORIZATION, id="no condition"),
        pytest.param({"authorization": {"public": "yes"}}, conversion.INVALID_AUTHORIZATION, id="public as a text"),
        pytest.param(
            {"authorization": {"public": True, "ip": "10.0.0.0/8"}},
            conversion.INVALID_AUTHORIZATION,
            id="unknown member",
        ),
        pytest.param({**PUBLIC, "rate": 5}, conversion.INVALID_AUTHORIZATION, id="an unknown member beside it"),
        pytest.param(
            {"backofficeAuthorization": {"public": True}}, conversion.INVALID_AUTHORIZATION, id="no main part"
        ),
        pytest.param([], conversion.INVALID_AUTHORIZATION, id="a list"),
        pytest.param(None, conversion.INVALID_AUTHORIZATION, id="null"),
    ],
)
def test_a_condition_that_cannot_be_converted_is_closed_and_not_left_to_a_wider_route(entry: Any, kind: str) -> None:
    converted = convert({"/": {"ALL": PUBLIC}, "/a": {"GET": entry}})
    assert kind in [difference.kind for difference in converted.differences if difference.lost]
    everything = Subject(permissions=frozenset("abc"), groups=frozenset("abcé"))
    assert decided(converted, "GET", "/a", everything) == Outcome.FORBIDDEN
    assert decided(converted, "GET", "/b", None) == Outcome.ALLOW
    assert not converted.would_open


def test_an_error_of_an_expression_is_told_with_its_column_and_its_part() -> None:
    converted = convert({"/a": {"GET": {**PUBLIC, "backofficeAuthorization": {"expression": "groups.a || x"}}}})
    (difference,) = [difference for difference in converted.differences if difference.lost]
    assert "backofficeAuthorization" in difference.message
    assert "column 13" in difference.message
    assert decided(converted, "GET", "/a", None) == Outcome.ALLOW
    assert decided(converted, "GET", "/a", Subject(is_backoffice=True), backoffice=True) == Outcome.FORBIDDEN


def test_a_texts_bound_that_one_route_exceeds_closes_it() -> None:
    text = '"' + "€" * 2000 + '" in groups'
    entry = {"authorization": {"expression": text}, "backofficeAuthorization": {"expression": f"!({text})"}}
    converted = convert({"/a": {"ALL": entry}})
    assert kinds(converted) == [conversion.INVALID_EXPRESSION]
    assert converted.routes == [{"path": "/a", "expression": "false"}]


def test_public_with_an_expression_asks_for_what_the_expression_says() -> None:
    converted = convert({"/a": {"ALL": {"authorization": {"public": True, "expression": "groups.a"}}}})
    assert kinds(converted) == [conversion.PUBLIC_WITH_EXPRESSION]
    assert decided(converted, "GET", "/a", None) == Outcome.UNAUTHENTICATED
    assert decided(converted, "GET", "/a", Subject()) == Outcome.FORBIDDEN
    assert decided(converted, "GET", "/a", Subject(groups=frozenset("a"))) == Outcome.ALLOW


@pytest.mark.parametrize("path", ["/a b", "/a?x=1", "/a%20b", "/a;v=1", "/a/../b", "/a//b", "/a/*/b", "", "a", "/:"])
def test_a_path_that_no_rule_can_mean_is_left_out_and_reported(path: str) -> None:
    converted = convert({path: {"ALL": needs("groups.a")}, "/other": {"ALL": PUBLIC}})
    assert [d.lost for d in converted.differences if d.kind == conversion.INVALID_PATH] == [True]
    assert [route["path"] for route in converted.routes] == ["/other"]


@pytest.mark.parametrize(
    ("wide", "path"),
    [
        pytest.param("/", "/a b", id="the root"),
        pytest.param("/a", "/a/x%20y", id="the path before it"),
        pytest.param("/a/b", "/a%2Fb", id="what it decodes to"),
        pytest.param("/:id", "/a;v=1", id="a parameter"),
        pytest.param("/a/x", "/a/*/b", id="one of the wildcard's"),
        pytest.param("/x/c", "/:id/c//d", id="one of a parameter's"),
    ],
)
def test_a_path_left_out_under_a_wider_one_is_reported_as_opening(wide: str, path: str) -> None:
    converted = convert({wide: {"ALL": PUBLIC}, path: {"ALL": needs("groups.a")}})
    assert converted.would_open
    (difference,) = [d for d in converted.differences if d.kind == conversion.WOULD_OPEN]
    assert wide in difference.message


@pytest.mark.parametrize(
    ("wide", "method", "path"),
    [
        pytest.param("/", "POST", "/a b", id="another method"),
        pytest.param("/b", "GET", "/a b", id="another literal"),
        pytest.param("/b", "GET", "/a%20b", id="another literal when decoded"),
        pytest.param("/a/:id", "GET", "/a?x=1", id="a longer path"),
    ],
)
def test_a_path_left_out_beside_routes_that_cannot_cover_it_opens_nothing(wide: str, method: str, path: str) -> None:
    converted = convert({wide: {"GET": PUBLIC}, path: {method: needs("groups.a")}})
    assert not converted.complete
    assert not converted.would_open


def test_methods_outside_the_seven_are_left_out_and_those_in_small_letters_are_closed() -> None:
    converted = convert({"/": {"ALL": PUBLIC}, "/a": {"ALL": PUBLIC, "TRACE": PUBLIC, "get": needs("groups.a")}})
    assert kinds(converted) == [conversion.INVALID_METHOD] * 2
    assert not converted.complete
    assert decided(converted, "GET", "/a", Subject(groups=frozenset("a"))) == Outcome.FORBIDDEN
    assert decided(converted, "POST", "/a", None) == Outcome.ALLOW
    assert decided(converted, "TRACE", "/a", None) == Outcome.UNKNOWN_ROUTE


@pytest.mark.parametrize("other", ["/a/:x/", "/a/:y"], ids=["with a trailing slash", "with another parameter"])
def test_two_paths_that_are_one_here_are_reported_and_both_must_be_satisfied(other: str) -> None:
    converted = convert({"/a/:x": {"GET": PUBLIC}, other: {"ALL": needs("groups.a")}})
    assert conversion.SAME_PATH in kinds(converted)
    assert decided(converted, "GET", "/a/7", None) == Outcome.UNAUTHENTICATED
    assert decided(converted, "GET", "/a/7", Subject(groups=frozenset("a"))) == Outcome.ALLOW


def test_a_trailing_slash_is_reported() -> None:
    converted = convert({"/a/": {"ALL": PUBLIC}})
    assert kinds(converted) == [conversion.TRAILING_SLASH]
    assert decided(converted, "GET", "/a", None) == Outcome.ALLOW


def test_a_wildcard_is_reported_with_the_path_that_it_does_not_cover() -> None:
    converted = convert({"/a/*": {"ALL": PUBLIC}})
    (difference,) = [difference for difference in converted.differences if difference.kind == conversion.WILDCARD]
    assert "not /a itself" in difference.message
    assert decided(converted, "GET", "/a/b/c", None) == Outcome.ALLOW
    assert decided(converted, "GET", "/a", None) == Outcome.UNKNOWN_ROUTE


def test_readings_and_unknown_routes_are_reported_as_different_whatever_the_configuration() -> None:
    readings, unknown = convert({"/a": {"ALL": {**PUBLIC, "backofficeAuthorization": {"public": True}}}}).differences
    assert (readings.kind, unknown.kind) == (conversion.PATH_READINGS, conversion.UNKNOWN_ROUTE)
    assert "%2F" in readings.message
    assert "403" in unknown.message
    assert not readings.lost
    assert not unknown.lost


def test_a_slash_in_disguise_is_what_the_report_says() -> None:
    converted = convert({"/a/b": {"ALL": PUBLIC}})
    assert decided(converted, "GET", "/a/b", None) == Outcome.ALLOW
    assert decided(converted, "GET", "/a%2Fb", None) == Outcome.UNKNOWN_ROUTE


@pytest.mark.parametrize(
    ("expression", "reported"),
    [
        ("groups.ops", True),
        ('"ops" in groups', True),
        ('clientType == "x" && !userProperties.plan', True),
        ('permissions["groups"]', False),
        ("permissions.groups", False),
        ('"userProperties.x" in permissions', False),
        ("isBackoffice", False),
    ],
)
def test_expressions_that_ask_for_what_a_client_never_has_are_reported(expression: str, reported: bool) -> None:
    found = [one for one in convert({"/a": {"ALL": needs(expression)}}).differences if one.path == ""]
    assert (conversion.OWN_TOKENS_NO_USERS in {one.kind for one in found}) == reported


def test_methods_that_ask_the_same_are_one_route() -> None:
    converted = convert({"/a": {"POST": needs("groups.a"), "GET": PUBLIC, "PUT": needs("groups.a"), "ALL": PUBLIC}})
    assert converted.routes == [
        {"path": "/a", "methods": ["GET"], "public": True},
        {"path": "/a", "methods": ["POST", "PUT"], "expression": "groups.a"},
        {"path": "/a", "public": True},
    ]
    state, problems = parse_rule({"routes": converted.routes}, None)
    assert not problems
    assert not find_conflicts({"default/a": state})


def test_more_than_an_object_holds_is_split_and_nothing_is_lost() -> None:
    many = convert({f"/p{index}": {"GET": PUBLIC} for index in range(2 * MAX_ROUTES + 1)})
    assert [len(part) for part in split(many.routes)] == [100, 100, 1]
    long = convert({f"/p{index}": {"GET": needs("groups.a || " * 150 + f"groups.b{index}")} for index in range(20)})
    parts = split(long.routes)
    assert [route for part in parts for route in part] == long.routes
    assert len(parts) > 1
    assert all(sum(map(text_bytes, part)) <= MAX_TEXT_BYTES for part in parts)
    assert all(sum(map(text_bytes, [*part, later[0]])) > MAX_TEXT_BYTES for part, later in pairwise(parts))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from(EXPRESSIONS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "/",
                    "/a",
                    "a b",
                    "GET",
                    "ALL",
                    "get",
                    "authorization",
                    "backofficeAuthorization",
                    "public",
                    "expression",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=6) | st.sampled_from(["/", "/a", "/a b"]), JSON, max_size=4))
def test_whatever_the_json_the_routes_are_valid(configuration: Configuration) -> None:
    converted = convert(configuration)
    assert len(table_of(converted).rules) == len(split(converted.routes))


@pytest.fixture
def auth(tmp_path: Path) -> Path:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"/a": {"ALL": needs("groups.a")}, "/b": {"GET": PUBLIC}}))
    return path


def test_manifests_go_to_stdout_and_the_report_to_stderr(auth: Path) -> None:
    result = keyturn("convert", str(auth), "--name", "shop", "--namespace", "team-a")
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout) == {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "AccessRule",
        "metadata": {"name": "shop", "namespace": "team-a"},
        "spec": {
            "routes": [
                {"path": "/a", "expression": "groups.a"},
                {"path": "/b", "methods": ["GET"], "public": True},
            ]
        },
    }
    assert "UnknownRoute" in result.stderr


def test_the_configuration_is_read_from_stdin(auth: Path) -> None:
    result = keyturn("convert", "-", stdin=auth.read_bytes())
    assert yaml.safe_load(result.stdout)["metadata"] == {"name": "converted"}


def test_further_objects_are_numbered_and_files_are_replaced(tmp_path: Path, auth: Path) -> None:
    auth.write_text(json.dumps({f"/p{index}": {"ALL": PUBLIC} for index in range(101)}))
    output, report = tmp_path / "rules.yaml", tmp_path / "report.json"
    output.write_text("old")
    result = keyturn("convert", str(auth), "-o", str(output), "--name", "shop", "--report", str(report))
    assert (result.exit_code, result.stdout) == (0, "")
    documents = list(yaml.safe_load_all(output.read_text()))
    assert [document["metadata"]["name"] for document in documents] == ["shop", "shop-2"]
    body = json.loads(report.read_text())
    assert (body["complete"], body["written"], body["routes"], body["objects"]) == (True, True, 101, 2)
    assert {difference["kind"] for difference in body["differences"]} == {
        "UnknownRoute",
        "PathReadings",
        "BackofficeMissing",
    }


def test_what_is_left_out_is_reported_and_the_exit_code_says_so(auth: Path) -> None:
    auth.write_text(json.dumps({"/a b": {"ALL": PUBLIC}, "/c": {"ALL": PUBLIC}}))
    result = keyturn("convert", str(auth))
    assert result.exit_code == 1
    assert "InvalidPath: /a b: the route was left out" in result.stderr
    assert [route["path"] for route in yaml.safe_load(result.stdout)["spec"]["routes"]] == ["/c"]


def test_nothing_is_written_where_a_path_left_out_would_open_something(tmp_path: Path, auth: Path) -> None:
    auth.write_text(json.dumps({"/a b": {"ALL": needs("false")}, "/": {"ALL": PUBLIC}}))
    result = keyturn("convert", str(auth), "-o", str(tmp_path / "rules.yaml"))
    assert result.exit_code == 1
    assert "WouldOpen: /a b" in result.stderr
    assert not (tmp_path / "rules.yaml").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(b"{", "not valid JSON", id="no JSON"),
        pytest.param(b"[]", "not a JSON object", id="a list"),
        pytest.param(b'{"/a": {}, "/a": {}}', "a member stands twice", id="a path twice"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_usage_error(auth: Path, content: bytes, complaint: str) -> None:
    auth.write_bytes(content)
    result = keyturn("convert", str(auth))
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr


@pytest.mark.parametrize("arguments", [["--name", "No Name"], ["--namespace", "a.b"], ["--name", "a..b"]], ids=" ".join)
def test_names_that_kubernetes_refuses_are_usage_errors(auth: Path, arguments: list[str]) -> None:
    assert keyturn("convert", str(auth), *arguments).exit_code == 2


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert keyturn("convert", str(tmp_path / "none.json")).exit_code == 2
