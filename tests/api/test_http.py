"""What the server does with requests that no well-meaning client sends."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from tests.api.conftest import Running
from tests.malformed import malformed_values

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def exchange(shared: Running, request: bytes, *, pieces: int = 1, whole: bool = False) -> bytes:
    """Sends raw bytes and returns what comes first, or all until the server closes; nothing if the connection is reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.process.port)
    try:
        step = max(1, len(request) // pieces)
        for start in range(0, len(request), step):
            writer.write(request[start : start + step])
            await writer.drain()
            if pieces > 1:
                await asyncio.sleep(0.01)
        return await asyncio.wait_for(reader.read(-1 if whole else 65536), 5)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    assert found, answer[:200]
    return int(found.group(1))


def request(*lines: bytes, path: bytes = b"/healthz") -> bytes:
    return b"\r\n".join((b"GET " + path + b" HTTP/1.1", b"Host: x", *lines, b"", b""))


async def test_headers_within_the_limits_pass(shared: Running) -> None:
    assert status(await exchange(shared, request(b"A: " + b"a" * 16_000, b"B: " + b"b" * 15_000))) == 200


@pytest.mark.parametrize("pieces", [1, 20], ids=["at once", "in pieces"])
@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"A: " + b"a" * 65_536], id="one header of 64 KiB"),
        pytest.param([b"A: " + b"a" * 17_000], id="one header over 16 KiB"),
        pytest.param([b"A: " + b"a" * 11_000] * 3, id="three of 11 KiB"),
        pytest.param([b"A%d: b" % number for number in range(8000)], id="thousands of small ones"),
        pytest.param([b"a" * 20_000 + b": b"], id="a name of 20 KB"),
    ],
)
async def test_too_many_header_bytes_are_431(shared: Running, lines: list[bytes], pieces: int) -> None:
    answer = await exchange(shared, request(*lines), pieces=pieces)
    # Where the answer met bytes still under way, the connection is reset, and it may be lost.
    assert answer == b"" or status(answer) == 431


async def test_a_header_that_never_ends_is_cut_off(shared: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", shared.process.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nA: ")
    sent = 0
    try:
        while sent < 4_000_000:
            writer.write(b"a" * 4096)
            await writer.drain()
            sent += 4096
            await asyncio.sleep(0.001)
    except ConnectionError:
        pass
    writer.close()
    assert sent < 1_000_000


async def test_a_path_of_64_kib_is_431(shared: Running) -> None:
    answer = await exchange(shared, request(path=b"/" + b"a" * 65_536))
    assert answer == b"" or status(answer) == 431


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x16\x03\x01\x00\xa5\x01\x00", id="TLS"),
        pytest.param(b"GET\r\n\r\n", id="half a request line"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="another version"),
        pytest.param(b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", id="no method"),
        pytest.param(b"GET / HTTP/1.1\r\nno colon\r\n\r\n", id="a header without colon"),
        pytest.param(b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", id="NUL in a header"),
        pytest.param(b"POST /oauth/token HTTP/1.1\r\nContent-Length: -1\r\n\r\n", id="a negative length"),
        pytest.param(b"POST /oauth/token HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", id="two lengths"),
        pytest.param(
            b"POST /oauth/token HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="length and chunks",
        ),
        pytest.param(
            b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            id="a chunk without size",
        ),
        pytest.param(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", id="a path that is not ASCII"),
    ],
)
async def test_malformed_requests_are_refused_and_never_5xx(shared: Running, raw: bytes) -> None:
    answer = await exchange(shared, raw)
    assert answer == b"" or 400 <= status(answer) < 500


async def test_the_body_of_a_chunked_request_cannot_bring_credentials_in_its_trailer(shared: Running) -> None:
    body = b"grant_type=client_credentials"
    raw = (
        b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Transfer-Encoding: chunked\r\nTrailer: Authorization\r\nConnection: close\r\n\r\n"
        b"%x\r\n%b\r\n0\r\nAuthorization: Basic dGVhbS5zZWNyZXQ6eA==\r\n\r\n" % (len(body), body)
    )
    answer = await exchange(shared, raw, whole=True)
    assert status(answer) == 401
    assert b"did not authenticate" in answer


async def test_a_connection_serves_many_requests_also_pipelined(shared: Running) -> None:
    raw = request() * 3 + request(b"Connection: close")
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.process.port)
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(-1), 5)
    writer.close()
    assert answer.count(b"HTTP/1.1 200") == 4


ALLOWED = (b"Original-Request-Uri: /open", b"Original-Request-Method: GET")


def field_lines(answer: bytes) -> list[bytes]:
    """The fields of an answer's head, apart from the time of day."""
    head = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    assert sum(line.startswith(b"date: ") for line in head) == 1
    return sorted(line for line in head if not line.startswith(b"date: "))


async def test_each_way_to_answer_the_gateway_sends_the_same(shared: Running) -> None:
    get = request(*ALLOWED, path=b"/auth")
    kept = await exchange(shared, get)
    assert status(kept) == 200
    assert kept.endswith(b"\r\n\r\n")
    assert {b"mia-allowed: 1", b"mia-clientid: ", b"content-length: 0"} <= set(field_lines(kept))
    closing = sorted([*field_lines(kept), b"connection: close"])
    asked = await exchange(shared, request(*ALLOWED, b"Connection: close", path=b"/auth"), whole=True)
    assert field_lines(asked) == closing
    assert field_lines(await exchange(shared, get.replace(b"HTTP/1.1", b"HTTP/1.0"), whole=True)) == closing
    assert field_lines(await exchange(shared, get.replace(b"GET /auth", b"HEAD /auth"))) == field_lines(kept)


@pytest.mark.parametrize("path", [b"/tokeninfo", b"/auth"])
async def test_head_brings_the_fields_of_get_without_a_body(shared: Running, path: bytes) -> None:
    get = request(b"X-Request-Id: r", b"Connection: close", path=path)
    whole, head = [await exchange(shared, raw, whole=True) for raw in (get, get.replace(b"GET ", b"HEAD ", 1))]
    assert status(whole) == status(head) >= 400
    assert field_lines(head) == field_lines(whole)
    assert whole.partition(b"\r\n\r\n")[2]
    assert head.endswith(b"\r\n\r\n")


async def test_pipelined_requests_are_answered_in_their_order(shared: Running) -> None:
    paths = (b"/auth", b"/.well-known/jwks.json", b"/tokeninfo", b"/healthz", b"/auth", b"/auth")
    raw = b"".join(request(*ALLOWED, path=path) for path in paths) + request(b"Connection: close", path=b"/nowhere")
    answer = await exchange(shared, raw, whole=True)
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", answer) == [b"200", b"200", b"401", b"200", b"200", b"200", b"404"]
    assert answer.count(b"\r\ndate: ") == 7


async def test_callers_that_go_before_the_answer_disturb_nobody(shared: Running) -> None:
    before = len(shared.process.output())
    for _ in range(50):
        _, writer = await asyncio.open_connection("127.0.0.1", shared.process.port)
        writer.write(request(*ALLOWED, path=b"/auth") * 3)
        writer.transport.abort()
    assert status(await exchange(shared, request(*ALLOWED, path=b"/auth"))) == 200
    assert "rror" not in shared.process.output()[before:]


async def test_an_upgrade_is_answered_as_a_plain_request(shared: Running) -> None:
    answer = await exchange(shared, request(b"Connection: Upgrade", b"Upgrade: websocket"))
    assert status(answer) == 200


QUESTION = b"Original-Request-Uri: /orders\r\nOriginal-Request-Method: GET\r\n"
ELSEWHERE = {400, 401, 431}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        pytest.param(b"GET", b"/auth", b"", {401, 431}, id="/auth: 401"),
        pytest.param(b"POST", b"/auth/orders", b"", {401, 431}, id="below /auth: 401"),
        pytest.param(b"GET", b"/tokeninfo", b"", ELSEWHERE, id="/tokeninfo"),
        pytest.param(b"POST", b"/oauth/token", b"grant_type=client_credentials", ELSEWHERE, id="/oauth/token"),
        # Bearer is the way of administration there, which this installation does not have.
        pytest.param(b"POST", b"/oauth/introspect", b"token=x", {*ELSEWHERE, 404}, id="/oauth/introspect"),
        pytest.param(b"POST", b"/oauth/revoke", b"token=x", {*ELSEWHERE, 404}, id="/oauth/revoke"),
    ],
)
async def test_500_malformed_authorization_values_are_never_5xx(
    shared: Running, method: bytes, path: bytes, body: bytes, expected: set[int]
) -> None:
    found: set[int] = set()
    async for answer in _sent(
        shared,
        [
            method
            + b" "
            + path
            + b" HTTP/1.1\r\nHost: x\r\n"
            + QUESTION
            + b"Content-Type: application/x-www-form-urlencoded\r\n"
            + b"Content-Length: %d\r\nAuthorization: " % len(body)
            + value
            + b"\r\n\r\n"
            + body
            for value in malformed_values()
        ],
    ):
        found.add(answer)
    assert found <= expected
    assert 401 in found


async def test_every_other_path_looks_past_malformed_authorization_values(shared: Running) -> None:
    documented = (await shared.http.get("/openapi.json")).json()["paths"]
    rest = set(documented) - {"/auth", "/tokeninfo", "/oauth/token", "/oauth/introspect", "/oauth/revoke"}
    assert rest >= {"/healthz", "/readyz", "/.well-known/jwks.json"}
    for path in (*rest, "/docs", "/nowhere"):
        for method in [name.upper() for name in documented.get(path, {"get": {}})]:
            for value in malformed_values()[:40]:
                head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: ".encode()
                assert status(await exchange(shared, head + value + b"\r\n\r\n")) < 500


async def _sent(shared: Running, requests: list[bytes]) -> AsyncIterator[int]:
    for raw in requests:
        yield status(await exchange(shared, raw))


async def test_the_documentation_names_every_endpoint(shared: Running) -> None:
    paths = (await shared.http.get("/openapi.json")).json()["paths"]
    assert {"/oauth/token", "/tokeninfo", "/auth", "/.well-known/jwks.json", "/healthz", "/readyz"} <= set(paths)
    assert (await shared.http.get("/docs")).status_code == 200


async def test_what_is_not_there_is_404_as_problem_json(shared: Running) -> None:
    answer = await shared.http.get("/nowhere")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/tokeninfo", "/.well-known/jwks.json", "/healthz"])
async def test_another_method_is_405_with_allow(shared: Running, path: str) -> None:
    answer = await shared.http.post(path)
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


async def test_metrics_are_on_their_own_port(shared: Running) -> None:
    await shared.http.get("/.well-known/jwks.json")
    text = (await shared.http.get(shared.process.metrics_url)).text
    assert 'keyturn_api_requests_total{endpoint="jwks",outcome="ok"}' in text
    assert "keyturn_api_ready 1.0" in text
    assert (await shared.http.get("/metrics")).status_code == 404
