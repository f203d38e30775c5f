"""Who is asking, where it is none of our own clients: a userinfo endpoint, trusted issuers, trusted headers."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from keyturn.records import Kind
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn_api.answers import GatewayAnswers
from keyturn_api.callers import Callers, OtherSource
from keyturn_api.fetching import Fetcher
from keyturn_api.gateway import Gateway
from keyturn_api.http import Response
from keyturn_api.issuer_keys import LEAST_PAUSE, MAX_AGE, REFRESH_EVERY
from keyturn_api.profiles.original_request import original_request
from keyturn_api.trusted_headers import TrustedHeaders
from keyturn_api.trusted_issuers import WAIT_SECONDS, TrustedIssuers
from keyturn_api.userinfo import MAX_ANSWER_BYTES, PUBLIC_WAIT, Userinfo
from tests.sample_keys import sample_key
from tests.unit.api.worlds import World, access_token, content, fields, metrics, scope, settings
from tests.unit.tokens.test_foreign import LOGIN, jwks, token
from tests.unit.tokens.worlds import ISSUER, NOW, SIGNING, encode

USERINFO = "https://users.example/userinfo"
ANN = {"sub": "ann", "groups": ["ops", "a,b"], "permissions": ["orders:read"], "userProperties": {"plan": "gold"}}
OPAQUE = ("authorization", "Bearer opaque-1")
COOKIE = ("cookie", "sid=1")
RULES = RuleState(
    routes=(
        RouteState("/ops", ("GET",), Condition(expression='groups.ops && userProperties.plan == "gold"')),
        RouteState("/anybody", ("GET",), Condition(expression="true")),
    )
)
NARROWED = RuleState(audiences=("orders",), routes=(RouteState("/narrow", ("GET",), Condition(expression="true")),))


class Asked:
    """A gateway over a source, with a clock that a test moves."""

    def __init__(self, make: Callable[["Asked"], OtherSource]) -> None:
        self.now = NOW
        self.world = World()
        self.world.change((Kind.ACCESS_RULE, "users", RULES.to_body()), (Kind.ACCESS_RULE, "n", NARROWED.to_body()))
        self.metrics = metrics()
        self.source = make(self)
        self.gateway = Gateway(
            self.world.snapshot,
            Callers(self.world.tokens(), (self.source,)),
            self.metrics,
            profile=original_request,
            answers=GatewayAnswers(client_as_user=False),
            clock=lambda: self.now,
        )

    def start(self, path: str, *headers: tuple[str, str | bytes], peer: str = "192.0.2.7") -> Any:
        question = scope("GET", "/auth", ("original-request-uri", path), ("original-request-method", "GET"), *headers)
        question["client"] = (peer, 4711)
        return self.gateway(question)

    async def ask(self, path: str, *headers: tuple[str, str | bytes], peer: str = "192.0.2.7") -> Response:
        answer = self.start(path, *headers, peer=peer)
        if isinstance(answer, Response):
            return answer
        assert isinstance(answer, Awaitable)
        found = await answer
        assert isinstance(found, Response)
        return found

    async def status(self, path: str, *headers: tuple[str, str | bytes], **more: Any) -> int:
        return (await self.ask(path, *headers, **more)).status


class Users(Asked):
    """Over a userinfo endpoint that answers as `answer` says, and remembers what it was asked."""

    def __init__(self, **more: Any) -> None:
        self.requests: list[httpx2.Request] = []
        self.answer: Callable[[httpx2.Request], httpx2.Response] = lambda _: httpx2.Response(200, json=ANN)
        self.pause: asyncio.Event | None = None

        async def respond(request: httpx2.Request) -> httpx2.Response:
            self.requests.append(request)
            if self.pause is not None:
                await self.pause.wait()
            return self.answer(request)

        accepted = frozenset(more.pop("accepted", ()))
        self.chosen = settings(userinfo_url=USERINFO, **more)
        fetcher = Fetcher(connections=4, transport=httpx2.MockTransport(respond))
        super().__init__(
            lambda own: Userinfo(
                USERINFO, self.chosen, own.metrics, fetcher, accepted=accepted, monotonic=lambda: own.now
            )
        )

    def says(self, status: int, **more: Any) -> None:
        self.answer = lambda _: httpx2.Response(status, **more)


def foreign(**claims: Any) -> tuple[str, str]:
    return "authorization", f"Bearer {token(**claims).decode()}"


async def test_the_userinfo_answer_makes_groups_permissions_properties_and_headers() -> None:
    users = Users()
    answer = await users.ask("/ops", OPAQUE)
    given = fields(answer)
    assert answer.status == 200
    assert (given["mia-userid"], given["mia-clientid"]) == ("ann", "")
    # A group with a comma would be two in a list.
    assert (given["mia-groups"], json.loads(given["mia-userproperties"])) == ("ops", {"plan": "gold"})
    assert await users.status("/orders", OPAQUE) == 200
    assert (users.requests[0].headers["authorization"], str(users.requests[0].url)) == ("Bearer opaque-1", USERINFO)


async def test_a_cookie_is_a_credential_too_and_several_fields_of_it_are_one() -> None:
    users = Users()
    assert await users.status("/ops", COOKIE, ("cookie", "b=2")) == 200
    assert users.requests[0].headers["cookie"] == "sid=1; b=2"
    assert "authorization" not in users.requests[0].headers


async def test_nothing_else_of_the_request_is_handed_on_and_what_is_is_chosen_by_a_setting() -> None:
    users = Users(authorization_headers_to_proxy="X-Session")
    assert await users.status("/ops", OPAQUE) == 401
    assert users.requests == []
    assert await users.status("/ops", ("x-session", "s"), ("x-other", "o"), COOKIE) == 200
    assert users.requests[0].headers["x-session"] == "s"
    assert not {"x-other", "cookie", "authorization"} & set(users.requests[0].headers)


async def test_without_any_credentials_nobody_is_asked() -> None:
    users = Users()
    answer = users.start("/ops")
    assert isinstance(answer, Response)
    assert (answer.status, fields(answer)["www-authenticate"], users.requests) == (401, "Bearer", [])


@pytest.mark.parametrize(
    ("status", "more", "expected"),
    [
        pytest.param(401, {}, 401, id="not logged in"),
        pytest.param(403, {}, 401, id="forbidden"),
        pytest.param(400, {}, 401, id="credentials that it cannot read"),
        pytest.param(200, {"json": {"groups": []}}, 401, id="nobody named"),
        pytest.param(200, {"json": {"sub": ""}}, 401, id="an empty name"),
        pytest.param(200, {"json": {"sub": 7}}, 401, id="a number for a name"),
        pytest.param(200, {"json": {"sub": "a\r\nmia-userid: root"}}, 401, id="a name with line ends"),
        pytest.param(200, {"json": {"sub": "a", "userProperties": {"x": "y" * 9000}}}, 401, id="endless properties"),
        pytest.param(200, {"json": [ANN]}, 503, id="a list"),
        pytest.param(200, {"content": b"not JSON"}, 503, id="no JSON"),
        pytest.param(200, {"content": b""}, 503, id="nothing"),
        pytest.param(200, {"content": b'{"sub":"a","sub":"b"}'}, 503, id="a member twice"),
        pytest.param(200, {"content": b" " * (MAX_ANSWER_BYTES + 1)}, 503, id="too much"),
        pytest.param(201, {"json": ANN}, 503, id="another success"),
        pytest.param(204, {}, 503, id="no content"),
        pytest.param(302, {"headers": {"location": "https://evil.example"}}, 503, id="a redirect"),
        pytest.param(404, {}, 503, id="not there"),
        pytest.param(500, {"json": ANN}, 503, id="an error"),
    ],
)
async def test_only_a_200_with_a_json_object_counts(status: int, more: dict[str, Any], expected: int) -> None:
    users = Users()
    users.says(status, **more)
    answer = await users.ask("/ops", OPAQUE)
    assert answer.status == expected
    assert len(users.requests) == 1
    if expected == 401:
        assert fields(answer)["www-authenticate"].startswith('Bearer error="invalid_token"')
    users.says(200, json=ANN)
    assert await users.status("/ops", OPAQUE) == 200


async def test_no_answer_in_time_is_503() -> None:
    users = Users(userinfo_timeout=0.05)
    users.pause = asyncio.Event()
    answer = await users.ask("/ops", OPAQUE)
    assert (answer.status, fields(answer)["retry-after"]) == (503, "1")


async def test_a_connection_that_fails_is_503() -> None:
    users = Users()

    def fail(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("secret in the text")

    users.answer = fail
    answer = await users.ask("/ops", OPAQUE)
    assert answer.status == 503
    assert "secret" not in str(answer)


async def test_an_answer_is_remembered_for_a_while_and_each_credential_for_itself() -> None:
    users = Users(userinfo_cache_seconds=20)
    for _ in range(3):
        assert await users.status("/ops", OPAQUE) == 200
    assert isinstance(users.start("/ops", OPAQUE), Response)
    assert len(users.requests) == 1
    assert await users.status("/ops", ("authorization", "Bearer opaque-2")) == 200
    assert await users.status("/ops", OPAQUE, COOKIE) == 200
    assert len(users.requests) == 3
    users.now += 20
    users.says(401)
    assert await users.status("/ops", OPAQUE) == 401


async def test_a_clock_that_was_put_back_remembers_nothing() -> None:
    users = Users()
    assert await users.status("/ops", OPAQUE) == 200
    users.now -= 1
    assert await users.status("/ops", OPAQUE) == 200
    assert len(users.requests) == 2


async def test_nothing_is_remembered_where_that_is_switched_off() -> None:
    users = Users(userinfo_cache_seconds=0)
    for _ in range(2):
        assert await users.status("/ops", OPAQUE) == 200
    assert len(users.requests) == 2


async def test_a_token_that_is_a_jwt_is_not_remembered_past_its_exp() -> None:
    users = Users(userinfo_cache_seconds=60)
    assert await users.status("/ops", foreign(exp=NOW + 7)) == 200
    users.now += 6
    assert await users.status("/ops", foreign(exp=NOW + 7)) == 200
    assert len(users.requests) == 1
    users.now += 1
    users.says(401)
    assert await users.status("/ops", foreign(exp=NOW + 7)) == 401


async def test_two_credentials_that_a_gateway_has_joined_are_401_and_asked_about_nowhere() -> None:
    users = Users()
    assert await users.status("/ops", ("authorization", "Bearer opaque-1,Bearer opaque-2")) == 401
    assert users.requests == []


@pytest.mark.parametrize("exp", ["9" * 400, "-" + "9" * 400, "1e999", "-1e999", "NaN", "true", "null", '"x"'])
async def test_an_exp_beyond_all_numbers_beside_a_good_session_harms_nobody(exp: str) -> None:
    users = Users()
    claims = base64.urlsafe_b64encode(f'{{"exp":{exp}}}'.encode()).decode()
    for path in ("/ops", "/open"):
        assert await users.status(path, ("authorization", f"Bearer e30.{claims}.eA"), COOKIE) == 200


async def test_of_one_credential_one_question_is_under_way() -> None:
    users = Users()
    users.pause = asyncio.Event()
    asking = [asyncio.ensure_future(users.ask("/ops", OPAQUE)) for _ in range(10)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0.01)
    users.pause.set()
    answers = await asyncio.gather(*asking[1:])
    assert [answer.status for answer in answers] == [200] * 9
    assert len(users.requests) == 1


async def test_when_too_many_wait_the_next_is_503_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn_api.userinfo.MAX_WAITING", 2)
    users = Users()
    users.pause = asyncio.Event()
    asking = [asyncio.ensure_future(users.ask("/ops", ("cookie", f"sid={number}"))) for number in range(2)]
    await asyncio.sleep(0)
    full = users.start("/ops", ("cookie", "sid=3"))
    assert isinstance(full, Response)
    assert full.status == 503
    users.pause.set()
    assert [answer.status for answer in await asyncio.gather(*asking)] == [200, 200]


async def test_no_cookie_that_the_endpoint_sets_goes_out_with_anothers_request() -> None:
    users = Users()
    users.answer = lambda _: httpx2.Response(200, json=ANN, headers={"set-cookie": "session=ann; Path=/"})
    for number in range(3):
        assert await users.status("/ops", ("authorization", f"Bearer t{number}")) == 200
    assert ["cookie" in request.headers for request in users.requests] == [False] * 3


OWN_KID = {"alg": "RS256", "kid": SIGNING.kid, "typ": "at+jwt"}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(access_token(exp=NOW - 1), id="expired"),
        pytest.param(access_token(sub="gone", client_id="gone"), id="of a client that is gone"),
        pytest.param(encode(sample_key(number=9), OWN_KID, {"iss": LOGIN}), id="with one of our kids"),
        pytest.param(encode(sample_key(number=9), {"alg": "RS256", "kid": "x"}, {"iss": ISSUER}), id="of our issuer"),
        pytest.param(encode(sample_key(number=9), {"alg": "HS256"}, {"iss": ISSUER}), id="of our issuer, symmetric"),
        pytest.param(
            encode(sample_key(number=9), {"alg": "RS256"}, b'{"iss":"x","iss":"' + ISSUER.encode() + b'"}'),
            id="of two issuers",
        ),
    ],
)
async def test_a_token_that_calls_itself_ours_is_decided_here_alone(raw: bytes) -> None:
    users = Users()
    answer = users.start("/ops", ("authorization", b"Bearer " + raw), COOKIE)
    assert isinstance(answer, Response)
    assert (answer.status, users.requests) == (401, [])


async def test_our_own_clients_are_decided_without_asking_and_are_no_users() -> None:
    users = Users()
    answer = users.start("/orders", ("authorization", b"Bearer " + access_token()))
    assert isinstance(answer, Response)
    assert (answer.status, users.requests) == (200, [])
    assert (fields(answer)["mia-userid"], fields(answer)["mia-clientid"]) == ("", "team.app")


@pytest.mark.parametrize(
    "authorization", ["Bearer", "Bearer ", "", "x", "Bearer a\tb", "Bearer ä", "Bearer " + "a" * 17_000], ids=repr
)
async def test_an_authorization_that_nobody_could_read_is_401_and_asks_nobody(authorization: str) -> None:
    users = Users()
    assert await users.status("/ops", ("authorization", authorization)) == 401
    assert users.requests == []


async def test_names_of_members_are_settings() -> None:
    users = Users(user_id_key="id", permissions_key="rights", user_properties="plan,email")
    info = {"id": "ann", "rights": ["orders:read"], "groups": ["ops"], "plan": "gold", "secret": 1}
    users.says(200, json=info)
    answer = await users.ask("/ops", OPAQUE)
    assert (answer.status, json.loads(fields(answer)["mia-userproperties"])) == (200, {"plan": "gold"})
    assert await users.status("/orders", OPAQUE) == 200


async def test_a_rule_and_the_installation_narrow_the_audience_where_the_answer_names_one() -> None:
    users = Users(accepted=("orders", "stock"))
    assert await users.status("/narrow", OPAQUE) == 403
    users.says(200, json={**ANN, "aud": "orders"})
    assert await users.status("/narrow", ("cookie", "a=1")) == 200
    users.says(200, json={**ANN, "aud": ["elsewhere"]})
    assert await users.status("/anybody", ("cookie", "a=2")) == 401


async def test_a_public_route_names_the_user_and_is_open_also_while_nobody_can_say_who_it_is() -> None:
    users = Users()
    assert fields(await users.ask("/open", COOKIE))["mia-userid"] == "ann"
    users.says(500)
    for number in range(3):
        answer = await users.ask("/open", ("cookie", f"b={number}"))
        assert (answer.status, fields(answer)["mia-userid"]) == (200, "")
    # Not asked again and again while it fails.
    assert len(users.requests) == 2
    users.says(401)
    users.now += 2
    assert fields(await users.ask("/open", ("cookie", "b=1")))["mia-userid"] == ""


async def test_a_public_route_stays_open_while_nobody_says_who_it_is_and_soon_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("keyturn_api.userinfo.PUBLIC_WAIT", 0.05)
    users = Users()
    users.pause = asyncio.Event()
    async with asyncio.timeout(users.chosen.userinfo_timeout):
        for _ in range(2):
            answer = await users.ask("/open", COOKIE)
            assert (answer.status, fields(answer)["mia-userid"]) == (200, "")
    # The question goes on, and its answer counts for those who come later.
    assert len(users.requests) == 1
    users.pause.set()
    assert await users.status("/ops", COOKIE) == 200
    assert fields(users.start("/open", COOKIE))["mia-userid"] == "ann"


async def test_after_a_question_without_an_answer_public_routes_ask_no_more_for_a_moment() -> None:
    users = Users(userinfo_timeout=0.05)
    users.pause = asyncio.Event()

    async def respond(path: str, cookie: str) -> int:
        pending = users.start(path, ("cookie", cookie))
        # As long as the question takes: more than the pause after a failure.
        users.now += 5
        answer = pending if isinstance(pending, Response) else await pending
        assert isinstance(answer, Response)
        return answer.status

    assert await respond("/ops", "a=1") == 503
    at_once = users.start("/open", ("cookie", "a=2"))
    assert isinstance(at_once, Response)
    assert (at_once.status, len(users.requests)) == (200, 1)
    users.now += 1
    assert await respond("/open", "a=3") == 200
    assert len(users.requests) == 2


def test_a_gateway_waits_longer_than_the_endpoint_may_take() -> None:
    # HAProxy's script waits half a second for an attempt of its four, all others two seconds.
    assert (PUBLIC_WAIT < 0.5, settings().userinfo_timeout < 2, WAIT_SECONDS < 2) == (True, True, True)


async def test_the_rules_of_now_count_after_the_wait() -> None:
    users = Users()
    users.pause = asyncio.Event()
    asking = [asyncio.ensure_future(users.ask(path, COOKIE)) for path in ("/anybody", "/open")]
    await asyncio.sleep(0)
    closed = Condition(deny="InvalidEdit")
    tighter = RuleState(routes=tuple(RouteState(path, ("GET",), closed) for path in ("/anybody", "/open")))
    users.world.change((Kind.ACCESS_RULE, "tighter", tighter.to_body()))
    users.pause.set()
    assert [answer.status for answer in await asyncio.gather(*asking)] == [403, 403]


async def test_closing_ends_what_is_under_way() -> None:
    users = Users()
    users.pause = asyncio.Event()
    asking = asyncio.ensure_future(users.ask("/ops", COOKIE))
    await asyncio.sleep(0)
    source = users.source
    assert isinstance(source, Userinfo)
    await source.close()
    with pytest.raises(asyncio.CancelledError):
        await asking


# Trusted issuers


class Issuers(Asked):
    """Over issuers whose documents a test serves."""

    def __init__(self, folder: Path, *listed: dict[str, Any]) -> None:
        self.path = folder / "issuers.yaml"
        self.requests: list[str] = []
        self.pause: asyncio.Event | None = None
        self.documents: dict[str, Any] = {
            f"{LOGIN}/.well-known/openid-configuration": {"issuer": LOGIN, "jwks_uri": f"{LOGIN}/keys"},
            f"{LOGIN}/keys": jwks(sample_key(number=31)),
        }

        async def respond(request: httpx2.Request) -> httpx2.Response:
            self.requests.append(str(request.url))
            if self.pause is not None:
                await self.pause.wait()
            found = self.documents.get(str(request.url))
            return httpx2.Response(404) if found is None else httpx2.Response(200, json=found)

        self.write(*(listed or (ISSUED,)))

        def make(own: Asked) -> TrustedIssuers:
            made = TrustedIssuers(
                self.path,
                Fetcher(connections=2, transport=httpx2.MockTransport(respond)),
                own_issuer=ISSUER,
                clock_skew=10,
                knows_kid=own.world.snapshot.knows_kid,
                clock=lambda: own.now,
            )
            made.start()
            return made

        super().__init__(make)

    def write(self, *listed: dict[str, Any]) -> None:
        self.path.write_text(json.dumps({"issuers": list(listed)}))

    def use(self, *listed: dict[str, Any]) -> None:
        assert isinstance(self.source, TrustedIssuers)
        self.source.use({"issuers": list(listed)})


ISSUED = {
    "issuer": LOGIN,
    "audiences": ["orders"],
    "algorithms": ["RS256"],
    "claims": {"groups": "groups", "userProperties": "profile"},
}
OPS = {"groups": ["ops"], "profile": {"plan": "gold"}}


async def test_a_token_of_a_trusted_issuer_is_verified_here_by_its_published_keys(tmp_path: Path) -> None:
    issuers = Issuers(tmp_path)
    answer = await issuers.ask("/ops", foreign(**OPS))
    assert (answer.status, fields(answer)["mia-userid"], fields(answer)["mia-clientid"]) == (200, "ann", "")
    # From then on at once, and without asking.
    assert isinstance(issuers.start("/ops", foreign(**OPS)), Response)
    assert isinstance(issuers.start("/narrow", foreign(sub="bob")), Response)
    assert len(issuers.requests) == 2


async def test_permissions_come_from_no_claim_unless_the_mapping_names_one(tmp_path: Path) -> None:
    issuers = Issuers(tmp_path)
    claims = {"permissions": ["orders:read"], "scope": "orders:read"}
    assert await issuers.status("/orders", foreign(**claims)) == 403
    issuers.use({**ISSUED, "claims": {"permissions": "scope"}})
    assert await issuers.status("/orders", foreign(**claims)) == 200


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"exp": NOW - 1}, id="expired"),
        pytest.param({"aud": ["elsewhere"]}, id="for another audience"),
        pytest.param({"nonce": "n"}, id="an ID token"),
        pytest.param({"sub": "a\nb"}, id="a name that no header can carry"),
    ],
)
async def test_a_refused_token_of_a_trusted_issuer_is_401(tmp_path: Path, claims: dict[str, Any]) -> None:
    assert await Issuers(tmp_path).status("/anybody", foreign(**claims)) == 401


async def test_a_token_of_an_issuer_that_is_not_trusted_is_401_and_asks_nobody(tmp_path: Path) -> None:
    issuers = Issuers(tmp_path)
    assert await issuers.status("/anybody", foreign(iss="https://evil.example")) == 401
    assert issuers.requests == []


async def test_without_keys_nothing_can_be_decided(tmp_path: Path) -> None:
    issuers = Issuers(tmp_path)
    issuers.documents.clear()
    assert [await issuers.status("/anybody", foreign()) for _ in range(5)] == [503] * 5
    assert len(issuers.requests) == 1
    assert await issuers.status("/open", foreign()) == 200


async def test_a_public_route_fetches_no_keys_and_waits_for_none(tmp_path: Path) -> None:
    issuers = Issuers(tmp_path)
    for headers in (foreign(), ("authorization", f"Bearer {token(header={'kid': 'new'}).decode()}")):
        answer = issuers.start("/open", headers)
        assert isinstance(answer, Response)
        assert (answer.status, fields(answer)["mia-userid"], issuers.requests) == (200, "", [])
    assert await issuers.status("/anybody", foreign()) == 200
    issuers.now += LEAST_PAUSE
    unknown = issuers.start("/open", ("authorization", f"Bearer {token(header={'kid': 'new'}).decode()}"))
    assert isinstance(unknown, Response)
    assert (unknown.status, len(issuers.requests)) == (200, 2)
    assert fields(issuers.start("/open", foreign()))["mia-userid"] == "ann"


async def test_where_an_issuer_does_not_answer_the_request_waits_a_moment_and_the_fetch_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyturn_api.trusted_issuers.WAIT_SECONDS", 0.05)
    issuers = Issuers(tmp_path)
    issuers.pause = asyncio.Event()
    assert [await issuers.status("/anybody", foreign()) for _ in range(2)] == [503, 503]
    assert len(issuers.requests) == 1
    issuers.pause.set()
    assert await issuers.status("/anybody", foreign()) == 200


@pytest.mark.parametrize(
    "discovery",
    [
        pytest.param({"issuer": "https://evil.example", "jwks_uri": f"{LOGIN}/keys"}, id="of another issuer"),
        pytest.param({"issuer": LOGIN}, id="without keys"),
        pytest.param({"issuer": LOGIN, "jwks_uri": "http://login.example/keys"}, id="with keys by http"),
    ],
)
async def test_a_discovery_document_that_cannot_be_meant_brings_no_keys(tmp_path: Path, discovery: Any) -> None:
    issuers = Issuers(tmp_path)
    issuers.documents[f"{LOGIN}/.well-known/openid-configuration"] = discovery
    assert await issuers.status("/anybody", foreign()) == 503


async def test_an_unknown_kid_fetches_once_and_a_flood_of_them_no_more_than_once_in_ten_seconds(
    tmp_path: Path,
) -> None:
    issuers = Issuers(tmp_path)
    assert await issuers.status("/anybody", foreign()) == 200
    issuers.now += LEAST_PAUSE
    new = sample_key(number=34)
    fresh = ("authorization", f"Bearer {token(new).decode()}")
    issuers.documents[f"{LOGIN}/keys"] = jwks(new)
    assert await issuers.status("/anybody", fresh) == 200
    assert len(issuers.requests) == 4
    # The key that is gone from the set is gone here too, though a token was verified by it before.
    assert await issuers.status("/anybody", foreign()) == 401
    for number in range(50):
        forged = ("authorization", f"Bearer {token(header={'kid': f'k{number}'}).decode()}")
        assert await issuers.status("/anybody", forged) == 401
    assert len(issuers.requests) == 4


async def test_the_last_good_keys_count_while_the_issuer_is_away_for_a_day(tmp_path: Path) -> None:
    issuers = Issuers(tmp_path)
    far = {"exp": NOW + 10 * MAX_AGE}
    assert await issuers.status("/anybody", foreign(**far)) == 200
    issuers.documents.clear()
    source = issuers.source
    assert isinstance(source, TrustedIssuers)
    issuers.now += REFRESH_EVERY
    await source._sources[LOGIN].refresh(issuers.now)
    assert await issuers.status("/anybody", foreign(**far)) == 200
    issuers.now = NOW + MAX_AGE + 1
    assert await issuers.status("/anybody", foreign(**far)) == 503


async def test_a_token_that_was_seen_before_ends_with_its_time_and_with_its_issuer(tmp_path: Path) -> None:
    issuers = Issuers(tmp_path)
    assert await issuers.status("/anybody", foreign()) == 200
    issuers.now += 600
    assert await issuers.status("/anybody", foreign()) == 401
    issuers.now = NOW
    assert await issuers.status("/anybody", foreign()) == 200
    issuers.use({**ISSUED, "audiences": ["stock"]})
    assert await issuers.status("/anybody", foreign()) == 401
    issuers.use()
    assert await issuers.status("/anybody", foreign()) == 401


async def test_a_changed_entry_keeps_the_keys_that_come_from_the_same_place(tmp_path: Path) -> None:
    issuers = Issuers(tmp_path)
    assert await issuers.status("/anybody", foreign()) == 200
    issuers.use({**ISSUED, "audiences": ["orders", "stock"]})
    assert isinstance(issuers.start("/anybody", foreign()), Response)
    assert len(issuers.requests) == 2


async def test_the_file_is_read_anew_when_another_is_put_in_its_place_and_a_damaged_one_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issuers = Issuers(tmp_path)
    source = issuers.source
    assert isinstance(source, TrustedIssuers)

    async def put(listed: Any, seen: Callable[[], bool]) -> None:
        new = tmp_path / "new"
        new.write_text(json.dumps({"issuers": listed}))
        new.replace(issuers.path)
        for _ in range(400):
            if seen():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"nobody took notice of {listed}")

    said: list[str] = []

    def complains() -> bool:
        said.append(capsys.readouterr().out)
        return "issuers_unreadable" in "".join(said)

    running = asyncio.ensure_future(source.run())
    try:
        await put("junk", complains)
        assert source.issuers == (LOGIN,)
        await put([], lambda: source.issuers == ())
        await put([ISSUED], lambda: source.issuers == (LOGIN,))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    "text", ["", "issuers: {", "issuers: 7", "x" * 300_000], ids=["empty", "no YAML", "no list", "long"]
)
def test_a_process_does_not_begin_with_a_file_that_it_cannot_use(tmp_path: Path, text: str) -> None:
    issuers = Issuers(tmp_path)
    issuers.path.write_text(text)
    source = issuers.source
    assert isinstance(source, TrustedIssuers)
    with pytest.raises(ValueError, match=r"document|file|YAML"):
        source.start()


# Trusted headers

IDENTITY = (("mia-userid", "ann"), ("mia-groups", "ops, b"), ("mia-userproperties", '{"plan":"gold"}'))
EDGE = "10.0.0.5"


def edge() -> Asked:
    chosen = settings(trust_user_headers=True, trusted_peers="10.0.0.0/8,::1/128")
    return Asked(lambda _: TrustedHeaders(chosen.trusted_peers, header_prefix="mia-", permissions_key="permissions"))


@pytest.mark.parametrize(
    ("headers", "peer", "status"),
    [
        pytest.param(IDENTITY, EDGE, 200, id="from a trusted peer"),
        pytest.param(IDENTITY, "::ffff:10.0.0.5", 200, id="from one whose address is mapped"),
        pytest.param(IDENTITY, "192.0.2.7", 401, id="from anybody else"),
        pytest.param(IDENTITY, "unix", 401, id="from no address"),
        pytest.param((*IDENTITY, ("x-forwarded-for", EDGE)), "192.0.2.7", 401, id="from one that claims to be trusted"),
        pytest.param(IDENTITY[1:], EDGE, 401, id="without a user"),
        pytest.param((*IDENTITY, IDENTITY[0]), EDGE, 401, id="with two users"),
        pytest.param((IDENTITY[0], ("mia-userproperties", "{")), EDGE, 401, id="with properties that are no JSON"),
        pytest.param((("mia-userid", b"\xff"),), EDGE, 401, id="with bytes that are no text"),
        pytest.param((("x-userid", "ann"),), EDGE, 401, id="under another prefix"),
    ],
)
async def test_identity_headers_count_from_trusted_peers_alone(headers: Any, peer: str, status: int) -> None:
    assert await edge().status("/ops", *headers, peer=peer) == status


async def test_what_the_trusted_headers_say_goes_on_to_the_upstream() -> None:
    given = fields(await edge().ask("/ops", *IDENTITY, peer=EDGE))
    assert (given["mia-userid"], given["mia-groups"], given["mia-clientid"]) == ("ann", "ops,b", "")


async def test_permissions_stand_among_the_properties() -> None:
    held = ("mia-userproperties", '{"permissions":["orders:read"]}')
    assert await edge().status("/orders", IDENTITY[0], held, peer=EDGE) == 200


async def test_our_own_token_decides_whatever_the_headers_say() -> None:
    expired = ("authorization", b"Bearer " + access_token(exp=NOW - 1))
    assert await edge().status("/ops", *IDENTITY, expired, peer=EDGE) == 401
    valid = ("authorization", b"Bearer " + access_token())
    answer = await edge().ask("/orders", *IDENTITY, valid, peer=EDGE)
    assert fields(answer)["mia-clientid"] == "team.app"


def test_trusting_headers_needs_a_list_of_peers() -> None:
    with pytest.raises(ValidationError, match="KEYTURN_TRUSTED_PEERS"):
        settings(trust_user_headers=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"authorization_headers_to_proxy": ""},
        {"authorization_headers_to_proxy": "host"},
        {"authorization_headers_to_proxy": "a b"},
        {"userinfo_url": "users.example"},
        {"userinfo_url": "https://u:p@users.example"},
        {"userinfo_cache_seconds": 61},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_end_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_a_denial_tells_nothing_of_the_credentials() -> None:
    answer = edge().start("/ops", ("authorization", "Bearer secret-token"))
    assert "secret-token" not in str(content(answer)) + str(fields(answer))
