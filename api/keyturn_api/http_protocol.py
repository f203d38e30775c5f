"""uvicorn's HTTP protocol with what it lacks: limits on header bytes and header time while they arrive, the request
target as sent, and answers in one write."""

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar, Final

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keyturn_api.http import Response, Scope

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_FIELD_BYTES: Final = 16 * 1024
HEADER_TIMEOUT: Final = 10.0
# The extension of the ASGI scope that holds the target with its query and fragment, undecoded.
TARGET: Final = "keyturn.target"
# The extension of the ASGI scope that holds the connection, for `write_at_once`.
CONNECTION: Final = "keyturn.connection"
_FIELD_OVERHEAD: Final = 4  # ": " and CRLF


class _HeadersTooLarge(Exception):
    """Ends the parsing of a request from within a callback."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. A request with too many header bytes is answered 431 (RFC 6585 section 5) and its connection closed."""

    # The process is about to end: each answer closes its connection (RFC 9112 section 9.6), so that callers open their next one elsewhere
    # before idle connections are closed under them.
    ending: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_headers = True
        self._header_bytes = 0
        self._unparsed_bytes = 0
        self._refused = False
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_headers:
            # A field that has not ended yet reaches no callback: what has arrived for it is counted here.
            self._unparsed_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken here. The request itself has been handed over; nothing may follow on this connection.
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _HeadersTooLarge):
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header bytes")
            else:
                self._refuse(HTTPStatus.BAD_REQUEST, "this is not a well-formed HTTP request")
            return
        if self._in_headers and (
            self._unparsed_bytes > MAX_HEADER_BYTES or self._unparsed_bytes - self._header_bytes > MAX_FIELD_BYTES
        ):
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header bytes")
        elif self._in_headers and self._unparsed_bytes and self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_TIMEOUT, self._too_slow)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value) + _FIELD_OVERHEAD
        if size > MAX_FIELD_BYTES:
            raise _HeadersTooLarge
        self._count(size)
        # Trailer fields come after the body and would join the headers of a request that is being decided already.
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._unparsed_bytes = 0
        self._stop_header_timer()
        self.scope[TARGET] = self.url  # type: ignore[typeddict-unknown-key]
        self.scope[CONNECTION] = self  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        if self.ending and self.cycle is not None:
            self.cycle.keep_alive = False

    def write_at_once(self, scope: Scope, answer: Response) -> bool:
        """Answers the request of `scope` whole, in one write instead of uvicorn's two.

        False: nothing was written, and the answer must go through ASGI's `send`, which knows all the rest: HEAD, an end of
        the connection, a caller that has gone or reads slowly or awaits a 100, requests that are already read behind this one.
        """
        cycle = self.cycle
        head = answer.head()
        if (
            not head
            or cycle.scope is not scope
            or cycle.response_started
            or cycle.disconnected
            or not cycle.keep_alive
            or cycle.waiting_for_100_continue
            or cycle.access_log
            or self.flow.write_paused
            or self.transport.is_closing()
            or scope["method"] == "HEAD"
        ):
            return False
        # From here on what uvicorn's `send` does for a whole body.
        cycle.response_started = True
        parts = [head, *(b"%b: %b\r\n" % each for each in cycle.default_headers), b"\r\n", answer.body["body"]]
        self.transport.write(b"".join(parts))
        cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()
        return True

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # Whatever comes next begins with headers.
        self._in_headers = True
        self._header_bytes = 0

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "this is not a well-formed HTTP request")

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise _HeadersTooLarge

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        if not self._unparsed_bytes:
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's headers took too long")

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answers in place of the application and closes. A response that is being written is cut off instead."""
        self._refused = True
        self._stop_header_timer()
        if self.transport.is_closing():
            return
        answering = getattr(self.cycle, "response_complete", True) is False  # no cycle before the first request
        if not answering:
            body = orjson.dumps(
                {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
            )
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (status, status.phrase.encode(), len(body), body)
            )
        self.transport.close()
