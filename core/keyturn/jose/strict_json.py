"""JSON objects from outside, read in only one possible way: UTF-8, no member twice, no NaN, bounded depth and numbers."""

import json
import math
import re
from typing import Any, Final

MAX_DEPTH: Final = 16
_LEAST: Final = -(2**63)
_GREATEST: Final = 2**64 - 1

# One pass whatever the input: possessive quantifiers never look back, and an unterminated string ends the text.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_OPENING: Final = frozenset(b"[{")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class InvalidJson(ValueError):
    """Not a JSON object that can be read in only one way; the text says why and never quotes the input."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidJson("a member stands twice in one object")
    return members


def _no_constant(_: str) -> Any:
    raise InvalidJson("NaN and Infinity are no JSON numbers")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidJson("a number is out of range")
    return number


def _whole(text: str) -> int:
    # What is read here is written again, into tokens and answers, by a writer that has no longer integers.
    number = int(text)
    if not _LEAST <= number <= _GREATEST:
        raise InvalidJson("a number is out of range")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
)


def _too_deep(data: bytes) -> bool:
    # Cheap for what is met in practice: so few brackets cannot nest too deeply, wherever they stand.
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in _OPENING else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _has_lone_surrogate(value: Any) -> bool:
    # Bounded by MAX_DEPTH, which was checked before.
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(_has_lone_surrogate(part) for member in value.items() for part in member)
    return isinstance(value, list) and any(map(_has_lone_surrogate, value))


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. The caller bounds its length; the depth is bounded here.

    Raises InvalidJson. RFC 7515 section 4 and RFC 7519 section 4 leave it open whether a doubled member is refused or the last one
    counts; two readers that choose differently would see two tokens, so it is refused. Lone surrogates, which only an
    escape can bring in, are refused since such a text cannot be written again as UTF-8 (RFC 8259 section 8.2).
    """
    if _too_deep(data):
        raise InvalidJson("nested too deeply")
    try:
        value = _DECODER.decode(data.decode())
    except InvalidJson:
        raise
    except (ValueError, RecursionError):
        # The cause would quote the input (the decoder's error holds the whole document), so it is dropped.
        raise InvalidJson("not valid JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise InvalidJson("not a JSON object")
    if b"\\u" in data and _has_lone_surrogate(value):
        raise InvalidJson("a text is no valid Unicode")
    return value
