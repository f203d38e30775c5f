"""How a gateway tells of the request it asks about. Only the chosen profile's headers are read: others could be the caller's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from keyturn_api.http import Scope
from keyturn_api.http_protocol import TARGET

AUTH_PATH: Final = b"/auth"


class Unreadable(Exception):
    """The gateway's question cannot be read; the text says what is missing, for the log and the gateway's operator."""


@dataclass(slots=True)
class Question:
    """The request in question. `authorization` is None without credentials; `several` when they were given more than once."""

    method: str
    target: bytes
    host: str | None
    authorization: bytes | None
    several: bool
    is_backoffice: bool
    client_type: str


Profile = Callable[[Scope], Question]


def original_request(scope: Scope) -> Question:
    """The reference's way: `Original-Request-Uri` and `Original-Request-Method` are required. The host is not known."""
    headers = scope["headers"]
    fields = dict(headers)
    authorization = fields.get(b"authorization")
    several = False
    if len(fields) != len(headers):
        several = _count(headers, b"authorization") > 1
        for name in (b"original-request-uri", b"original-request-method"):
            if _count(headers, name) > 1:
                raise Unreadable(f"{name.decode()} stands twice")
        if _count(headers, b"isbackoffice") > 1 or _count(headers, b"client-type") > 1:
            raise Unreadable("a context header stands twice")
    target, method = fields.get(b"original-request-uri"), fields.get(b"original-request-method")
    if not target or not method:
        raise Unreadable("Original-Request-Uri and Original-Request-Method are required")
    return Question(
        method.decode("latin-1"),
        target,
        None,
        authorization,
        several,
        fields.get(b"isbackoffice") in _TRUE,
        fields.get(b"client-type", b"").decode("latin-1"),
    )


def envoy(prefix: bytes = b"", *, context_headers: bool = False) -> Profile:
    """Envoy's external authorization over HTTP: the path follows `/auth`; method and host are the request's own."""
    start = len(prefix + AUTH_PATH)

    def read(scope: Scope) -> Question:
        headers = scope["headers"]
        fields = dict(headers)
        several = False
        if len(fields) != len(headers):
            several = _count(headers, b"authorization") > 1
            if _count(headers, b"host") > 1:
                raise Unreadable("Host stands twice")
            if context_headers and (_count(headers, b"isbackoffice") > 1 or _count(headers, b"client-type") > 1):
                raise Unreadable("a context header stands twice")
        target: bytes = scope.get(TARGET, b"")
        if not target.startswith(b"/"):
            # The absolute form, or a server that hands over no target.
            query = scope["query_string"]
            target = scope["raw_path"] + (b"?" + query if query else b"")
        target = target[start:]
        if not target.startswith(b"/"):
            target = b"/" + target
        host = fields.get(b"host")
        return Question(
            scope["method"],
            target,
            None if host is None else host.decode("latin-1"),
            fields.get(b"authorization"),
            several,
            context_headers and fields.get(b"isbackoffice") in _TRUE,
            fields.get(b"client-type", b"").decode("latin-1") if context_headers else "",
        )

    return read


_TRUE: Final = (b"1", b"true")


def _count(headers: list[tuple[bytes, bytes]], name: bytes) -> int:
    return sum(key == name for key, _ in headers)
