"""What an access token says, and which of its claims nobody but the server may set."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from keyturn.clients.claims import RESERVED_CLAIMS
from keyturn.clients.state import ClientState
from keyturn.tokens.refusal import TokenRefused

INVALID_REQUEST: Final = "invalid_request"
INVALID_TARGET: Final = "invalid_target"
INVALID_SCOPE: Final = "invalid_scope"

# What is issued must get through everything between a client and an API. The narrowest that is common: 8 KiB for one header (nginx,
# Apache, gunicorn), 8 KiB for all headers of a request (Tomcat, Jetty). With the longest signature and kid of a key that is made here the
# token has 7 KiB at most, with those of any key that can be imported less than the 8 KiB that are read. Held against the claims and not
# against the token, so that changing the signing key's kind changes nobody's lot.
MAX_CLAIMS_BYTES: Final = 4608
# As `secrets.token_urlsafe(16)` makes them.
_JTI_LENGTH: Final = 22

# RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_MAX_ASKED: Final = 100


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token will carry: always a part of what the client holds. `narrowed`: the request asked for a scope by name."""

    permissions: tuple[str, ...]
    audiences: tuple[str, ...]
    narrowed: bool = False


def held_audiences(client: ClientState, issuer: str) -> tuple[str, ...]:
    """All audiences that the client may ask for; one without any has the issuer's."""
    return client.audiences or (issuer,)


def grant(client: ClientState, *, audiences: Iterable[str], scope: str | None, issuer: str) -> Grant:
    """Decides what a token may say: everything the client holds, or the part that the request names.

    `scope` is the request's parameter, space separated (RFC 6749 section 3.3). Raises `TokenRefused` with `INVALID_TARGET` (RFC 8707
    section 2) or `INVALID_SCOPE` (RFC 6749 section 5.2) where something is asked for that the client does not hold.
    """
    held = held_audiences(client, issuer)
    asked = tuple(dict.fromkeys(audiences))
    if len(asked) > _MAX_ASKED or any(audience not in held for audience in asked):
        raise TokenRefused(INVALID_TARGET, "the client does not hold an audience that was asked for")
    permissions = client.permissions
    if scope is not None:
        tokens = tuple(dict.fromkeys(scope.split(" ")))
        if len(tokens) > len(permissions) or any(
            token not in permissions or _SCOPE_TOKEN.fullmatch(token) is None for token in tokens
        ):
            raise TokenRefused(INVALID_SCOPE, "the client does not hold a permission that was asked for in scope")
        permissions = tokens
    return Grant(permissions=tuple(permissions), audiences=asked or tuple(held), narrowed=scope is not None)


def lifetime(client: ClientState, *, default: int, maximum: int) -> int:
    """Seconds that a token of this client lives: its own or the installation's, never above the cap."""
    return min(client.token_lifetime or default, maximum)


def issued_at(client: ClientState, *, now: float, clock_skew: float) -> int:
    """The `iat` of a token that is issued now, in seconds.

    The client's birth is told by the API server's clock. Where that is ahead of ours, within what clocks may be off, a token of the
    client's first moments would be older than the client, and refused as a namesake's for all its life.
    """
    born = math.ceil(client.created_at)
    return born if int(now) < born <= now + clock_skew else int(now)


def encode_access_claims(
    *,
    client: ClientState,
    granted: Grant,
    issuer: str,
    jti: str,
    now: int,
    lifetime: int,
    assertion_claims: Mapping[str, Any],
    reserved: Collection[str] = RESERVED_CLAIMS,
) -> bytes:
    """The claims of one access token as JSON (RFC 9068 section 2.2, with `permissions` for gateways).

    `assertion_claims` are the verified assertion's: those that the client's `allowed_custom_claims` name are copied. Reserved names never
    are, whatever the client's row says. Raises `TokenRefused` where all that would be longer than `MAX_CLAIMS_BYTES`, with the code of
    what the caller can make shorter.
    """
    copied = {
        name: assertion_claims[name]
        for name in client.allowed_custom_claims
        if name in assertion_claims and name not in reserved
    }

    def encode(copied: Mapping[str, Any], permissions: Sequence[str]) -> bytes:
        return _encode(client, copied, permissions, granted.audiences, issuer, jti, now, lifetime)

    claims = encode(copied, granted.permissions)
    if len(claims) <= MAX_CLAIMS_BYTES:
        return claims
    if len(encode({}, ())) > MAX_CLAIMS_BYTES:
        raise TokenRefused(INVALID_TARGET, "the token would be too long: name a part of the client's audiences")
    if len(encode(copied, ())) > MAX_CLAIMS_BYTES:
        raise TokenRefused(INVALID_REQUEST, "client_assertion: the claims to copy into the token are too long")
    raise TokenRefused(INVALID_SCOPE, "the token would be too long: name a part of the client's permissions in scope")


def everything_fits(client: ClientState, *, issuer: str) -> bool:
    """Whether a token can hold all that the client holds, if its assertion adds no claims."""
    every = grant(client, audiences=(), scope=None, issuer=issuer)
    # Times have ten digits for the next two centuries.
    claims = _encode(client, {}, every.permissions, every.audiences, issuer, "j" * _JTI_LENGTH, 10**9, 0)
    return len(claims) <= MAX_CLAIMS_BYTES


def _encode(
    client: ClientState,
    copied: Mapping[str, Any],
    permissions: Sequence[str],
    audiences: Sequence[str],
    issuer: str,
    jti: str,
    now: int,
    lifetime: int,
) -> bytes:
    claims = dict(copied)
    claims["iss"] = issuer
    claims["sub"] = claims["client_id"] = client.client_id
    claims["aud"] = audiences
    claims["iat"] = now
    claims["exp"] = now + lifetime
    claims["jti"] = jti
    claims["permissions"] = permissions
    if permissions:
        claims["scope"] = " ".join(permissions)
    return orjson.dumps(claims)


def string_list(value: object) -> Sequence[str] | None:
    """The value if it is a string or a list of strings (RFC 7519 section 4.1.3 for `aud`), as a list; else None."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None
