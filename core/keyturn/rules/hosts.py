"""A request's host in the form in which rules write it."""

import re
from collections.abc import Iterator
from typing import Final

ANY_HOST: Final = ""

_AUTHORITY: Final = re.compile(r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?", re.ASCII)


def normal_host(host: str) -> str | None:
    """Lower case, without port and without the root's dot; None where it is no host at all."""
    found = _AUTHORITY.fullmatch(host)
    if found is None:
        return None
    return found.group(1).lower().removesuffix(".") or None


def suffixes(host: str) -> Iterator[str]:
    """The `*.` forms that cover a host, longest first; an address has none."""
    if host.startswith("["):
        return
    rest = host
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
