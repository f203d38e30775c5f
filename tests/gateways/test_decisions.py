"""Every gateway, with its shipped file: who passes, who does not, and what the caller is told."""

import hashlib
import json

import pytest

from tests.gateways.conftest import World
from tests.gateways.gateways import WAYS, Way
from tests.gateways.wire import Connection, Http2, request

pytestmark = pytest.mark.asyncio(loop_scope="session")

# The decision does not depend on it.
each_way = pytest.mark.parametrize("way", WAYS)


def bearer(world: World, who: str | None) -> str | None:
    return {"permitted": world.tokens.permitted, "guest": world.tokens.guest}.get(who or "", who)


@pytest.mark.parametrize(
    ("method", "target", "who", "status"),
    [
        pytest.param("GET", "/orders/7?x=1", "permitted", 200, id="allowed"),
        pytest.param("GET", "/orders/7", None, 401, id="no token"),
        pytest.param("GET", "/orders/7", "a.b.c", 401, id="a bad token"),
        pytest.param("GET", "/orders/7", "guest", 403, id="a missing permission"),
        pytest.param("POST", "/orders", "permitted", 403, id="a permission for another method"),
        pytest.param("DELETE", "/orders", "permitted", 403, id="a method without a rule"),
        pytest.param("PROPFIND", "/info", "permitted", 403, id="a method that no rule can name"),
        pytest.param("GET", "/nowhere", "permitted", 403, id="an unknown route with a token"),
        pytest.param("GET", "/nowhere", None, 403, id="an unknown route without a token"),
        pytest.param("GET", "/info", None, 200, id="a public route without a token"),
        pytest.param("GET", "/info", "a.b.c", 200, id="a public route with a bad token"),
        pytest.param("OPTIONS", "/info", None, 200, id="another method on a public route"),
    ],
)
@each_way
async def test_the_decision_is_keyturns(
    world: World, way: Way, method: str, target: str, who: str | None, status: int
) -> None:
    came_to = await world.gateway.ask(method, target, token=bearer(world, who), way=way)
    assert came_to.answer.status == status
    assert came_to.passed == (status == 200)
    if status == 401:
        challenge = came_to.answer.value("www-authenticate")
        assert challenge is not None
        assert challenge == "Bearer" if who is None else challenge.startswith('Bearer error="invalid_token"')


@each_way
async def test_the_longest_token_that_is_issued_passes(world: World, way: Way) -> None:
    assert len(world.tokens.longest) > 6500
    came_to = await world.gateway.ask("GET", "/orders/7", token=world.tokens.longest, way=way)
    assert came_to.passed, came_to.answer
    assert came_to.answer.status == 200


@pytest.mark.parametrize(("who", "status"), [("permitted", 200), ("guest", 403), (None, 401)])
@pytest.mark.parametrize("target", ["/a/b", "/a/b?x=1", "/a/%62", "//a/b", "/a/b/"])
@each_way
async def test_one_path_written_in_several_ways_gets_one_decision(
    world: World, way: Way, target: str, who: str | None, status: int
) -> None:
    came_to = await world.gateway.ask("GET", target, token=bearer(world, who), way=way)
    assert came_to.answer.status == status
    assert came_to.passed == (status == 200)


@pytest.mark.parametrize(
    ("host", "who", "status"),
    [
        pytest.param("open.example", None, 200, id="public on this host"),
        pytest.param("open.example:8443", None, 200, id="a port says nothing"),
        pytest.param("OPEN.example", None, 200, id="nor does the case"),
        pytest.param("shop.example", None, 401, id="not on this one"),
        pytest.param("shop.example", "permitted", 200, id="allowed on it"),
        pytest.param("other.example", "permitted", 403, id="nothing on a third"),
    ],
)
@each_way
async def test_the_host_decides_where_the_gateway_tells_it(
    world: World, way: Way, host: str, who: str | None, status: int
) -> None:
    if world.gateway.kind.profile == "original-request":
        # The host is not known there, so rules of all hosts must allow.
        status = 200 if who else 401
    came_to = await world.gateway.ask("GET", "/hosted", host=host, token=bearer(world, who), way=way)
    assert came_to.answer.status == status


@each_way
async def test_identity_headers_reach_the_api(world: World, way: Way) -> None:
    seen = (await world.gateway.ask("GET", "/orders", token=world.tokens.permitted, way=way)).seen
    assert seen is not None
    assert seen.values("mia-clientid") == ["team.billing"]
    assert seen.values("mia-userid") == ["team.billing"]
    assert not any(seen.values("mia-groups") + seen.values("mia-userproperties"))


async def test_a_public_route_has_an_identity_if_the_token_is_good(world: World) -> None:
    seen = (await world.gateway.ask("GET", "/info", token=world.tokens.guest)).seen
    assert seen is not None
    assert seen.values("mia-clientid") == ["team.guest"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
@each_way
async def test_body_and_query_reach_the_api_as_they_were_sent(world: World, way: Way, method: str) -> None:
    body = bytes(range(256)) * 4096
    target = "/upload/7?a=b%2Fc&a=%20+&empty=&utf=%C3%A9"
    came_to = await world.gateway.ask(
        method, target, ("Content-Type", "application/octet-stream"), token=world.tokens.permitted, body=body, way=way
    )
    assert came_to.answer.status == 200, came_to.answer
    assert came_to.seen is not None
    assert (came_to.seen.method, came_to.seen.target) == (method, target.encode())
    assert (came_to.seen.length, came_to.seen.digest) == (len(body), hashlib.sha256(body).hexdigest())


@each_way
async def test_the_body_of_a_refused_request_reaches_nobody(world: World, way: Way) -> None:
    came_to = await world.gateway.ask("POST", "/upload", token=world.tokens.guest, body=b"x" * 100_000, way=way)
    assert not came_to.passed
    assert came_to.answer.status == 403


async def test_requests_on_one_connection_are_decided_each_by_itself(world: World) -> None:
    for tls in (False, True):
        port = world.gateway.ports.https if tls else world.gateway.ports.http
        connection = await Connection.open(port, tls=tls)
        statuses = []
        for who in ("permitted", None, "permitted", "guest", None, "permitted"):
            token = bearer(world, who)
            headers = [("Host", "shop.example"), *([("Authorization", f"Bearer {token}")] if token else [])]
            await connection.send(request("GET", b"/orders", headers))
            statuses.append((await connection.answer()).status)
        connection.close()
        assert statuses == [200, 401, 200, 403, 401, 200]


async def test_requests_sent_at_once_on_one_connection_are_decided_each_by_itself(world: World) -> None:
    host = ("Host", "shop.example")
    allowed = request("GET", b"/orders", [host, ("Authorization", f"Bearer {world.tokens.permitted}")])
    refused = request("GET", b"/orders", [host])
    connection = await Connection.open(world.gateway.ports.http)
    await connection.send(allowed + refused + allowed + refused)
    statuses = [(await connection.answer()).status for _ in range(4)]
    connection.close()
    assert statuses == [200, 401, 200, 401]


async def test_streams_of_one_http2_connection_are_decided_each_by_itself(world: World) -> None:
    connection = await Http2.open(world.gateway.ports.https)
    statuses = []
    for who in ("permitted", None, "guest", "permitted"):
        token = bearer(world, who)
        headers = [("authorization", f"Bearer {token}")] if token else []
        statuses.append((await connection.ask("GET", b"/orders", headers)).status)
    connection.close()
    assert statuses == [200, 401, 403, 200]


async def test_a_denied_caller_gets_an_id_that_stands_in_the_log(world: World) -> None:
    answer = (await world.gateway.ask("GET", "/orders", token=world.tokens.guest)).answer
    told = answer.value("x-request-id")
    if told is None:
        told = str(json.loads(answer.body)["id"])
    assert any(told in line and '"denied"' in line for line in world.process.output().splitlines())
