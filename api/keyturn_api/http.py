"""Plain ASGI without a framework: what the paths pay that gateways and clients hit all the time."""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson

from keyturn_api.errors import ApiError, Header

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON: Final = (b"content-type", b"application/json")
PROBLEM: Final = (b"content-type", b"application/problem+json")
# RFC 6749 section 5.1: answers with tokens are kept nowhere.
NO_STORE: Final[tuple[Header, ...]] = ((b"cache-control", b"no-store"), (b"pragma", b"no-cache"))
BODY_TIMEOUT: Final = 10.0
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
# RFC 9110 section 5: a token, a colon, and a value without control characters.
_FIELD_LINES: Final = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*\r\n)*")
# They decide how a message is framed and what becomes of its connection.
_FRAMING: Final = (b"connection", b"transfer-encoding")


@dataclass(slots=True)
class Response:
    """A whole answer as its two ASGI messages; one may be sent any number of times."""

    start: Message
    body: Message
    _head: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def status(self) -> int:
        return int(self.start["status"])

    def head(self) -> bytes:
        """Status line and fields as they are sent, rendered once, without the empty line that ends them.

        Empty where the sender must look closer: at framing, at a status without content, at fields that are not valid.
        """
        if self._head is None:
            self._head = _render(self.status, self.start["headers"], self.body["body"])
        return self._head


def response(status: int, headers: Iterable[Header], body: bytes = b"") -> Response:
    """An answer with its length set."""
    return Response(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        },
        {"type": "http.response.body", "body": body},
    )


def not_modified(headers: Iterable[Header]) -> Response:
    """304 (RFC 9110 section 15.4.5): what the caller has still holds. It has no content, and no length of any."""
    return Response(
        {"type": "http.response.start", "status": 304, "headers": list(headers)},
        {"type": "http.response.body", "body": b""},
    )


def _render(status: int, headers: list[Header], body: bytes) -> bytes:
    lowered = [(name.lower(), value) for name, value in headers]
    # RFC 9110 sections 15.3.5 and 15.4.5: no content follows a 204 or a 304.
    if status in (204, 304) or any(name in _FRAMING for name, _ in lowered):
        return b""
    if [value for name, value in lowered if name == b"content-length"] != [b"%d" % len(body)]:
        return b""
    lines = b"".join([b"%b: %b\r\n" % each for each in lowered])
    # As many lines as fields: no value has brought a line of its own.
    if lines.count(b"\n") != len(headers) or not _FIELD_LINES.fullmatch(lines):
        return b""
    return b"HTTP/1.1 %d %b\r\n%b" % (status, _PHRASES.get(status, "").encode(), lines)


def oauth_error(error: ApiError) -> Response:
    """RFC 6749 section 5.2."""
    body = orjson.dumps({"error": error.code, "error_description": error.description})
    return response(error.status, (JSON, *NO_STORE, *error.headers), body)


def problem(status: int, detail: str, *, request_id: str, headers: Iterable[Header] = ()) -> Response:
    """RFC 9457."""
    body = orjson.dumps(
        {"type": "about:blank", "title": _PHRASES.get(status, ""), "status": status, "detail": detail, "id": request_id}
    )
    return response(status, (PROBLEM, (b"cache-control", b"no-store"), *headers), body)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The value of a header that may stand once only; the first, where it stands more often."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def request_id(scope: Scope) -> str:
    """The gateway's own id of this request, where it is a sane one, else a new one."""
    value = header(scope, b"x-request-id")
    if value is not None and _REQUEST_ID.fullmatch(value):
        return value.decode("ascii")
    return secrets.token_hex(8)


def method_not_allowed(allowed: str, *, request_id: str) -> Response:
    return problem(
        405, f"use {allowed}", request_id=request_id, headers=[(b"allow", allowed.replace(" or ", ", ").encode())]
    )


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body. Raises `ApiError` 413 as soon as more than `limit` bytes are announced or have arrived, 408 after 10 s."""
    try:
        # Headers have their time while they arrive; without this one a body that never ends holds its connection for ever.
        async with asyncio.timeout(BODY_TIMEOUT):
            return await _read_body(scope, receive, limit)
    except TimeoutError:
        raise ApiError(
            408, "invalid_request", "the request's body took too long", headers=[(b"connection", b"close")]
        ) from None


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    announced = header(scope, b"content-length")
    if announced is not None and (len(announced) > 12 or int(announced) > limit):
        raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts, size = [body], len(body)
        while message.get("more_body", False):
            if size > limit:
                raise _too_large(limit)
            message = await receive()
            part: bytes = message.get("body", b"")
            parts.append(part)
            size += len(part)
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise Disconnected
    if len(body) > limit:
        raise _too_large(limit)
    return body


class Disconnected(Exception):
    """The caller has gone; nobody waits for an answer."""


def _too_large(limit: int) -> ApiError:
    # The rest of the body is not read, so the connection cannot serve another request.
    return ApiError(
        413, "invalid_request", f"the body must not exceed {limit} bytes", headers=[(b"connection", b"close")]
    )
