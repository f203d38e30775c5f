"""A request and its caller, as a person writes them down: `GET https://shop.example/orders/7`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from keyturn.expressions import Subject
from keyturn.rules.explain import Explanation, explain
from keyturn.rules.hosts import normal_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn.rules.table import RouteTable

_URL: Final = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?#\\]*)(.*)", re.DOTALL)
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


class NoRequest(ValueError):
    """Not a method, a URL or a path; the text says which."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a gateway would ask, and on whose behalf. `host` None: not known. `anonymous`: without a token."""

    method: str
    target: bytes
    host: str | None
    permissions: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    audiences: tuple[str, ...] = ()
    client_type: str = ""
    backoffice: bool = False
    anonymous: bool = False
    user_properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> Subject | None:
        if self.anonymous:
            return None
        return Subject(self.permissions, self.groups, self.client_type, self.backoffice, self.user_properties)

    def explain(self, table: RouteTable) -> Explanation:
        """Decides by the code that answers gateways, and tells why."""
        return explain(
            table,
            method=self.method,
            target=self.target,
            host=self.host,
            is_backoffice=self.backoffice,
            subject=self.subject,
            audiences=self.audiences,
        )


def parse_request(method: str, url: str) -> tuple[str, bytes, str | None]:
    """Method, raw target and host of a request; a URL without scheme is a path, and its host is not known. Raises NoRequest."""
    if not _METHOD.fullmatch(method):
        raise NoRequest("A request begins with a method, such as GET")
    try:
        if url.startswith("/"):
            return method, url.encode(), None
        found = _URL.fullmatch(url)
        if found is None:
            raise NoRequest("A request names a URL such as https://shop.example/orders/7, or a path such as /orders/7")
        authority, target = found.groups()
        if normal_host(authority) is None:
            raise NoRequest("The URL's host can't be read")
        return method, (target if target.startswith("/") else f"/{target}").encode(), authority
    except UnicodeEncodeError:
        raise NoRequest("The URL is not UTF-8") from None
