"""Access tokens that were verified before: what cannot change is remembered, everything else is held against the snapshot of now."""

import base64
import hashlib
import json
import math
from typing import Any, Final

import orjson

from keyturn.expressions.subject import Subject
from keyturn.snapshot import Snapshot
from keyturn.tokens.access import AccessToken, Effective, effective, read_access_token
from keyturn.tokens.refusal import MALFORMED, TokenRefused
from keyturn_api.cache import GenerationCache
from keyturn_api.http import JSON, NO_STORE, Response, response

_NEVER: Final = -1


class VerifiedToken:
    """A token with what the current snapshot makes of it. Derived anew whenever the snapshot has changed or a time has come."""

    __slots__ = ("_info", "_introspection", "effective", "generation", "subject", "token", "valid_until")

    def __init__(self, token: AccessToken) -> None:
        self.token = token
        self.generation = _NEVER
        self.valid_until = 0.0
        self.effective: Effective | None = None
        self.subject: Subject | None = None
        self._info: Response | None = None
        self._introspection: Response | None = None

    @property
    def audiences(self) -> tuple[str, ...]:
        return () if self.effective is None else self.effective.audiences

    def derive(self, worth: Effective, subject: Subject, generation: int) -> None:
        if self.effective is None or (self.effective.permissions, self.effective.audiences) != (
            worth.permissions,
            worth.audiences,
        ):
            self._info = self._introspection = None
        self.effective = worth
        self.subject = subject
        self.valid_until = worth.valid_until
        self.generation = generation

    def info(self) -> Response:
        """The answer of `/tokeninfo`: the claims, with what is still the client's."""
        if self._info is None:
            self._info = response(200, (JSON, *NO_STORE), orjson.dumps(self._claims()))
        return self._info

    def introspection(self) -> Response:
        """The answer of introspection (RFC 7662 section 2.2): the same claims, and that they count."""
        if self._introspection is None:
            claims = self._claims() | {"active": True, "client_id": self.token.client_id, "token_type": "Bearer"}
            self._introspection = response(200, (JSON, *NO_STORE), orjson.dumps(claims))
        return self._introspection

    def _claims(self) -> dict[str, Any]:
        assert self.effective is not None
        claims = self.token.claims()
        claims["aud"] = self.effective.audiences
        claims["permissions"] = self.effective.permissions
        claims.pop("scope", None)
        if self.effective.permissions:
            claims["scope"] = " ".join(self.effective.permissions)
        return claims


class OwnTokenRefused(TokenRefused):
    """A token whose signature held, and that is worth nothing now: so it is known whose it is."""

    def __init__(self, refused: TokenRefused, token: AccessToken) -> None:
        super().__init__(refused.reason, refused.description, cause=refused.cause)
        self.token = token


class AccessTokens:
    """Verifies Bearer credentials against a snapshot. Each process has its own cache of at most `capacity` tokens.

    The cache is keyed by a hash of the whole credential and holds successes only, so nothing in it has to be taken back.
    """

    def __init__(
        self, snapshot: Snapshot, *, issuer: str, accepted: frozenset[str], clock_skew: float, capacity: int
    ) -> None:
        self._snapshot = snapshot
        self._issuer = issuer
        self._accepted = accepted
        self._clock_skew = clock_skew
        self._cache: GenerationCache[bytes, VerifiedToken] = GenerationCache(capacity)
        # Tokens of one client, and of clients alike, share it.
        self._subjects: GenerationCache[tuple[str, ...], Subject] = GenerationCache(2000)

    def verify(self, authorization: bytes, now: float) -> VerifiedToken:
        """The token of an Authorization header (RFC 6750 section 2.1). Raises `TokenRefused`, and where its signature held
        `OwnTokenRefused`."""
        key = hashlib.sha256(authorization).digest()
        verified = self._cache.get(key)
        if verified is None:
            verified = VerifiedToken(
                read_access_token(bearer(authorization), world=self._snapshot, issuer=self._issuer, now=now)
            )
            self._refresh(verified, now)
            self._cache.put(key, verified)
        elif verified.generation != self._snapshot.generation or now >= verified.valid_until:
            self._refresh(verified, now)
        return verified

    def is_own(self, authorization: bytes) -> bool:
        """Whether a refused credential calls itself ours, by its issuer or by a key of ours: then nobody else is asked about it."""
        kid, issuer = unverified(authorization)
        return issuer == self._issuer or (kid is not None and self._snapshot.knows_kid(kid))

    def verify_token(self, token: bytes, now: float) -> VerifiedToken:
        """The same for a token alone. Raises `TokenRefused`."""
        return self.verify(b"Bearer " + token, now)

    def read(self, token: bytes, now: float) -> AccessToken:
        """A token of this issuer, whatever it is worth now. Raises `TokenRefused`."""
        return read_access_token(token, world=self._snapshot, issuer=self._issuer, now=now)

    def _refresh(self, verified: VerifiedToken, now: float) -> None:
        verified.generation = _NEVER
        try:
            worth = effective(
                verified.token,
                world=self._snapshot,
                issuer=self._issuer,
                accepted=self._accepted,
                now=now,
                clock_skew=self._clock_skew,
            )
        except TokenRefused as refused:
            raise OwnTokenRefused(refused, verified.token) from None
        subject = self._subjects.get(worth.permissions)
        if subject is None:
            subject = Subject(permissions=frozenset(worth.permissions))
            self._subjects.put(worth.permissions, subject)
        verified.derive(worth, subject, self._snapshot.generation)


def unverified(authorization: bytes) -> tuple[str | None, str | None]:
    """`kid` and `iss` as a Bearer token states them; None where it is no JWT, or has none. Only to know who is to judge it."""
    parts = authorization.partition(b" ")[2].strip(b" ").split(b".")
    if len(parts) != 3:
        return None, None
    return _member(parts[0], "kid"), _member(parts[1], "iss")


def unverified_expiry(authorization: bytes) -> float:
    """`exp` as a Bearer token states it, for the one use of remembering it no longer; infinite where it is no JWT, or has none."""
    parts = authorization.partition(b" ")[2].strip(b" ").split(b".")
    stated = _object(parts[1]).get("exp") if len(parts) == 3 else None
    # As it stands: an integer may be larger than any float, and compares with one all the same.
    return stated if isinstance(stated, int | float) else math.inf


def _member(part: bytes, name: str) -> str | None:
    found = _object(part).get(name)
    return found if isinstance(found, str) else None


def _object(part: bytes) -> dict[str, Any]:
    # Read as leniently as anybody might: what one reader takes for ours is not to be judged elsewhere.
    try:
        value = json.loads(base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def bearer(authorization: bytes) -> bytes:
    """The token of `Bearer <token>`; the scheme in any case (RFC 9110 section 11.1). Raises `TokenRefused`."""
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip(b" "):
        raise TokenRefused(MALFORMED, "the Authorization header must be Bearer and an access token")
    return token.strip(b" ")
