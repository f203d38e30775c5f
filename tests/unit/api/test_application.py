"""The outer callable and the connection: unexpected failures, slow headers, limits byte by byte."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from uvicorn.server import ServerState

from keyturn.store.memory import MemoryStore
from keyturn_api.application import Application, build_framework
from keyturn_api.follower import Follower
from keyturn_api.http_protocol import MAX_HEADER_BYTES, LimitedHttpProtocol
from keyturn_api.readiness import Readiness
from keyturn_api.signing_keys import SigningKeys
from tests.unit.api.worlds import World, metrics, settings


def _fails(*_: Any) -> Any:
    raise RuntimeError("the cause, with a secret")


async def _fails_later(*_: Any) -> Any:
    raise RuntimeError("the cause, with a secret")


def application(**values: Any) -> Application:
    """One whose every hot path fails."""
    world, chosen = World(), settings(**values)
    keys = SigningKeys(Path("/nowhere"), world.snapshot, typ="JWT")
    readiness = Readiness(world.snapshot, keys, Follower(MemoryStore(), world.snapshot, metrics()), metrics())
    framework = build_framework(chosen, world.snapshot, readiness)
    return Application(
        chosen, gateway=_fails, tokeninfo=_fails, jwks=_fails, token=_fails_later, other=framework, metrics=metrics()
    )


def client(**values: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(application(**values)), base_url="http://x")


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        pytest.param("GET", "/auth/x", "application/problem+json", id="a gateway's question"),
        pytest.param("GET", "/tokeninfo", "application/json", id="token information"),
        pytest.param("POST", "/oauth/token", "application/json", id="a token request"),
        pytest.param("GET", "/.well-known/jwks.json", "application/problem+json", id="the keys"),
    ],
)
async def test_a_failure_that_nobody_expected_is_a_500_with_an_id_and_no_cause(
    method: str, path: str, kind: str
) -> None:
    async with client() as http:
        answer = await http.request(method, path, headers={"X-Request-Id": "req-9"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == kind
    assert "req-9" in answer.text
    assert "secret" not in answer.text


async def test_what_is_outside_the_prefix_is_not_there() -> None:
    async with client(service_prefix="/p") as http:
        assert (await http.get("/auth")).status_code == 404
        assert (await http.get("/p/auth")).status_code == 500
        assert (await http.get("/p/healthz")).status_code == 200
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/p/openapi.json")).json()["paths"].keys() >= {"/p/oauth/token", "/p/auth"}


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def connection() -> tuple[LimitedHttpProtocol, Transport]:
    config = uvicorn.Config(
        application(),
        http=LimitedHttpProtocol,
        loop="none",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
    )
    protocol = LimitedHttpProtocol(config=config, server_state=ServerState(), app_state={})
    transport = Transport()
    protocol.connection_made(transport)
    return protocol, transport


async def test_headers_that_take_too_long_are_answered_408() -> None:
    protocol, transport = await connection()
    protocol.data_received(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA")
    protocol._too_slow()
    assert transport.written.startswith(b"HTTP/1.1 408 ")
    assert transport.closed
    protocol.connection_lost(None)


async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    protocol, transport = await connection()
    protocol._too_slow()
    assert (transport.written, transport.closed) == (b"", True)
    protocol.connection_lost(None)


async def test_a_header_that_arrives_byte_by_byte_meets_the_limit() -> None:
    protocol, transport = await connection()
    protocol.data_received(b"GET /healthz HTTP/1.1\r\nA: ")
    sent = 0
    while not transport.closed and sent < 4 * MAX_HEADER_BYTES:
        protocol.data_received(b"a" * 64)
        sent += 64
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert sent < MAX_HEADER_BYTES
    protocol.data_received(b"more")  # counts no more
    protocol.connection_lost(None)


async def test_a_request_in_time_stops_the_clock_until_the_next_begins() -> None:
    protocol, transport = await connection()
    for _ in range(3):
        protocol.data_received(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert protocol._header_timer is None
        await asyncio.gather(*protocol.tasks)
    protocol.data_received(b"GET /healthz HTTP/1.1\r\n")
    assert protocol._header_timer is not None
    assert transport.written.count(b"HTTP/1.1 200 ") == 3
    protocol.connection_lost(None)
    assert protocol._header_timer is None
