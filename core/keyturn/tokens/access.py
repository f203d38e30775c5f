"""Reading our own access tokens: first what can never change about one, then what the current state of the world leaves of it."""

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from keyturn.clients.state import ClientState
from keyturn.jose.jws import MAX_TOKEN_BYTES, MalformedToken, parse_claims, parse_compact
from keyturn.jose.keys import PublicKey
from keyturn.tokens import refusal
from keyturn.tokens.assertion import check_client, numeric_date, token_hash
from keyturn.tokens.claims import held_audiences, string_list
from keyturn.tokens.refusal import TokenRefused

# RFC 9068 section 2.1; plain JWT is the reference's. Our keys sign nothing but access tokens, so both say the same.
_TYPES: Final = frozenset({"at+jwt", "jwt"})


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token whose signature held under the key `kid`, with its claims: facts that no later change can alter. Times in seconds."""

    kid: str
    key_thumbprint: str
    client_id: str
    issued_at: float
    expires_at: float
    permissions: tuple[str, ...]
    audiences: tuple[str, ...]
    payload: bytes = field(repr=False)
    token_hash: str = field(repr=False)

    def claims(self) -> dict[str, Any]:
        """All claims, read anew: thousands of tokens are kept, and seldom is one of them asked for this."""
        return parse_claims(self.payload)


@dataclass(frozen=True, slots=True)
class Effective:
    """What a token is worth under one state of the world, and until when that holds if nothing changes."""

    permissions: tuple[str, ...]
    audiences: tuple[str, ...]
    valid_until: float


class World(Protocol):
    """The part of the current state that decides about tokens."""

    def verification_key(self, kid: str, now: float) -> PublicKey | None: ...

    def key_removed_at(self, kid: str) -> float | None: ...

    def key_imported(self, kid: str) -> bool: ...

    def client_state(self, client_id: str) -> ClientState | None: ...

    def is_revoked(self, token_hash: str) -> bool: ...

    @property
    def revoke_before(self) -> float | None: ...


def read_access_token(token: bytes, *, world: World, issuer: str, now: float) -> AccessToken:
    """Checks signature and form of an access token (RFC 9068 section 4). Raises `TokenRefused`.

    The key is the signing key of the token's `kid`; algorithm and key are pinned together.
    """
    try:
        jws = parse_compact(token, max_bytes=MAX_TOKEN_BYTES)
    except MalformedToken as error:
        raise TokenRefused(refusal.MALFORMED, "the access token is malformed", cause=error.description) from error
    header = jws.header
    kid = header.get("kid")
    key = world.verification_key(kid, now) if isinstance(kid, str) else None
    if key is None:
        raise TokenRefused(refusal.UNKNOWN_KEY, "the access token was not signed by a key of this issuer")
    if header.get("alg") != key.algorithm:
        raise TokenRefused(refusal.WRONG_ALGORITHM, "the access token is not signed as its key prescribes")
    typ = header.get("typ")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in _TYPES:
        raise TokenRefused(refusal.WRONG_TYPE, "this is not an access token")
    if not key.verify(jws.signing_input, jws.signature):
        raise TokenRefused(refusal.BAD_SIGNATURE, "the access token's signature is wrong")
    try:
        claims = parse_claims(jws.payload)
    except MalformedToken as error:
        raise TokenRefused(refusal.MALFORMED, "the access token is malformed", cause=error.description) from error
    if claims.get("iss") != issuer:
        raise TokenRefused(refusal.WRONG_ISSUER, "the access token is from another issuer")
    client_id = claims.get("client_id", claims.get("sub"))
    jti = claims.get("jti")
    issued_at, expires_at = numeric_date(claims, "iat"), numeric_date(claims, "exp")
    audiences, permissions = string_list(claims.get("aud")), string_list(claims.get("permissions", []))
    if (
        not isinstance(client_id, str)
        or claims.get("sub") != client_id
        or not isinstance(jti, str)
        or issued_at is None
        or expires_at is None
        or audiences is None
        or permissions is None
    ):
        raise TokenRefused(refusal.INVALID_CLAIM, "the access token lacks a claim or has one of a wrong form")
    return AccessToken(
        kid=key.kid,
        key_thumbprint=key.thumbprint,
        client_id=client_id,
        issued_at=issued_at,
        expires_at=expires_at,
        permissions=tuple(permissions),
        audiences=tuple(audiences),
        payload=jws.payload,
        token_hash=token_hash(client_id, jti).hex(),
    )


def effective(
    token: AccessToken, *, world: World, issuer: str, accepted: frozenset[str], now: float, clock_skew: float
) -> Effective:
    """What the token is worth now. `accepted`: audiences that this installation answers for; empty means any.

    Raises `TokenRefused`. Permissions are those in the token that the client still has, audiences likewise.
    """
    if now >= token.expires_at:
        raise TokenRefused(refusal.EXPIRED, "the access token has expired")
    if token.issued_at > now + clock_skew:
        raise TokenRefused(refusal.NOT_YET_VALID, "the access token was issued in the future")
    key = world.verification_key(token.kid, now)
    if key is None or key.thumbprint != token.key_thumbprint:
        raise TokenRefused(refusal.UNKNOWN_KEY, "the key of the access token has been withdrawn")
    client = world.client_state(token.client_id)
    if client is None:
        raise TokenRefused(refusal.UNKNOWN_CLIENT, "the client of the access token no longer exists")
    check_client(client, now)
    issued_at = token.issued_at
    if (
        # A client made anew revives no token of its namesake; those of an imported key are older than every object here.
        (issued_at < client.created_at and not world.key_imported(token.kid))
        or _before(issued_at, client.revoke_before)
        or _before(issued_at, world.revoke_before)
        or world.is_revoked(token.token_hash)
    ):
        raise TokenRefused(refusal.REVOKED, "the access token has been revoked")
    held = held_audiences(client, issuer)
    audiences = tuple(audience for audience in token.audiences if audience in held)
    if not audiences or (accepted and accepted.isdisjoint(audiences)):
        raise TokenRefused(refusal.WRONG_AUDIENCE, "the access token is not for this audience")
    until = [token.expires_at]
    until += [end for end in (client.expires_at, world.key_removed_at(token.kid)) if end is not None]
    # The usual case shares the tuples that are there.
    permissions = token.permissions
    if permissions != client.permissions:
        still = frozenset(client.permissions)
        permissions = tuple(permission for permission in permissions if permission in still)
    return Effective(
        permissions=client.permissions if permissions == client.permissions else permissions,
        audiences=client.audiences if audiences == client.audiences else audiences,
        valid_until=min(until),
    )


def _before(issued_at: float, moment: float | None) -> bool:
    return moment is not None and issued_at < moment
