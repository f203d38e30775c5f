"""Client ids: stable names that survive deletion, restore and a lost store."""

import re
from collections.abc import Container
from typing import Final

PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,199}$"

_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,199}", re.ASCII)


def default_client_id(namespace: str, name: str) -> str:
    """`<namespace>.<name>`. No two objects share one, since a namespace's name has no dot. It may be too long: see `is_client_id`."""
    return f"{namespace}.{name}"


def is_client_id(value: object) -> bool:
    """Whether this is a client id: 1 to 200 unreserved characters of RFC 3986 that begin with a letter or digit."""
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def reserving_namespace(client_id: str, *, namespace: str, watched: Container[str]) -> str | None:
    """The other watched namespace whose default ids begin like this explicit one, if any: it must not be taken from there."""
    prefix, dot, _ = client_id.partition(".")
    return prefix if dot and prefix != namespace and prefix in watched else None
