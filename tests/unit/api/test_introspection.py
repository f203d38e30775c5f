"""`/oauth/introspect`: who may know what about which token."""

from typing import Any

import pytest

from keyturn.clients.state import CLIENT_SECRET_BASIC, SecretHash
from keyturn.records import Kind
from keyturn.secrets import hash_generated
from keyturn_api.errors import ApiError
from keyturn_api.http import Response
from keyturn_api.token_questions import Verb
from tests.unit.api.endpoints import Endpoint, assertion, basic, proof
from tests.unit.api.worlds import World, access_token, content, fields, scope
from tests.unit.tokens.worlds import CLIENT_ID, ISSUER, NOW, client_state

INACTIVE = {"active": False}
OTHER = "team.other"


class User:
    username = "system:serviceaccount:team:support"


class Kubernetes:
    """Allows one verb to whoever holds the token `good`."""

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        self.asked: list[tuple[str, str]] = []

    async def authorize(
        self, authorization: bytes | None, *, verb: Verb, namespace: str, request_id: str, address: str
    ) -> User:
        self.asked.append((verb, namespace))
        if authorization != b"Bearer good":
            raise ApiError(401, "invalid_token", "not accepted")
        if verb != self.verb:
            raise ApiError(403, "access_denied", "not allowed")
        return User()


def world_of_two(**changes: Any) -> World:
    """`team.app` with a key, `team.other` with the secret `one`; `changes` are those of the latter."""
    world = World()
    hashes = (SecretHash(hash_generated(b"one"), None, "uid/1"),)
    state = client_state(client_id=OTHER, auth_method=CLIENT_SECRET_BASIC, keys=(), secrets=hashes, **changes)
    world.change((Kind.CLIENT, "c2", state.to_body()))
    return world


async def test_a_client_sees_all_about_its_own_token() -> None:
    answer = await Endpoint().introspect(access_token(tenant="t1"), **proof())
    assert (answer.status, fields(answer)["cache-control"]) == (200, "no-store")
    assert content(answer) == {
        "active": True,
        "token_type": "Bearer",
        "iss": ISSUER,
        "sub": CLIENT_ID,
        "client_id": CLIENT_ID,
        "aud": ["orders"],
        "iat": NOW - 60,
        "exp": NOW + 600,
        "jti": "t1",
        "permissions": ["orders:read", "orders:write"],
        "scope": "orders:read orders:write",
        "tenant": "t1",
    }


async def test_what_the_client_no_longer_has_is_gone_from_the_answer() -> None:
    endpoint = Endpoint(world_of_two(introspection="any"))
    token = access_token(aud=["orders", "stock"])
    assert len(content(await endpoint.introspect(token, basic(b"one", OTHER)))["permissions"]) == 2
    endpoint.world.change_client(permissions=("orders:write",), audiences=("stock",))
    answer = content(await endpoint.introspect(token, basic(b"one", OTHER)))
    assert (answer["permissions"], answer["scope"], answer["aud"]) == (["orders:write"], "orders:write", ["stock"])
    endpoint.world.change_client(permissions=())
    answer = content(await endpoint.introspect(token, basic(b"one", OTHER)))
    assert (answer["active"], answer["permissions"], "scope" in answer) == (True, [], False)


@pytest.mark.parametrize(
    ("introspection", "active"),
    [pytest.param("own", False, id="its own only"), pytest.param("any", True, id="any")],
)
async def test_others_tokens_are_seen_with_introspection_any_alone(introspection: str, active: bool) -> None:
    endpoint = Endpoint(world_of_two(introspection=introspection))
    answer = content(await endpoint.introspect(access_token(), basic(b"one", OTHER)))
    assert answer["active"] is active
    assert active or answer == INACTIVE


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(b"x", id="no token at all"),
        pytest.param(b" ", id="a space"),
        pytest.param("\N{SNOWMAN}".encode(), id="not ASCII"),
        pytest.param(access_token()[:-2], id="a signature cut short"),
        pytest.param(access_token(exp=NOW), id="an expired one"),
        pytest.param(access_token(iss="https://other.example"), id="one of another issuer"),
        pytest.param(access_token(client_id="nobody", sub="nobody"), id="one of an unknown client"),
        pytest.param(access_token(aud=["stock"]), id="one for an audience that is not accepted here"),
        pytest.param(assertion().encode(), id="an assertion"),
    ],
)
async def test_of_what_does_not_count_nothing_is_said(token: bytes) -> None:
    endpoint = Endpoint(world_of_two(introspection="any"), accepted_audiences=("orders",))
    answer = await endpoint.introspect(token, basic(b"one", OTHER))
    assert (answer.status, content(answer)) == (200, INACTIVE)


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "no-such-thing"])
async def test_any_hint_at_the_kind_of_token_is_taken(hint: str) -> None:
    answer = await Endpoint().introspect(access_token(), token_type_hint=hint, **proof())
    assert content(answer)["active"] is True


async def refused(endpoint: Endpoint, *headers: tuple[str, str | bytes], **form: Any) -> tuple[int, str]:
    answer = await endpoint.introspect(access_token(), *headers, **form)
    assert fields(answer)["cache-control"] == "no-store"
    return answer.status, content(answer)["error"]


async def test_a_caller_must_prove_who_it_is() -> None:
    endpoint = Endpoint(world_of_two())
    assert await refused(endpoint) == (401, "invalid_client")
    assert await refused(endpoint, basic(b"no", OTHER)) == (401, "invalid_client")
    assert await refused(endpoint, client_id=CLIENT_ID) == (401, "invalid_client")
    # Not by the token in question, nor any other of ours.
    own = ("authorization", b"Bearer " + access_token())
    assert await refused(Endpoint(administration=Kubernetes("introspect")), own) == (401, "invalid_token")
    # And without administration there is no such way.
    assert (await endpoint.introspect(access_token(), own)).status == 404


async def test_an_assertion_counts_once_over_all_endpoints() -> None:
    endpoint = Endpoint()
    signed = assertion()
    assert (await endpoint.introspect(access_token(), **proof(signed))).status == 200
    assert await refused(endpoint, **proof(signed)) == (401, "invalid_client")
    assert (await endpoint.assert_with(signed)).status == 401


async def test_a_client_that_is_stopped_sees_nothing_any_more() -> None:
    endpoint = Endpoint()
    endpoint.world.change_client(suspended=True)
    assert await refused(endpoint, **proof()) == (401, "invalid_client")


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({"client_secret": "x", "client_id": OTHER}, id="a secret in the body"),
        pytest.param(proof(), id="an assertion"),
        pytest.param({"client_assertion_type": "x"}, id="an assertion's type"),
    ],
)
async def test_two_ways_to_authenticate_are_an_invalid_request(form: dict[str, str]) -> None:
    for header in (basic(b"one", OTHER), ("authorization", b"Bearer good")):
        assert await refused(Endpoint(world_of_two()), header, **form) == (400, "invalid_request")


async def test_a_request_without_a_token_is_invalid() -> None:
    endpoint = Endpoint()
    answer = await endpoint.introspect(b"", **proof())
    assert (answer.status, content(answer)["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_only_post_is_served(method: str) -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read")

    endpoint = Endpoint()
    for handler in (endpoint.introspection, endpoint.revocation):
        answer = await handler(scope(method, "/oauth/introspect"), receive)
        assert (answer.status, fields(answer)["allow"]) == (405, "POST")


async def test_a_token_in_the_url_is_refused() -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read")

    endpoint = Endpoint()
    for handler in (endpoint.introspection, endpoint.revocation):
        answer = await handler(scope("POST", "/oauth/introspect", query=b"token=" + access_token()), receive)
        assert (answer.status, content(answer)["error"]) == (400, "invalid_request")


async def test_before_the_snapshot_is_loaded_it_is_503() -> None:
    endpoint = Endpoint(World(loaded=False))
    answers: list[Response] = [
        await endpoint.introspect(access_token(), **proof()),
        await endpoint.revoke(access_token(), **proof()),
    ]
    for answer in answers:
        assert (answer.status, content(answer)["error"]) == (503, "temporarily_unavailable")
        assert int(fields(answer)["retry-after"]) >= 1


async def test_who_may_introspect_by_kubernetes_sees_the_tokens_of_all_clients() -> None:
    kubernetes = Kubernetes("introspect")
    endpoint = Endpoint(administration=kubernetes)
    answer = await endpoint.introspect(access_token(), ("authorization", b"Bearer good"))
    assert content(answer)["client_id"] == CLIENT_ID
    assert kubernetes.asked == [("introspect", "team")]


async def test_who_may_not_by_kubernetes_sees_nothing() -> None:
    assert await refused(Endpoint(administration=Kubernetes("introspect")), ("authorization", "Bearer bad")) == (
        401,
        "invalid_token",
    )
    assert await refused(Endpoint(administration=Kubernetes("revoke")), ("authorization", "bearer good")) == (
        401,
        "invalid_token",
    )
    assert await refused(Endpoint(administration=Kubernetes("revoke")), ("authorization", "Bearer good")) == (
        403,
        "access_denied",
    )
