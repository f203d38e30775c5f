"""Form-encoded requests (RFC 6749 section 3.2): each field once, apart from those that may repeat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from keyturn_api.errors import invalid_request

CONTENT_TYPE: Final = b"application/x-www-form-urlencoded"
_MAX_FIELDS: Final = 128


@dataclass(frozen=True, slots=True)
class Form:
    """The fields with a value; an empty one counts as absent (RFC 6749 section 3.2)."""

    fields: Mapping[str, str]
    lists: Mapping[str, tuple[str, ...]]

    def get(self, name: str) -> str | None:
        return self.fields.get(name)

    def all(self, name: str) -> tuple[str, ...]:
        return self.lists.get(name, ())


def parse_form(body: bytes, content_type: bytes | None, *, repeatable: frozenset[str]) -> Form:
    """Reads a body. Raises `ApiError` invalid_request that names the field of ours that stands twice."""
    if content_type is None or content_type.partition(b";")[0].strip().lower() != CONTENT_TYPE:
        raise invalid_request("Content-Type must be application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise invalid_request("the body is not a form in UTF-8, or has too many fields") from None
    fields: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name in repeatable:
            if value:
                lists[name] = (*lists.get(name, ()), value)
            continue
        if name in seen:
            # RFC 6749 section 3.2: parameters must not be included more than once.
            raise invalid_request(
                f"{name} stands more than once" if name in _KNOWN else "a field stands more than once"
            )
        seen.add(name)
        if value:
            fields[name] = value
    return Form(fields, lists)


# Only our own names are given back.
_KNOWN: Final = frozenset(
    {
        *("grant_type", "scope", "client_id", "client_secret", "client_assertion", "client_assertion_type"),
        *("token_endpoint_auth_method", "token", "token_type_hint"),
    }
)
