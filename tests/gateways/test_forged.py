"""What a caller writes to pass for another, or for another request: nothing of it gets anywhere, behind any gateway."""

import pytest

from keyturn.rules.decision import Outcome as Decided
from keyturn.rules.decision import decide
from tests.gateways.conftest import TABLE, World
from tests.gateways.gateways import Outcome, Way
from tests.gateways.wire import Header

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUESTIONS: tuple[tuple[Header, ...], ...] = (
    (("X-Forwarded-Uri", "/info"),),
    (("X_Forwarded_Uri", "/info"),),
    (("X-Forwarded-Uri", "/info"), ("X-Forwarded-Uri", "/info")),
    (("X-Forwarded-Uri", "/info"), ("X-Forwarded-Method", "GET"), ("X-Forwarded-Host", "open.example")),
    (("X-Forwarded-Host", "open.example"),),
    (("X-Forwarded-Prefix", "/info"),),
    (("Forwarded", "host=open.example;proto=https"),),
    (("Original-Request-Uri", "/info"),),
    (("Original_Request_Uri", "/info"),),
    (("Original-Request-Uri", "/info"), ("Original-Request-Method", "GET")),
    (("Original-Request-Uri", "/info"), ("Original-Request-Uri", "/info")),
    (("X-Original-URL", "http://shop.example/info"),),
    (("X_Original_URL", "http://shop.example/info"),),
    (("X-Original-URL", "http://shop.example/info"), ("X-Original-Method", "GET")),
    (("X-Original-Uri", "/info"), ("X-Original-Host", "open.example"), ("X-Original-Method", "GET")),
    (("X-Original-Uri", "/info"), ("X-Original-Uri", "/info")),
    (("X-Rewrite-URL", "/info"),),
    (("X-Envoy-Original-Path", "/info"),),
    (("X-HTTP-Method-Override", "OPTIONS"),),
    (("Mia-Allowed", "1"), ("Mia-UserId", "team.billing"), ("Mia-ClientId", "team.billing")),
    (("isbackoffice", "1"), ("Client-Type", "mobile")),
)
IDENTITIES: tuple[tuple[Header, ...], ...] = (
    (("mia-userid", "admin"),),
    (("MIA-CLIENTID", "admin"),),
    (("Mia-Groups", "admin"), ("Mia-UserProperties", '{"plan":"gold"}')),
    (("mia_userid", "admin"),),
    (("mia_clientid", "admin"), ("Mia_Groups", "admin"), ("MIA_USERPROPERTIES", "{}"), ("mia_allowed", "1")),
    (("mia-clientid", "admin"), ("mia-clientid", "admin")),
    (("mia-userid", "admin"), ("Mia_UserId", "admin"), ("MIA-USERID", "admin")),
    (("mia-allowed", "1"),),
)
CONTEXTS: tuple[tuple[Header, ...], ...] = (
    (("isbackoffice", "1"),),
    (("IsBackoffice", "true"), ("isbackoffice", "1")),
    (("Client-Type", "mobile"),),
    (("client_type", "mobile"),),
)


def words(headers: tuple[Header, ...]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in headers)


@pytest.mark.parametrize("way", ["plain", "HTTP/2"])
@pytest.mark.parametrize("forged", QUESTIONS, ids=words)
async def test_a_forged_question_changes_no_decision(world: World, way: Way, forged: tuple[Header, ...]) -> None:
    for method, target, status in (("GET", "/private", 401), ("GET", "/nowhere", 403), ("POST", "/orders", 401)):
        came_to = await world.gateway.ask(method, target, *forged, way=way)
        assert not came_to.passed, target
        assert came_to.answer.status == status, target
    allowed = await world.gateway.ask("GET", "/private", *forged, token=world.tokens.permitted, way=way)
    assert allowed.seen is not None, "nor does it lock anybody out"


@pytest.mark.parametrize(
    "listed",
    ["X-Forwarded-Uri", "X-Forwarded-Method, X-Forwarded-Uri, X-Forwarded-Host", "X-Original-URL", "Authorization"],
)
async def test_a_header_that_the_caller_calls_hop_by_hop_opens_nothing(world: World, listed: str) -> None:
    forged = (("Connection", f"{listed}, keep-alive"), ("X-Forwarded-Uri", "/info"), ("Original-Request-Uri", "/info"))
    came_to = await world.gateway.ask("GET", "/private", *forged)
    assert not came_to.passed
    assert came_to.answer.status in (400, 401, 403)


@pytest.mark.parametrize("listed", ["mia-clientid, mia-userid", "mia-groups"])
async def test_a_header_that_the_caller_calls_hop_by_hop_forges_no_identity(world: World, listed: str) -> None:
    forged = (("Connection", f"{listed}, keep-alive"), ("mia-clientid", "admin"), ("mia-userid", "admin"))
    came_to = await world.gateway.ask("GET", "/orders", *forged, token=world.tokens.permitted)
    if came_to.passed:
        assert_identity(came_to, allowed={"", "team.billing"}, grpc=world.gateway.kind.profile == "envoy-grpc")


@pytest.mark.parametrize("way", ["plain", "HTTP/2"])
@pytest.mark.parametrize("forged", IDENTITIES, ids=words)
async def test_a_forged_identity_does_not_reach_the_api(world: World, way: Way, forged: tuple[Header, ...]) -> None:
    nobody = await world.gateway.ask("GET", "/info", *forged, way=way)
    assert_identity(nobody, allowed={""}, grpc=world.gateway.kind.profile == "envoy-grpc")
    somebody = await world.gateway.ask("GET", "/orders", *forged, token=world.tokens.permitted, way=way)
    assert_identity(somebody, allowed={"team.billing"}, grpc=world.gateway.kind.profile == "envoy-grpc")


def assert_identity(came_to: Outcome, *, allowed: set[str], grpc: bool) -> None:
    """What a CGI or WSGI program behind the gateway takes for the identity: there a hyphen and an underscore are the same."""
    assert came_to.seen is not None, came_to.answer
    told = came_to.seen.as_cgi()
    assert not any(told.get("MIA_GROUPS", []) + told.get("MIA_USERPROPERTIES", []))
    # By gRPC all of Keyturn's words reach the API, this one too.
    assert told.get("MIA_ALLOWED", []) in ([], ["1"] if grpc else [])
    for name in ("MIA_CLIENTID", "MIA_USERID"):
        values = told.get(name, [""])
        assert len(values) == 1, values
        assert values[0] in allowed


@pytest.mark.parametrize("way", ["plain", "HTTP/2"])
@pytest.mark.parametrize("forged", CONTEXTS, ids=words)
async def test_a_forged_context_changes_no_decision_and_does_not_reach_the_api(
    world: World, way: Way, forged: tuple[Header, ...]
) -> None:
    # Its back office part asks for another permission, and the other route for a client type.
    main = await world.gateway.ask("GET", "/orders", *forged, token=world.tokens.permitted, way=way)
    assert main.seen is not None, main.answer
    told = main.seen.as_cgi()
    assert not any(told.get("ISBACKOFFICE", []) + told.get("CLIENT_TYPE", []))
    mobile = await world.gateway.ask("GET", "/mobile", *forged, token=world.tokens.permitted, way=way)
    assert mobile.answer.status == 403


@pytest.mark.parametrize("way", ["plain", "HTTP/2"])
@pytest.mark.parametrize("first", ["permitted", "guest", "junk"])
@pytest.mark.parametrize("second", ["permitted", "guest", "junk"])
async def test_two_authorization_headers_are_refused(world: World, way: Way, first: str, second: str) -> None:
    known = {"permitted": world.tokens.permitted, "guest": world.tokens.guest, "junk": "a.b.c"}
    headers = [("Authorization", f"Bearer {known[who]}") for who in (first, second)]
    came_to = await world.gateway.ask("GET", "/private", *headers, way=way)
    assert not came_to.passed
    assert came_to.answer.status in (400, 401)


@pytest.mark.parametrize(
    ("host", "more"),
    [
        pytest.param("open.example", (("Host", "shop.example"),), id="two hosts"),
        pytest.param("shop.example", (("Host", "open.example"),), id="two hosts, the other way round"),
        pytest.param("shop.example, open.example", (), id="two in one"),
        pytest.param("open.example?", (), id="a question mark"),
        pytest.param("open.example#", (), id="a number sign"),
        pytest.param("open.example/info?", (), id="a path"),
        pytest.param("open.example\\", (), id="a backslash"),
        pytest.param("shop.example@open.example", (), id="user information"),
        pytest.param("open.example:80:90", (), id="two ports"),
        pytest.param("open.example.", (), id="the root's dot"),
        pytest.param("", (), id="an empty one"),
        pytest.param(None, (), id="none"),
    ],
)
@pytest.mark.parametrize("target", ["/hosted", "/private", "http://open.example/hosted", "http://shop.example/hosted"])
async def test_the_host_that_decided_is_the_host_that_the_api_sees(
    world: World, target: str, host: str | None, more: tuple[Header, ...]
) -> None:
    came_to = await world.gateway.ask("GET", target, *more, host=host)
    if came_to.seen is not None:
        hosts = came_to.seen.values("host")
        assert len(hosts) <= 1
        decision = decide(TABLE, method="GET", target=came_to.seen.target, host=came_to.seen.host, subject=None)
        assert decision.outcome is Decided.ALLOW, f"the API got {came_to.seen.target!r} for {hosts}"
    else:
        assert came_to.answer.status == 0 or came_to.answer.status >= 400


@pytest.mark.parametrize("more", [(("host", "open.example"),), (("host", "shop.example"),)], ids=words)
@pytest.mark.parametrize("authority", ["open.example", "shop.example", "open.example?", "open.example/"])
async def test_over_http2_too(world: World, authority: str, more: tuple[Header, ...]) -> None:
    for target in ("/hosted", "/private"):
        came_to = await world.gateway.ask("GET", target, *more, host=authority, way="HTTP/2")
        if came_to.seen is not None:
            decision = decide(TABLE, method="GET", target=came_to.seen.target, host=came_to.seen.host, subject=None)
            assert decision.outcome is Decided.ALLOW, f"the API got {came_to.seen.target!r} for {came_to.seen.host}"


async def test_without_a_host_what_counts_for_all_hosts_decides(world: World) -> None:
    refused = await world.gateway.ask("GET", "/hosted", host=None, version="1.0")
    assert refused.seen is None
    for target, token in (("/info", None), ("/private", None), ("/private", world.tokens.permitted)):
        came_to = await world.gateway.ask("GET", target, host=None, version="1.0", token=token)
        assert came_to.passed <= (target == "/info" or token is not None)
