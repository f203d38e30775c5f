"""Whatever stands in a request to an endpoint for clients: an answer of RFC 6749, never an exception, never a 5xx."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn_api.client_secrets import parse_basic
from keyturn_api.errors import ApiError
from keyturn_api.form import parse_form
from keyturn_api.http import Receive, Response, Scope
from tests.unit.api.endpoints import FORM, TYPE, Endpoint, assertion, basic
from tests.unit.api.worlds import access_token, content, fields, scope
from tests.unit.fuzz.strategies import FEWER, FUZZED, mutations

Handler = Callable[[Scope, Receive], Awaitable[Response]]
PATHS = ("/oauth/token", "/oauth/introspect", "/oauth/revoke")
NAMES = st.sampled_from(
    [
        *("grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "audience"),
        *("resource", "scope", "token", "token_type_hint", "token_endpoint_auth_method", "x"),
    ]
)
VALUES = st.one_of(
    st.sampled_from(["client_credentials", TYPE, "team.app", "orders", "orders:read", "https://a.example", ""]),
    st.builds(lambda: assertion()),
    st.text(max_size=30),
)
QUOTED = st.binary(max_size=20).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw))
BODIES = st.one_of(
    st.binary(max_size=300),
    st.lists(st.tuples(NAMES, st.one_of(VALUES, QUOTED)), max_size=8).map(
        lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode("utf-8", "replace")
    ),
    mutations(f"grant_type=client_credentials&client_assertion_type={TYPE}&client_assertion={assertion()}".encode()),
)
AUTHORIZATIONS = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda raw: b"Basic " + base64.b64encode(raw)),
    mutations(basic(b"secret")[1]),
    mutations(b"Bearer " + access_token()),
)
TYPES = st.one_of(st.just(FORM.encode()), mutations(FORM.encode()))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="module")
def endpoint(runner: asyncio.Runner) -> Iterator[Endpoint]:
    async def make() -> Endpoint:
        return Endpoint(limit=0)

    one = runner.run(make())
    yield one
    one.verifier.close()


def handled(runner: asyncio.Runner, endpoint: Endpoint, path: str, headers: list[Any], body: bytes) -> Response:
    handlers: dict[str, Handler] = {
        "/oauth/token": endpoint.endpoint,
        "/oauth/introspect": endpoint.introspection,
        "/oauth/revoke": endpoint.revocation,
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def one() -> Response:
        return await handlers[path](scope("POST", path, *headers), receive)

    return runner.run(one())


@FUZZED
@given(
    path=st.sampled_from(PATHS),
    content_type=TYPES,
    authorizations=st.lists(AUTHORIZATIONS, max_size=2),
    body=BODIES,
)
def test_any_request_is_answered_by_rfc_6749(
    runner: asyncio.Runner,
    endpoint: Endpoint,
    path: str,
    content_type: bytes,
    authorizations: list[bytes],
    body: bytes,
) -> None:
    headers = [("content-type", content_type), *(("authorization", value) for value in authorizations)]
    answer = handled(runner, endpoint, path, headers, body)
    assert answer.status in (200, 400, 401), (answer.status, answer.body)
    if answer.status != 200:
        told = content(answer)
        assert told["error"]
        # RFC 6749 section 5.2: nothing outside these characters may stand in an error_description.
        assert all(" " <= char <= "~" and char not in '"\\' for char in told["error_description"])
    assert fields(answer)["cache-control"] == "no-store"


@FUZZED
@given(AUTHORIZATIONS)
def test_a_basic_header_is_an_id_and_a_secret_or_invalid_client(value: bytes) -> None:
    try:
        client_id, secret = parse_basic(value)
    except ApiError as error:
        assert (error.status, error.code) == (401, "invalid_client")
        return
    assert isinstance(client_id, str)
    assert isinstance(secret, bytes)


@FUZZED
@given(body=BODIES, content_type=st.one_of(st.none(), TYPES))
def test_a_body_is_a_form_or_invalid_request(body: bytes, content_type: bytes | None) -> None:
    try:
        form = parse_form(body, content_type, repeatable=frozenset({"audience", "resource"}))
    except ApiError as error:
        assert (error.status, error.code) == (400, "invalid_request")
        return
    assert all(form.fields.values())
    assert all(value for values in form.lists.values() for value in values)


@FEWER
@given(st.lists(st.tuples(st.text(min_size=1, max_size=10), st.text(min_size=1, max_size=10)), max_size=6))
def test_what_a_browser_encodes_is_read_as_it_was(pairs: list[tuple[str, str]]) -> None:
    given_once = dict(pairs)
    try:
        body = urlencode(given_once).encode()
    except UnicodeEncodeError:
        return
    assert parse_form(body, FORM.encode(), repeatable=frozenset()).fields == given_once


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"&" * 65_536, id="separators"),
        pytest.param(b"%" * 65_536, id="percent signs"),
        pytest.param(b"a=%ff" * 13_000, id="no UTF-8"),
        pytest.param(b"audience=a&" * 5_900, id="the same field 5900 times"),
        pytest.param(b"=" * 65_536, id="equals signs"),
    ],
)
def test_no_body_takes_long_to_read(body: bytes) -> None:
    before = time.process_time()
    for _ in range(10):
        try:
            parse_form(body, FORM.encode(), repeatable=frozenset({"audience"}))
        except ApiError as error:
            assert error.status == 400
    assert time.process_time() - before < 2.0
