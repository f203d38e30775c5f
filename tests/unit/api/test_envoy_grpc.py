"""Envoy's checks by gRPC: what is read of a message, and that the answers are those of `/auth`."""

from collections.abc import Mapping
from typing import Any

import pytest
from envoy.service.auth.v3 import external_auth_pb2
from google.rpc import code_pb2

from keyturn_api.answers import GatewayAnswers
from keyturn_api.callers import Callers
from keyturn_api.envoy_grpc import Authorization, read_check, read_peer, removed_headers
from keyturn_api.gateway import Gateway
from keyturn_api.http import Response, Scope
from keyturn_api.profiles import Profile, Unreadable, choose
from tests.unit.api.worlds import World, access_token, metrics, scope, settings
from tests.unit.tokens.worlds import NOW

BEARER = {"authorization": "Bearer " + access_token().decode()}


class Call:
    """What gRPC tells of a call."""

    def peer(self) -> str:
        return "ipv4:192.0.2.7:4711"


def profile(**values: Any) -> Profile:
    return choose(settings(gateway_profile="envoy-grpc", **values))


def check(
    path: str = "/orders/7?x=1",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    *,
    raw: tuple[tuple[str, bytes], ...] = (),
) -> Any:
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host, http.protocol = method, path, "shop.example", "HTTP/2"
    for name, value in {":path": path, ":method": method, **(headers or {})}.items():
        http.headers[name] = value
    for name, each in raw:
        http.header_map.headers.add(key=name, raw_value=each)
    return request


async def answer(
    request: Any, *, world: World | None = None, answers: GatewayAnswers | None = None, **values: Any
) -> Any:
    world = world or World()
    gateway = Gateway(
        world.snapshot,
        Callers(world.tokens()),
        metrics(),
        profile=profile(**values),
        answers=answers,
        clock=lambda: NOW,
    )
    context_headers = bool(values.get("context_headers"))
    service = Authorization(gateway, prefix="mia-", removed=removed_headers("mia-", context_headers=context_headers))
    first, second = await service.check(request, Call()), await service.check(request, Call())
    assert read(first).status.code == read(second).status.code
    return read(first)


def read(message: bytes) -> Any:
    return external_auth_pb2.CheckResponse.FromString(message)


def options(headers: Any) -> dict[str, str]:
    return {each.header.key: each.header.value for each in headers}


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        pytest.param("/orders/7?x=1", "GET", BEARER, 200, id="a permission that suffices"),
        pytest.param("/open", "GET", {}, 200, id="a public route"),
        pytest.param("/open", "GET", {"authorization": "a, b"}, 200, id="a public route with two tokens"),
        pytest.param("/nowhere", "GET", BEARER, 403, id="an unknown route"),
        pytest.param("/orders", "POST", BEARER, 403, id="a permission that is missing"),
        pytest.param("/orders", "GET", {}, 401, id="no token"),
        pytest.param("/orders", "GET", {"authorization": "Bearer x"}, 401, id="a bad token"),
        pytest.param("/open%2f..%2forders", "POST", BEARER, 403, id="an encoded way out of a public route"),
        pytest.param("", "GET", BEARER, 403, id="no path"),
        pytest.param("/orders", "", BEARER, 403, id="no method"),
        pytest.param("/orders", "GET", {**BEARER, "isbackoffice": "1"}, 200, id="context headers are not read"),
        pytest.param(
            "/orders",
            "POST",
            {**BEARER, "x-original-method": "GET", "x-forwarded-uri": "/open"},
            403,
            id="others' headers",
        ),
    ],
)
async def test_a_message_is_decided_as_over_http(
    path: str, method: str, headers: Mapping[str, str], status: int
) -> None:
    given = await answer(check(path, method, headers))
    if status == 200:
        assert given.status.code == code_pb2.OK
        assert given.HasField("ok_response")
    else:
        assert given.status.code != code_pb2.OK
        assert given.denied_response.status.code == status
        assert options(given.denied_response.headers)["mia-allowed"] == "0"


async def test_an_allowed_answer_sets_every_identity_header_over_the_callers_own() -> None:
    given = (await answer(check(headers=BEARER))).ok_response
    assert options(given.headers) == {
        "mia-allowed": "1",
        "mia-userid": "team.app",
        "mia-groups": "",
        "mia-userproperties": "",
        "mia-clientid": "team.app",
    }
    assert {each.append_action for each in given.headers} == {2}, "overwrite if it exists, or add"
    assert all(each.keep_empty_value for each in given.headers)


async def test_an_allowed_answer_removes_underscore_aliases_and_context_headers() -> None:
    given = (await answer(check(headers=BEARER))).ok_response
    assert set(given.headers_to_remove) == {
        *("mia_allowed", "mia_userid", "mia_groups", "mia_userproperties", "mia_clientid"),
        *("client_type", "isbackoffice", "client-type"),
    }


async def test_context_headers_that_the_gateway_vouches_for_stay() -> None:
    given = await answer(check(headers={**BEARER, "client-type": "mobile"}, path="/mobile"), context_headers=True)
    assert not {"isbackoffice", "client-type"} & set(given.ok_response.headers_to_remove)
    assert given.status.code == code_pb2.OK


async def test_the_references_lenient_answer_sets_the_identity_headers_only() -> None:
    given = await answer(check("/nowhere", headers=BEARER), answers=GatewayAnswers(unknown_route="reference"))
    told = options(given.ok_response.headers)
    assert told["mia-allowed"] == "0"
    assert {name.partition("-")[0] for name in told} == {"mia"}


async def test_a_denied_answer_is_what_the_caller_gets_over_http() -> None:
    given = await answer(check(headers={"x-request-id": "abc-1"}))
    assert given.status.code == code_pb2.UNAUTHENTICATED
    assert options(given.denied_response.headers)["www-authenticate"] == "Bearer"
    assert options(given.denied_response.headers)["content-type"] == "application/problem+json"
    assert '"id":"abc-1"' in given.denied_response.body


async def test_nothing_is_decided_before_the_snapshot_is_loaded() -> None:
    given = await answer(check("/open"), world=World(loaded=False))
    assert given.status.code == code_pb2.UNAVAILABLE
    assert given.denied_response.status.code == 503
    assert options(given.denied_response.headers)["retry-after"] == "1"


async def test_an_unexpected_failure_denies_and_has_an_id() -> None:
    def fails(_: Scope) -> Response:
        raise RuntimeError("secret detail")

    given = read(
        await Authorization(fails, prefix="mia-", removed=()).check(check(headers={"x-request-id": "abc-2"}), Call())
    )
    assert given.status.code == code_pb2.INTERNAL
    assert given.denied_response.status.code == 500
    assert "abc-2" in given.denied_response.body
    assert "secret detail" not in given.denied_response.body


async def test_a_decision_that_has_to_wait_is_awaited() -> None:
    async def decided() -> Response:
        return Response({"status": 200, "headers": [(b"mia-userid", "zoë".encode())]}, {"body": b""})

    given = read(await Authorization(lambda _: decided(), prefix="mia-", removed=()).check(check(), Call()))
    # Envoy takes nothing from `raw_value` here.
    assert (given.ok_response.headers[0].header.value, given.ok_response.headers[0].header.raw_value) == ("zoë", b"")


@pytest.mark.parametrize(
    ("raw", "several"),
    [
        pytest.param((("Authorization", b"Bearer a"),), False, id="one"),
        pytest.param((("authorization", b"Bearer a"), ("authorization", b"Bearer b")), True, id="two"),
        pytest.param((("authorization", b"Bearer a, Bearer b"),), True, id="joined"),
    ],
)
def test_raw_headers_are_read_each_by_itself(raw: Any, several: bool) -> None:
    question = profile()(read_check(check(raw=raw), ""))
    assert question.several is several


@pytest.mark.parametrize("name", ["isbackoffice", "client-type"])
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(lambda name: check(headers={name: "1,0"}), id="joined by Envoy"),
        pytest.param(lambda name: check(raw=((name, b"1"), (name, b"0"))), id="each by itself"),
    ],
)
def test_a_context_header_that_is_read_stands_once(name: str, asked: Any) -> None:
    with pytest.raises(Unreadable, match=name):
        profile(context_headers=True)(read_check(asked(name), ""))


def test_method_target_and_host_are_the_messages_own() -> None:
    question = profile()(read_check(check("/a/%62?x=1", "POST", {":path": "/open"}), ""))
    assert (question.method, question.target, question.host) == ("POST", b"/a/%62?x=1", "shop.example")


def test_a_question_over_http_is_refused() -> None:
    with pytest.raises(Unreadable, match="asks by gRPC"):
        profile()(scope("GET", "/auth/open", ("host", "shop.example")))


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:4711", ("192.0.2.7", 4711)),
        ("ipv6:%5B2001:db8::1%5D:4711", ("2001:db8::1", 4711)),
        ("ipv6:[2001:db8::1]:4711", ("2001:db8::1", 4711)),
        ("unix:/run/keyturn.sock", None),
        ("", None),
    ],
)
def test_the_peers_address_is_read_where_it_is_one(peer: str, address: tuple[str, int] | None) -> None:
    assert read_peer(peer) == address


def test_a_prefix_without_a_hyphen_has_no_alias() -> None:
    assert removed_headers("x", context_headers=True) == (b"client_type",)


def test_with_several_hyphens_every_mixture_is_removed() -> None:
    removed = set(removed_headers("x-mia-", context_headers=True))
    assert {b"x_mia_userid", b"x-mia_userid", b"x_mia-userid"} <= removed
    assert b"x-mia-userid" not in removed


def test_very_many_hyphens_make_no_list_without_end() -> None:
    assert len(removed_headers("-" * 64, context_headers=True)) < 400
