"""A request as a person writes it down: `GET https://shop.example/orders/7`."""

import re
from typing import Final

from keyturn.rules.hosts import normal_host

_URL: Final = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?#\\]*)(.*)", re.DOTALL)
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


class NoRequest(ValueError):
    """Not a method, a URL or a path; the text says which."""


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
