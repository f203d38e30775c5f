"""Compact JWS (RFC 7515 section 7.1): strict parsing, before any key is looked up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from keyturn.jose import base64url
from keyturn.jose.algorithms import ALGORITHMS, SYNONYMS
from keyturn.jose.strict_json import InvalidJson, parse_object

MAX_TOKEN_BYTES: Final = 8192

MALFORMED: Final = "Malformed"
TOO_LARGE: Final = "TooLarge"
UNSECURED: Final = "Unsecured"
SYMMETRIC_ALGORITHM: Final = "SymmetricAlgorithm"
UNSUPPORTED_ALGORITHM: Final = "UnsupportedAlgorithm"
UNSUPPORTED_HEADER: Final = "UnsupportedHeader"

# A key that comes with the token, or by a reference in it, proves nothing (RFC 8725 section 3.10); `zip` is for encryption;
# `b64` (RFC 7797) would change what is signed.
_REFUSED_MEMBERS: Final = ("jwk", "jku", "x5u", "x5c", "zip", "b64")

# Clients send the same few headers over and over. Cleared when full: a flood of different ones costs what it would without the cache.
_CACHE_ENTRIES: Final = 1024
_CACHED_HEADER_BYTES: Final = 512
_headers: dict[bytes, Mapping[str, Any]] = {}


class MalformedToken(ValueError):
    """Not a token that could ever be valid here. `reason` is a constant of this module; `description` never echoes the input."""

    def __init__(self, description: str, *, reason: str = MALFORMED) -> None:
        super().__init__(description)
        self.description = description
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CompactJws:
    """A token taken apart, nothing verified yet. `header` is read-only and shared between equal tokens; `alg` by our name of it."""

    header: Mapping[str, Any]
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_compact(token: bytes, *, max_bytes: int = MAX_TOKEN_BYTES) -> CompactJws:
    """Takes a compact JWS apart. Raises MalformedToken."""
    if len(token) > max_bytes:
        raise MalformedToken("the token is too long", reason=TOO_LARGE)
    if token.count(b".") != 2:
        raise MalformedToken("the token must have exactly three parts")
    signing_input, _, signature = token.rpartition(b".")
    header, _, payload = signing_input.partition(b".")
    if not (header and payload and signature):
        # RFC 7515 appendix A.5: an empty signature means an unsecured token.
        raise MalformedToken("a part of the token is empty")
    parsed = _headers.get(header)
    if parsed is None:
        parsed = _parse_header(header)
    try:
        return CompactJws(parsed, base64url.decode(payload), signing_input, base64url.decode(signature))
    except ValueError:
        raise MalformedToken("a part of the token is not canonical base64url") from None


def parse_claims(payload: bytes) -> dict[str, Any]:
    """The claims of a JWT (RFC 7519 section 4): a JSON object with no member twice at any depth. Raises MalformedToken."""
    try:
        return parse_object(payload)
    except InvalidJson as error:
        raise MalformedToken(f"the claims cannot be read: {error}") from None


def _parse_header(raw: bytes) -> Mapping[str, Any]:
    try:
        header = parse_object(base64url.decode(raw))
    except InvalidJson as error:
        raise MalformedToken(f"the header cannot be read: {error}") from None
    except ValueError:
        raise MalformedToken("the header is not canonical base64url") from None
    algorithm = header.get("alg")
    if isinstance(algorithm, str):
        header["alg"] = SYNONYMS.get(algorithm, algorithm)
    _check_header(header)
    shared = MappingProxyType(header)
    if len(raw) <= _CACHED_HEADER_BYTES:
        if len(_headers) >= _CACHE_ENTRIES:
            _headers.clear()
        _headers[raw] = shared
    return shared


def _check_header(header: dict[str, Any]) -> None:
    # RFC 7515 section 4.1.1
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise MalformedToken("the header has no alg")
    if algorithm not in ALGORITHMS:
        # RFC 8725 section 3.1 and 3.2: said on their own, since these two are how tokens are forged.
        if algorithm.lower() == "none":
            raise MalformedToken("unsecured tokens (alg none) are refused", reason=UNSECURED)
        if algorithm.upper().startswith("HS"):
            raise MalformedToken("symmetric algorithms are refused", reason=SYMMETRIC_ALGORITHM)
        raise MalformedToken("the algorithm is not supported", reason=UNSUPPORTED_ALGORITHM)
    # RFC 7515 section 4.1.11: no extension is understood here, so every one that is critical is refused.
    if "crit" in header:
        raise MalformedToken("critical header extensions are not supported", reason=UNSUPPORTED_HEADER)
    for member in _REFUSED_MEMBERS:
        if member in header:
            raise MalformedToken(f"the header member {member} is refused", reason=UNSUPPORTED_HEADER)
    # RFC 7515 sections 4.1.4, 4.1.9 and 4.1.10
    for member in ("kid", "typ", "cty"):
        if member in header and not isinstance(header[member], str):
            raise MalformedToken(f"the header member {member} must be a string")
