"""The form of a rule's hosts, paths and permissions, and what makes two paths the same."""

import re
from typing import Final

MAX_PATH_LENGTH: Final = 1024
MAX_SEGMENTS: Final = 64
MAX_PERMISSION_LENGTH: Final = 256

PARAMETER: Final = ":"
WILDCARD: Final = "*"

_PARAMETER: Final = re.compile(r":[A-Za-z_][A-Za-z0-9_-]*")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_ADDRESS: Final = re.compile(r"\[[0-9a-f:.]+\]")
# RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE_TOKEN: Final = re.compile(rf"[\x21\x23-\x5b\x5d-\x7e]{{1,{MAX_PERMISSION_LENGTH}}}")
# What several programs read differently, or what can never be in a path: no rule can mean it for all of them.
_UNCLEAR: Final = re.compile(r"[\x00-\x20\x22\x7f-\x9f\\;%?#]")


def is_permission(text: str) -> bool:
    return _SCOPE_TOKEN.fullmatch(text) is not None


def host_error(host: str) -> str | None:
    """Why this is no host of a rule; None if it is: a name in lower case, `*.name`, or an address in brackets; no port."""
    if len(host) > 253:
        return "A host has at most 253 characters"
    if _HOST.fullmatch(host) or _ADDRESS.fullmatch(host):
        return None
    return "Not a host: a name such as shop.example, *.shop.example or [2001:db8::1], in lower case, without scheme or port"


def path_error(path: str) -> str | None:
    """Why this is no path of a route; None if it is."""
    if not path.startswith("/"):
        return "A path begins with /"
    if len(path) > MAX_PATH_LENGTH:
        return f"A path has at most {MAX_PATH_LENGTH} characters"
    if unclear := _UNCLEAR.search(path):
        return f"A path holds no {_named(unclear.group())}; write it decoded, without query, parameters or fragment"
    if path == "/":
        return None
    segments = path.removesuffix("/")[1:].split("/")
    if len(segments) > MAX_SEGMENTS:
        return f"A path has at most {MAX_SEGMENTS} segments"
    for index, segment in enumerate(segments):
        if not segment:
            return "A path has no empty segment"
        if segment in (".", ".."):
            return "A path has no dot segments"
        if segment.startswith(PARAMETER) and not _PARAMETER.fullmatch(segment):
            return "A parameter is : and a name of letters, digits, - and _"
        if WILDCARD in segment and (segment != WILDCARD or index != len(segments) - 1):
            return "A wildcard * is the whole last segment"
    return None


def segments_of(path: str) -> tuple[str, ...]:
    """The segments of a route's path; a parameter is `:` whatever its name, and a trailing slash means nothing."""
    return tuple(PARAMETER if part.startswith(PARAMETER) else part for part in path.split("/") if part)


def shape(path: str) -> str:
    """The path with nameless parameters: two routes of one shape match the same requests."""
    return "/" + "/".join(segments_of(path))


def _named(character: str) -> str:
    if character == " ":
        return "space"
    return character if character.isprintable() else "control character"
