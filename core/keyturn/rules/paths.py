"""In how many ways a request's path can be read by the programs behind a gateway.

Whether `%2f` separates, whether `..` is removed before or after decoding, whether `;x` belongs to a segment: servers differ,
and a check that reads a path otherwise than the server that answers it lets through what it should not. So a path in which
nothing is unclear has one reading; an unclear one has every reading that some order of the known steps leads to, and the
caller of this module decides each and takes the strictest. The steps: decode `%2F`, `%5C`, `%3B`, `%3F`, `%25` (again and
again); take a backslash as a slash; cut parameters at `;`; cut at a decoded `?`; remove dot segments (RFC 3986 section 5.2.4)
with empty segments counted or merged.

Always done, since it changes no meaning: slashes are merged, unreserved characters decoded (RFC 3986 section 6.2.2.2) and
all others that separate nothing. A trailing slash means nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

MAX_TARGET_LENGTH: Final = 8192
# Only where a path is unclear; real ones have a handful of readings, and the work for one request is bounded by these.
MAX_READINGS: Final = 64
MAX_UNCLEAR_SEGMENTS: Final = 128
MAX_UNCLEAR_LENGTH: Final = 2048

Segments = tuple[str, ...]

# No escape, no parameter, no backslash, no empty and no dot segment: what nearly every request looks like.
_PLAIN: Final = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,=:@-]+)*/?")
# RFC 9112 section 3.2.2: absolute-form. `//host/x` has no scheme: it is a path.
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#\\]*)")
_ESCAPES: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNCLEAR: Final = re.compile(r"[\\;]|%(?:2F|5C|3B|3F|25)|/\.{1,2}(?:/|\Z)")
# These stay encoded until a reading decodes them; everything else is decoded at once.
_KEPT: Final = {ord(character): f"%{ord(character):02X}".encode() for character in "/\\;?%"}
_PARAMETERS: Final = re.compile(r";[^/]*")
_SLASHES: Final = re.compile(r"/{2,}")
_KEPT_ESCAPE: Final = re.compile(r"%(2F|5C|3B|3F|25)")


@dataclass(frozen=True, slots=True)
class PathReadings:
    """The readings of one target, each a tuple of decoded segments (`/` is the empty tuple), without doubles.

    `host` stands for an absolute-form target only.
    """

    readings: tuple[Segments, ...]
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A target that means nothing or too much; nobody may pass with it. `description` is for the caller."""

    description: str


def readings(raw_target: bytes) -> PathReadings | Refused:
    """Every reading of a request target (path, query ignored, or absolute form). Bounded in time; never raises."""
    if len(raw_target) > MAX_TARGET_LENGTH:
        return Refused("The request target is too long")
    host: str | None = None
    if absolute := _ABSOLUTE.match(raw_target):
        authority = absolute.group(1)
        if not authority or not authority.isascii() or b"@" in authority:
            return Refused("The request target's authority is not clear")
        host = authority.decode("ascii")
        raw_target = raw_target[absolute.end() :]
        if raw_target[:1] in (b"", b"?"):
            raw_target = b"/" + raw_target
    path = raw_target.partition(b"?")[0]
    if not path.startswith(b"/"):
        return Refused("The request target is not a path")
    if _PLAIN.fullmatch(path):
        return PathReadings((tuple(path.decode("ascii").strip("/").split("/")) if len(path) > 1 else (),), host)
    try:
        return PathReadings(_unclear(path), host)
    except _RefusedError as refusal:
        return Refused(str(refusal))


class _RefusedError(Exception):
    """Carries the description out of a step."""


def _unclear(path: bytes) -> tuple[Segments, ...]:
    if _BAD_ESCAPE.search(path):
        raise _RefusedError("The path holds an incomplete escape")
    start = _canonical(path)
    if _UNCLEAR.search(start):
        if len(start) > MAX_UNCLEAR_LENGTH or start.count("/") > MAX_UNCLEAR_SEGMENTS:
            raise _RefusedError("The path is unclear and too long")
        states = _closure(start)
    else:
        states = [start]
    return tuple(dict.fromkeys(map(_segments, states)))


def _closure(start: str) -> list[str]:
    """All that any order of the steps leads to."""
    states = {start: None}
    pending = [start]
    while pending:
        for following in _steps(pending.pop()):
            if following not in states:
                if len(states) >= MAX_READINGS:
                    raise _RefusedError("The path can be read in too many ways")
                states[following] = None
                pending.append(following)
    return list(states)


def _steps(state: str) -> Iterator[str]:
    if "%" in state:
        yield state.replace("%2F", "/")
        yield state.replace("%5C", "\\")
        yield state.replace("%3B", ";")
        yield state.partition("%3F")[0] or "/"
        yield _decoded(state)
        if "%25" in state:
            yield _decoded(state, only="25")
    if "\\" in state:
        yield state.replace("\\", "/")
    if ";" in state:
        yield _PARAMETERS.sub("", state)
    if "/." in state:
        yield _without_dots(state)
        if "//" in state:
            yield _without_dots(_SLASHES.sub("/", state))


def _canonical(path: bytes) -> str:
    """Unreserved and other harmless characters decoded, the rest as upper-case escapes (RFC 3986 section 6.2.2).

    A `%` that begins no escape is one that was decoded: it stays a literal percent sign.
    """
    decoded = _ESCAPES.sub(_harmless, _BAD_ESCAPE.sub(b"%25", path))
    try:
        text = decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise _RefusedError("The path is not UTF-8") from None
    if _CONTROL.search(text):
        raise _RefusedError("The path holds a control character")
    if "#" in text:
        raise _RefusedError("The path holds a fragment")
    return text


def _harmless(escape: re.Match[bytes]) -> bytes:
    byte = int(escape.group(1), 16)
    return _KEPT.get(byte) or bytes((byte,))


def _decoded(state: str, only: str = "") -> str:
    """Decoded once more: every kept escape, or one kind; a decoded `?` separates nothing any more, so it stays an escape."""
    return _canonical(_KEPT_ESCAPE.sub(partial(_decode_kept, only=only), state).encode("utf-8"))


def _decode_kept(escape: re.Match[str], *, only: str) -> str:
    code = escape.group(1)
    if code == "3F" or (only and code != only):
        return escape.group()
    return chr(int(code, 16))


def _without_dots(state: str) -> str:
    """RFC 3986 section 5.2.4, on segments."""
    kept: list[str] = []
    for segment in state.split("/")[1:]:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def _segments(state: str) -> Segments:
    """A state as segments: what is still encoded is literal, so it is decoded within its segment."""
    return tuple(
        _KEPT_ESCAPE.sub(_decode_literal, segment) if "%" in segment else segment
        for segment in state.split("/")
        if segment
    )


def _decode_literal(escape: re.Match[str]) -> str:
    return chr(int(escape.group(1), 16))
