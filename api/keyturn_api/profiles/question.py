"""What a gateway asks, and how the headers that tell of it are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from keyturn_api.http import Scope

AUTHORIZATION: Final = b"authorization"
IS_BACKOFFICE: Final = b"isbackoffice"
CLIENT_TYPE: Final = b"client-type"
CONTEXT: Final = (IS_BACKOFFICE, CLIENT_TYPE)
_TRUE: Final = (b"1", b"true")


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
Fields = dict[bytes, bytes]


def read_fields(scope: Scope, own: tuple[bytes, ...]) -> tuple[Fields, bool]:
    """The headers by name, and whether credentials stand more than once. Raises `Unreadable` where one of `own` does.

    A gateway writes each of its headers once: a second one is the caller's, and which of them counts would be chance.
    """
    headers = scope["headers"]
    fields: Fields = dict(headers)
    if len(fields) == len(headers):
        return fields, False
    for name in own:
        if _count(headers, name) > 1:
            raise Unreadable(f"{name.decode()} stands twice")
    return fields, _count(headers, AUTHORIZATION) > 1


def read_joined_fields(scope: Scope, own: tuple[bytes, ...]) -> tuple[Fields, bool]:
    """The same behind Envoy, which joins what stands more than once with a comma (unless it is told to send each).

    No credentials that count have a comma of their own: RFC 6750 section 2.1 for tokens, RFC 7617 section 2 for Basic.
    """
    fields, several = read_fields(scope, own)
    return fields, several or b"," in fields.get(AUTHORIZATION, b"")


def required(fields: Fields, name: bytes) -> bytes:
    """The value of a header that the gateway always sends. Raises `Unreadable` where it is absent or empty."""
    value = fields.get(name)
    if not value:
        raise Unreadable(f"{name.decode()} is missing: the gateway does not ask in the way of this profile")
    return value


def question(
    fields: Fields, *, method: str, target: bytes, host: bytes | None, several: bool, context: bool
) -> Question:
    """The question with the caller's credentials; what `isbackoffice` and `Client-Type` say only with `context`."""
    return Question(
        method,
        target,
        None if host is None else host.decode("latin-1"),
        fields.get(AUTHORIZATION),
        several,
        context and fields.get(IS_BACKOFFICE) in _TRUE,
        fields.get(CLIENT_TYPE, b"").decode("latin-1") if context else "",
    )


def _count(headers: list[tuple[bytes, bytes]], name: bytes) -> int:
    return sum(key == name for key, _ in headers)
