"""`/auth`: the order of the answers, what they carry, and what each profile reads."""

from typing import Any

import pytest

from keyturn.records import Kind
from keyturn.rules.decision import Decision, Outcome
from keyturn.rules.state import AUDIT, Condition, RouteState, RuleState
from keyturn_api.answers import GatewayAnswers
from keyturn_api.audit_mode import LINES_PER_SECOND, MAX_LABELS, OTHER, AuditedDenials
from keyturn_api.callers import Callers
from keyturn_api.gateway import Gateway
from keyturn_api.http import Response, Scope
from keyturn_api.profiles.envoy import envoy
from keyturn_api.profiles.original_request import original_request
from tests.unit.api.worlds import World, access_token, content, fields, metrics, scope
from tests.unit.tokens.worlds import NOW

BEARER = ("authorization", b"Bearer " + access_token())
EXPIRED = ("authorization", b"Bearer " + access_token(exp=NOW - 1))
IDENTITY = ("mia-userid", "mia-groups", "mia-userproperties", "mia-clientid")


class AtOnce:
    """A gateway that has its answers without asking elsewhere."""

    def __init__(self, made: Gateway) -> None:
        self.made = made

    def __call__(self, question: Scope) -> Response:
        answer = self.made(question)
        assert isinstance(answer, Response)
        return answer


def gateway(world: World, profile: Any = original_request, **more: Any) -> AtOnce:
    more = {"clock": lambda: NOW, **more}
    return AtOnce(Gateway(world.snapshot, Callers(world.tokens()), metrics(), profile=profile, **more))


def asked(path: str, method: str, *headers: tuple[str, str | bytes], world: World | None = None) -> Response:
    question = (("original-request-uri", path), ("original-request-method", method))
    return gateway(world or World())(scope("GET", "/auth", *question, *headers))


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        pytest.param("/orders/7?x=1", "GET", [BEARER], 200, id="a permission that suffices"),
        pytest.param("/nowhere", "GET", [BEARER], 403, id="an unknown route with a token"),
        pytest.param("/nowhere", "GET", [], 403, id="an unknown route without a token"),
        pytest.param("/nowhere", "GET", [("authorization", "junk")], 403, id="an unknown route with junk"),
        pytest.param("/orders", "DELETE", [BEARER], 403, id="a method without a route"),
        pytest.param("/open", "GET", [], 200, id="a public route without a token"),
        pytest.param("/open", "GET", [EXPIRED], 200, id="a public route with a refused token"),
        pytest.param("/open", "GET", [BEARER, BEARER], 200, id="a public route with two tokens"),
        pytest.param("/orders", "GET", [], 401, id="no token"),
        pytest.param("/orders", "GET", [EXPIRED], 401, id="an expired token"),
        pytest.param("/orders", "GET", [BEARER, BEARER], 401, id="two Authorization headers"),
        pytest.param("/orders", "POST", [BEARER], 403, id="a permission that is missing"),
        pytest.param("/orders/%2e%2e/nowhere", "GET", [BEARER], 403, id="dot segments to nowhere"),
        pytest.param("/open%2f..%2forders", "POST", [BEARER], 403, id="an encoded way out of a public route"),
        pytest.param("/orders#x", "GET", [BEARER], 403, id="a fragment"),
        pytest.param("/orders%00", "GET", [BEARER], 403, id="NUL"),
        pytest.param("/orders", "GET", [BEARER, ("isbackoffice", "1")], 403, id="the backoffice part"),
        pytest.param("/mobile", "GET", [BEARER, ("client-type", "mobile")], 200, id="the client type"),
        pytest.param("/mobile", "GET", [BEARER], 403, id="no client type"),
    ],
)
def test_the_answer_follows_the_order_of_the_rules(path: str, method: str, headers: Any, status: int) -> None:
    answer = asked(path, method, *headers)
    assert answer.status == status
    assert fields(answer)["mia-allowed"] == ("1" if status == 200 else "0")


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "bearer\t x",
        "Basic YTpi",
        "Bearer a.b.c",
        "Bearer ä",
        "Bearer x y",
        "Bearer " + "a" * 9000,
    ],
)
def test_malformed_credentials_are_401_with_a_challenge(value: str) -> None:
    answer = asked("/orders", "GET", ("authorization", value))
    assert answer.status == 401
    assert fields(answer)["www-authenticate"].startswith('Bearer error="invalid_token"')


def test_without_credentials_the_challenge_names_no_error() -> None:
    assert fields(asked("/orders", "GET"))["www-authenticate"] == "Bearer"


def test_an_allowed_answer_carries_the_identity() -> None:
    headers = fields(asked("/orders", "GET", BEARER))
    assert [headers[name] for name in IDENTITY] == ["team.app", "", "", "team.app"]


@pytest.mark.parametrize("headers", [[], [EXPIRED], [("authorization", "junk")]])
def test_a_public_answer_carries_all_identity_headers_empty_without_identity(headers: Any) -> None:
    given = fields(asked("/open", "GET", *headers))
    assert [given[name] for name in IDENTITY] == ["", "", "", ""]


def test_a_denial_carries_an_id_and_no_identity() -> None:
    answer = asked("/orders", "POST", BEARER, ("x-request-id", "abc-1"))
    assert content(answer)["id"] == "abc-1"
    assert not set(IDENTITY) & set(fields(answer))


def test_the_identity_given_in_the_request_never_comes_back() -> None:
    answer = asked("/open", "GET", ("mia-userid", "admin"), ("mia-clientid", "admin"))
    assert fields(answer)["mia-userid"] == ""


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="neither"),
        pytest.param([("original-request-uri", "/open")], id="no method"),
        pytest.param([("original-request-method", "GET")], id="no path"),
        pytest.param(
            [("original-request-uri", "/open"), ("original-request-uri", "/x"), ("original-request-method", "GET")],
            id="two paths",
        ),
        pytest.param([("x-original-uri", "/open"), ("x-forwarded-method", "GET")], id="another gateway's headers"),
    ],
)
def test_a_question_that_cannot_be_read_is_denied(headers: Any) -> None:
    assert gateway(World())(scope("GET", "/auth", *headers)).status == 403


def test_nothing_is_decided_before_the_snapshot_is_loaded() -> None:
    answer = asked("/open", "GET", world=World(loaded=False))
    assert answer.status == 503
    assert fields(answer)["retry-after"] == "1"


def test_nothing_is_decided_from_a_snapshot_that_is_too_old() -> None:
    stale = gateway(World(), is_stale=lambda _: True)
    question = (("original-request-uri", "/open"), ("original-request-method", "GET"))
    assert stale(scope("GET", "/auth", *question)).status == 503


def test_a_change_is_effective_for_a_token_that_was_seen_before() -> None:
    world = World()
    decide = gateway(world)
    question = scope("GET", "/auth", ("original-request-uri", "/orders"), ("original-request-method", "GET"), BEARER)
    assert decide(question).status == 200
    world.change_client(permissions=("orders:write",))
    assert decide(question).status == 403
    world.change_client()
    assert decide(question).status == 200
    world.change_client(suspended=True)
    assert decide(question).status == 401
    world.change((Kind.CLIENT, "c1", None))
    assert decide(question).status == 401


def test_a_token_that_was_seen_before_ends_with_its_time() -> None:
    world = World()
    now = [NOW]
    decide = gateway(world, clock=lambda: now[0])
    question = scope("GET", "/auth", ("original-request-uri", "/orders"), ("original-request-method", "GET"), BEARER)
    assert decide(question).status == 200
    now[0] = NOW + 600
    assert decide(question).status == 401


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        pytest.param("GET", "/auth/orders/7", [BEARER], 200, id="the path behind /auth"),
        pytest.param("POST", "/auth/orders", [BEARER], 403, id="the request's own method"),
        pytest.param("GET", "/auth//open", [], 200, id="doubled slashes"),
        pytest.param("GET", "/auth", [], 403, id="no path: the root, which has no route"),
        pytest.param(
            "GET", "/auth/nowhere", [("original-request-uri", "/open")], 403, id="others' headers are not read"
        ),
        pytest.param("GET", "/auth/orders#/../../open", [BEARER], 403, id="a fragment"),
        pytest.param("GET", "/auth/orders", [BEARER, ("isbackoffice", "1")], 200, id="context headers are not read"),
    ],
)
def test_under_profile_envoy_path_and_method_are_the_requests_own(
    method: str, path: str, headers: Any, status: int
) -> None:
    assert gateway(World(), envoy())(scope(method, path, *headers)).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param([("host", "api.example:443")], 200, id="the rule's host"),
        pytest.param([("host", "other.example")], 403, id="another host"),
        pytest.param([("host", "api.example"), ("host", "other.example")], 403, id="two hosts"),
    ],
)
def test_under_profile_envoy_the_host_decides_too(headers: Any, status: int) -> None:
    world = World()
    hosted = RuleState(hosts=("api.example",), routes=(RouteState("/hosted", ("GET",), Condition(public=True)),))
    world.change((Kind.ACCESS_RULE, "r2", hosted.to_body()))
    assert gateway(world, envoy())(scope("GET", "/auth/hosted", *headers)).status == status


def test_context_headers_are_read_under_envoy_by_setting() -> None:
    decide = gateway(World(), envoy(b"/prefix", context_headers=True))
    assert decide(scope("GET", "/prefix/auth/orders", BEARER, ("isbackoffice", "1"))).status == 403


def test_a_rule_can_narrow_the_audience() -> None:
    world = World()
    narrowed = RuleState(
        audiences=("billing",), routes=(RouteState("/bills", ("GET",), Condition(any_of=("orders:read",))),)
    )
    world.change((Kind.ACCESS_RULE, "r2", narrowed.to_body()))
    assert asked("/bills", "GET", BEARER, world=world).status == 403


def test_a_missing_permission_is_told_by_the_error_of_rfc_6750_without_the_permission() -> None:
    answer = asked("/orders", "POST", BEARER)
    assert fields(answer)["www-authenticate"].startswith('Bearer error="insufficient_scope"')
    assert "orders:admin" not in str(answer)
    assert "team/keyturn" not in str(answer)


@pytest.mark.parametrize("headers", [[], [BEARER]], ids=["without a token", "with a token"])
def test_an_unknown_route_has_no_challenge_since_no_token_would_do(headers: Any) -> None:
    assert "www-authenticate" not in fields(asked("/nowhere", "GET", *headers))


def test_the_id_of_a_denial_stands_in_a_header_too_for_gateways_that_drop_the_body() -> None:
    assert fields(asked("/orders", "POST", BEARER, ("x-request-id", "abc-1")))["x-request-id"] == "abc-1"
    made = asked("/orders", "POST", BEARER, ("x-request-id", "not\tone"))
    assert fields(made)["x-request-id"] == content(made)["id"] != "not\tone"


LENIENT = GatewayAnswers(strict=False)
REFERENCE = GatewayAnswers(unknown_route="reference")


@pytest.mark.parametrize(
    ("answers", "path", "headers", "status", "allowed"),
    [
        pytest.param(LENIENT, "/orders", [BEARER], 200, "1", id="not strict: allowed"),
        pytest.param(LENIENT, "/orders", [], 200, "0", id="not strict: no token"),
        pytest.param(LENIENT, "/orders", [EXPIRED], 200, "0", id="not strict: a refused token"),
        pytest.param(LENIENT, "/mobile", [BEARER], 200, "0", id="not strict: what is asked is lacking"),
        pytest.param(LENIENT, "/nowhere", [BEARER], 200, "0", id="not strict: an unknown route"),
        pytest.param(LENIENT, "/orders%00", [BEARER], 200, "0", id="not strict: a path that is refused"),
        pytest.param(REFERENCE, "/nowhere", [], 200, "0", id="the reference's unknown route"),
        pytest.param(REFERENCE, "/orders%00", [BEARER], 403, "0", id="the reference's way opens no refused path"),
        pytest.param(REFERENCE, "/orders", [], 401, "0", id="the reference's way asks for a token"),
        pytest.param(REFERENCE, "/mobile", [BEARER], 403, "0", id="the reference's way asks for permissions"),
    ],
)
def test_the_references_answers_are_there_by_settings(
    answers: GatewayAnswers, path: str, headers: Any, status: int, allowed: str
) -> None:
    question = (("original-request-uri", path), ("original-request-method", "GET"))
    answer = gateway(World(), answers=answers)(scope("GET", "/auth", *question, *headers))
    given = fields(answer)
    assert (answer.status, given["mia-allowed"]) == (status, allowed)
    if (status, allowed) == (200, "0"):
        # Whoever lets it through all the same must not pass on what the caller called himself.
        assert [given[name] for name in IDENTITY] == ["", "", "", ""]
        assert content(answer)["id"] == given["x-request-id"]


def test_what_cannot_be_decided_is_503_also_where_each_decision_is_200() -> None:
    question = (("original-request-uri", "/open"), ("original-request-method", "GET"))
    assert gateway(World(loaded=False), answers=LENIENT)(scope("GET", "/auth", *question)).status == 503


def test_a_client_is_no_user_where_users_come_from_elsewhere() -> None:
    question = (("original-request-uri", "/orders"), ("original-request-method", "GET"))
    answers = GatewayAnswers(client_as_user=False, header_prefix="x-")
    given = fields(gateway(World(), answers=answers)(scope("GET", "/auth", *question, BEARER)))
    assert (given["x-userid"], given["x-clientid"]) == ("", "team.app")


TRIED = RuleState(mode=AUDIT, routes=(RouteState("/orders", ("GET",), Condition(any_of=("orders:audit",))),))


def test_a_rule_under_audit_changes_no_answer_and_is_counted_and_logged(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.change((Kind.ACCESS_RULE, "r2", TRIED.to_body()))
    counted = metrics()
    decide = AtOnce(
        Gateway(world.snapshot, Callers(world.tokens()), counted, profile=original_request, clock=lambda: NOW)
    )
    question = (("original-request-uri", "/orders/7?secret=1"), ("original-request-method", "GET"))
    for _ in range(LINES_PER_SECOND + 5):
        assert decide(scope("GET", "/auth", *question, BEARER)).status == 200
    assert decide(scope("GET", "/auth", *question)).status == 401
    total = counted.registry.get_sample_value(
        "keyturn_api_audit_denials_total", {"rule": "team/keyturn", "outcome": "Forbidden"}
    )
    assert total == LINES_PER_SECOND + 5
    lines = [line for line in capsys.readouterr().out.splitlines() if "would_be_denied" in line]
    assert len(lines) == LINES_PER_SECOND
    assert "Missing, one of: orders:audit" in lines[0]
    assert "team.app" in lines[0]
    assert "secret" not in "".join(lines)


def test_a_public_route_that_a_tried_rule_would_close_is_counted_with_and_without_a_token() -> None:
    world = World()
    closing = RuleState(mode=AUDIT, routes=(RouteState("/open", ("ALL",), Condition(any_of=("orders:audit",))),))
    world.change((Kind.ACCESS_RULE, "r2", closing.to_body()))
    counted = metrics()
    decide = AtOnce(
        Gateway(world.snapshot, Callers(world.tokens()), counted, profile=original_request, clock=lambda: NOW)
    )
    question = (("original-request-uri", "/open"), ("original-request-method", "GET"))
    for headers in ([], [BEARER], [BEARER]):
        assert decide(scope("GET", "/auth", *question, *headers)).status == 200
    for outcome, times in (("Unauthenticated", 1), ("Forbidden", 2)):
        labels = {"rule": "team/keyturn", "outcome": outcome}
        assert counted.registry.get_sample_value("keyturn_api_audit_denials_total", labels) == times


def test_the_metric_names_a_bounded_number_of_rules() -> None:
    counted = metrics()
    audited = AuditedDenials(counted)
    denied = Decision(Outcome.FORBIDDEN, "MissingPermission")
    for number in range(MAX_LABELS + 3):
        audited.note(f"n/{number}", denied, method="GET", path="/", client_id=None, request_id="r", now=NOW)
    other = {"rule": OTHER, "outcome": "Forbidden"}
    assert counted.registry.get_sample_value("keyturn_api_audit_denials_total", other) == 3


@pytest.mark.parametrize(
    "told",
    [
        pytest.param((("host", "api.example"),), id="in front of the gateway"),
        pytest.param((("host", "api.example:443"), ("x-forwarded-proto", "https")), id="at the gateway"),
        pytest.param((("host", "api.example:80"), ("x-forwarded-proto", "http")), id="nowhere"),
    ],
)
@pytest.mark.parametrize("path", ["/hosted", "/hosted/../orders", "/nowhere"])
def test_wherever_tls_ended_the_decision_is_the_same(told: Any, path: str) -> None:
    world = World()
    hosted = RuleState(hosts=("api.example",), routes=(RouteState("/hosted", ("GET",), Condition(public=True)),))
    world.change((Kind.ACCESS_RULE, "r2", hosted.to_body()))
    expected = {"/hosted": 200, "/hosted/../orders": 401, "/nowhere": 403}[path]
    assert gateway(world, envoy())(scope("GET", f"/auth{path}", *told)).status == expected
