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
from keyturn_api.http import Response, Scope, response
from keyturn_api.http_protocol import CONNECTION, MAX_HEADER_BYTES, LimitedHttpProtocol
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
        chosen,
        gateway=_fails,
        tokeninfo=_fails,
        jwks=_fails,
        token=_fails_later,
        introspection=_fails_later,
        revocation=_fails_later,
        explaining=_fails_later,
        other=framework,
        metrics=metrics(),
    )


def client(**values: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(application(**values)), base_url="http://x")


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        pytest.param("GET", "/auth/x", "application/problem+json", id="a gateway's question"),
        pytest.param("GET", "/tokeninfo", "application/json", id="token information"),
        pytest.param("POST", "/oauth/token", "application/json", id="a token request"),
        pytest.param("POST", "/oauth/introspect", "application/json", id="an introspection"),
        pytest.param("POST", "/oauth/revoke", "application/json", id="a revocation"),
        pytest.param("POST", "/explain", "application/problem+json", id="a question for a reason"),
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


async def test_a_failure_within_the_framework_is_answered_once_and_has_the_id_of_its_log_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    failing = application()

    @failing._other.get("/failing")
    async def _fail() -> None:
        await _fails_later()

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(failing), base_url="http://x") as http:
        answer = await http.get("/failing")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert answer.json()["id"] in capfd.readouterr().out


async def test_what_is_outside_the_prefix_is_not_there() -> None:
    async with client(service_prefix="/p") as http:
        assert (await http.get("/auth")).status_code == 404
        assert (await http.get("/p/auth")).status_code == 500
        assert (await http.get("/p/healthz")).status_code == 200
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/p/openapi.json")).json()["paths"].keys() >= {"/p/oauth/token", "/p/auth"}


async def test_the_document_names_the_answer_of_a_process_that_is_not_ready() -> None:
    async with client() as http:
        answer = await http.get("/readyz")
        documented = (await http.get("/openapi.json")).json()["paths"]["/readyz"]["get"]["responses"]
    assert answer.status_code == 503
    assert documented["503"]["content"]["application/json"]["example"].keys() == answer.json().keys()


@pytest.mark.parametrize("path", ["/register/", "/docs/", "/healthz/", "/.well-known/oauth-authorization-server/"])
async def test_no_path_is_put_right_by_a_redirect_to_plain_http(path: str) -> None:
    async with client() as http:
        for method in ("GET", "POST"):
            answer = await http.request(method, path)
            assert (answer.status_code, answer.headers.get("location")) == (404, None)
            assert answer.headers["content-type"] == "application/problem+json"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        self.writes += 1

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def connection(served: Any = None) -> tuple[LimitedHttpProtocol, Transport]:
    config = uvicorn.Config(
        served or application(),
        http=LimitedHttpProtocol,
        loop="none",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
    )
    state = ServerState()
    state.default_headers = [(b"date", b"Tue, 15 Nov 1994 08:12:31 GMT")]
    protocol = LimitedHttpProtocol(config=config, server_state=state, app_state={})
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


async def test_while_the_process_ends_each_answer_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol, transport = await connection()
    protocol.data_received(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.gather(*protocol.tasks)
    assert b"connection: close" not in transport.written
    monkeypatch.setattr(LimitedHttpProtocol, "ending", True)
    protocol.data_received(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.gather(*protocol.tasks)
    assert transport.written.count(b"HTTP/1.1 200 ") == 2
    assert transport.written.count(b"connection: close") == 1
    assert transport.closed
    protocol.connection_lost(None)


def answering(answer: Response, at_once: bool = True) -> Application:
    """One that answers `/auth` with `answer`; not `at_once`: as any ASGI application does."""

    def gateway(scope: Scope) -> Response:
        if not at_once:
            del scope[CONNECTION]
        return answer

    made = application()
    made._handlers[b"/auth"] = gateway
    return made


async def talk(answer: Response, request: bytes, *, at_once: bool = True) -> Transport:
    """What is written for `request` until everything is quiet."""
    protocol, transport = await connection(answering(answer, at_once))
    protocol.data_received(request)
    while protocol.tasks:
        await asyncio.gather(*protocol.tasks)
    protocol.connection_lost(None)
    return transport


def parsed(written: bytes) -> tuple[bytes, list[bytes], bytes]:
    head, _, body = written.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, sorted(lines), body


PLAIN = b"GET /auth HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = response(200, [(b"content-type", b"text/plain"), (b"Mia-UserId", b"")], b"hello")


@pytest.mark.parametrize(
    ("answer", "request_", "writes"),
    [
        pytest.param(ANSWER, PLAIN, 1, id="an answer with a body"),
        pytest.param(response(200, []), PLAIN, 1, id="an answer without a body"),
        pytest.param(response(503, [(b"retry-after", b"1")], b"{}"), PLAIN, 1, id="a failure"),
        pytest.param(ANSWER, b"POST" + PLAIN[3:-2] + b"Content-Length: 2\r\n\r\nab", 1, id="a body that nobody reads"),
        pytest.param(ANSWER, b"HEAD" + PLAIN[3:], 1, id="HEAD: the head alone"),
        pytest.param(ANSWER, PLAIN.replace(b"1.1", b"1.0"), 2, id="HTTP/1.0"),
        pytest.param(ANSWER, PLAIN[:-2] + b"Connection: close\r\n\r\n", 2, id="a caller that closes"),
        pytest.param(ANSWER, PLAIN[:-2] + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n", 2, id="an upgrade"),
        pytest.param(
            ANSWER, b"POST" + PLAIN[3:-2] + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", 2, id="a 100 awaited"
        ),
        pytest.param(response(413, [(b"Connection", b"close")], b"x"), PLAIN, 2, id="an answer that closes"),
        pytest.param(response(204, []), PLAIN, 2, id="no content"),
        pytest.param(response(304, []), PLAIN, 2, id="not modified"),
    ],
)
async def test_an_answer_in_one_write_is_what_uvicorn_writes(answer: Response, request_: bytes, writes: int) -> None:
    ours, theirs = await talk(answer, request_), await talk(answer, request_, at_once=False)
    assert (parsed(ours.written), ours.closed) == (parsed(theirs.written), theirs.closed)
    assert b"date: " in ours.written
    assert ours.writes == writes


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(response(200, [(b"a", b"b\r\nset-cookie: c")]), id="a line break in a value"),
        pytest.param(response(200, [(b"a", b"b\nc")]), id="a bare line feed in a value"),
        pytest.param(response(200, [(b"a: b\r\nc", b"d")]), id="a line break in a name"),
        pytest.param(response(200, [(b"a b", b"c")]), id="a space in a name"),
        pytest.param(response(200, [(b"a", b"\x00")]), id="NUL in a value"),
        pytest.param(Response({**ANSWER.start}, {**ANSWER.body, "body": b"longer than told"}), id="another length"),
    ],
)
async def test_an_answer_that_would_break_the_connection_is_never_written_at_once(answer: Response) -> None:
    assert answer.head() == b""
    assert b"set-cookie" not in (await talk(answer, PLAIN)).written


async def test_nothing_is_written_to_a_caller_that_has_gone() -> None:
    protocol, transport = await connection(answering(ANSWER))
    protocol.data_received(PLAIN)
    protocol.connection_lost(ConnectionResetError())
    await asyncio.gather(*protocol.tasks)
    assert transport.written == b""


async def test_an_answer_waits_for_a_caller_that_reads_slowly() -> None:
    protocol, transport = await connection(answering(ANSWER))
    protocol.pause_writing()
    protocol.data_received(PLAIN)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert transport.written == b""
    protocol.resume_writing()
    await asyncio.gather(*protocol.tasks)
    assert transport.written.endswith(b"\r\n\r\nhello")
    protocol.connection_lost(None)


async def test_after_an_answer_the_connection_waits_for_the_next_request_no_longer_than_it_should() -> None:
    protocol, transport = await connection(answering(ANSWER))
    for number in range(1, 4):
        protocol.data_received(PLAIN)
        await asyncio.gather(*protocol.tasks)
        assert (transport.writes, protocol.server_state.total_requests) == (number, number)
        assert protocol.timeout_keep_alive_task is not None
    protocol.timeout_keep_alive_handler()
    assert transport.closed
    protocol.connection_lost(None)
