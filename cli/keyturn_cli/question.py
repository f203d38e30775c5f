"""A request and its caller, as a person writes them down: `GET https://shop.example/orders/7`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keyturn.expressions import Subject
from keyturn.rules.asked import NoRequest, parse_request
from keyturn.rules.explain import Explanation, explain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn.rules.table import RouteTable

__all__ = ["NoRequest", "Question", "parse_request"]


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
