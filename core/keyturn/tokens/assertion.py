"""Client assertions (RFC 7523): the checks from the token's bytes to a proven client, all but the single use of its `jti`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from keyturn.clients.state import PRIVATE_KEY_JWT, ClientState
from keyturn.jose.jws import CompactJws, MalformedToken, parse_claims, parse_compact
from keyturn.jose.keys import PublicKey
from keyturn.records import UsedJti
from keyturn.tokens import refusal
from keyturn.tokens.claims import string_list
from keyturn.tokens.refusal import TokenRefused

MAX_LIFETIME: Final = 3600
MAX_JTI_BYTES: Final = 256
# Remembered beyond its end, so that no replica with a slower clock can accept it once more.
_REMEMBER_LONGER: Final = 60
_MAX_ID: Final = 512
# Beyond what any clock says; keeps comparisons with huge numbers out.
_LATEST: Final = 2**53


class KnownClient(Protocol):
    """A client as the snapshot holds it, with its keys prepared."""

    @property
    def state(self) -> ClientState: ...

    def candidates(self, kid: str | None, now: float) -> Sequence[PublicKey]:
        """The keys that count now and may have signed with this `kid`; see `keyturn.snapshot.Client`."""


class Clients(Protocol):
    def client(self, client_id: str) -> KnownClient | None: ...


@dataclass(frozen=True, slots=True)
class AssertionPolicy:
    """What the installation asks of assertions. `audiences`: values of `aud`, one of which must stand alone. Seconds."""

    audiences: frozenset[str]
    clock_skew: float


@dataclass(frozen=True, slots=True)
class VerifiedAssertion:
    """An assertion whose signature and claims hold; `used` must be consumed before it counts."""

    client: ClientState
    kid: str
    claims: Mapping[str, Any]
    requested_audiences: tuple[str, ...]
    used: UsedJti


def token_hash(client_id: str, jti: str) -> bytes:
    """SHA-256 over client id and jti. The length in front keeps ("a", "bc") and ("ab", "c") apart."""
    name = client_id.encode()
    return hashlib.sha256(b"%d:%b%b" % (len(name), name, jti.encode())).digest()


@dataclass(frozen=True, slots=True)
class ReadAssertion:
    """An assertion taken apart; nothing in it is proven."""

    jws: CompactJws
    claims: Mapping[str, Any]


def read_assertion(assertion: bytes, *, max_bytes: int = 8192) -> ReadAssertion:
    """Takes an assertion apart. Raises `TokenRefused`."""
    try:
        jws = parse_compact(assertion, max_bytes=max_bytes)
        return ReadAssertion(jws, parse_claims(jws.payload))
    except MalformedToken as error:
        raise TokenRefused(refusal.MALFORMED, f"client_assertion: {error.description}") from error


def verify_assertion(
    assertion: bytes | ReadAssertion,
    *,
    clients: Clients,
    policy: AssertionPolicy,
    store_born_at: float,
    now: float,
    client_id: str | None = None,
) -> VerifiedAssertion:
    """Checks a client assertion by RFC 7523 section 3 and draft-ietf-oauth-rfc7523bis (audience: the issuer alone).

    `client_id` is the request's parameter, if any. `store_born_at`: assertions from before the store's birth may have been used already
    without a trace. Raises `TokenRefused`. The client's key and algorithm come from its registration, never from the token.
    """
    read = assertion if isinstance(assertion, ReadAssertion) else read_assertion(assertion)
    jws, claims = read.jws, read.claims
    subject = _text(claims, "sub", _MAX_ID)
    if _text(claims, "iss", _MAX_ID) != subject:
        raise TokenRefused(refusal.WRONG_ISSUER, "client_assertion: iss and sub must both be the client id")
    if client_id is not None and client_id != subject:
        raise TokenRefused(refusal.WRONG_SUBJECT, "client_assertion: sub and the client_id parameter differ")
    # What an outsider could learn about clients and keys ends here: one description for all of it.
    known = clients.client(subject)
    if known is None:
        raise _not_proven(refusal.UNKNOWN_CLIENT)
    client = known.state
    if client.auth_method != PRIVATE_KEY_JWT:
        raise _not_proven(refusal.WRONG_METHOD)
    kid = jws.header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise TokenRefused(refusal.MALFORMED, "client_assertion: kid must be a string")
    candidates = known.candidates(kid, now)
    if not candidates:
        raise _not_proven(refusal.UNKNOWN_KEY)
    fitting = [one for one in candidates if one.algorithm == jws.header.get("alg")]
    if not fitting:
        raise _not_proven(refusal.WRONG_ALGORITHM)
    key = next((one for one in fitting if one.verify(jws.signing_input, jws.signature)), None)
    if key is None:
        raise _not_proven(refusal.BAD_SIGNATURE)
    check_client(client, now)
    typ = jws.header.get("typ")
    if typ is not None and (
        not isinstance(typ, str) or typ.lower().removeprefix("application/") not in _ASSERTION_TYPES
    ):
        raise TokenRefused(refusal.WRONG_TYPE, "client_assertion: typ must be JWT, client-authentication+jwt or absent")
    expires_at = _check_times(claims, policy, store_born_at, now)
    audience = string_list(claims.get("aud"))
    if audience is None:
        raise _missing_or_invalid(claims, "aud")
    if len(audience) != 1 or audience[0] not in policy.audiences:
        raise TokenRefused(refusal.WRONG_AUDIENCE, "client_assertion: aud must be the issuer as the only value")
    jti = _text(claims, "jti", MAX_JTI_BYTES)
    requested = string_list(claims.get("requested_audiences", []))
    if requested is None:
        raise TokenRefused(refusal.INVALID_CLAIM, "client_assertion: requested_audiences must be a list of strings")
    used = UsedJti(token_hash(subject, jti), expires_at + policy.clock_skew + _REMEMBER_LONGER)
    return VerifiedAssertion(client, key.kid, claims, tuple(requested), used)


# RFC 7523 leaves `typ` open; draft-ietf-oauth-rfc7523bis names the second.
_ASSERTION_TYPES: Final = frozenset({"jwt", "client-authentication+jwt"})


def check_client(client: ClientState, now: float) -> None:
    """Raises `TokenRefused` for a client that is suspended or past its end. Time counts at the request."""
    if client.suspended:
        raise TokenRefused(refusal.CLIENT_SUSPENDED, "the client is suspended")
    if client.expires_at is not None and now >= client.expires_at:
        raise TokenRefused(refusal.CLIENT_EXPIRED, "the client has expired")


def _check_times(claims: Mapping[str, Any], policy: AssertionPolicy, born_at: float, now: float) -> float:
    """RFC 7519 sections 4.1.4 to 4.1.6 with the clock skew; returns `exp`."""
    skew = policy.clock_skew
    expires_at = numeric_date(claims, "exp")
    if expires_at is None:
        raise TokenRefused(refusal.MISSING_CLAIM, "client_assertion: exp is missing")
    if now >= expires_at + skew:
        raise TokenRefused(refusal.EXPIRED, "client_assertion: it has expired")
    if expires_at > now + MAX_LIFETIME + skew:
        raise TokenRefused(refusal.TOO_LONG_LIVED, "client_assertion: exp lies more than an hour ahead")
    not_before = numeric_date(claims, "nbf")
    if not_before is not None and not_before > now + skew:
        raise TokenRefused(refusal.NOT_YET_VALID, "client_assertion: nbf lies in the future")
    issued_at = numeric_date(claims, "iat")
    if issued_at is None:
        # Without it nobody can tell whether the lost store knew this jti; after an hour none from then can live.
        if now < born_at + MAX_LIFETIME + 2 * skew:
            raise TokenRefused(
                refusal.BEFORE_STORE, "client_assertion: iat is required for now, sign a new one with it"
            )
    elif issued_at > now + skew:
        raise TokenRefused(refusal.NOT_YET_VALID, "client_assertion: iat lies in the future")
    elif issued_at < born_at:
        raise TokenRefused(refusal.BEFORE_STORE, "client_assertion: issued too long ago, sign a new one")
    return expires_at


def numeric_date(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2) in seconds, or None where it is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LATEST:
        raise TokenRefused(refusal.INVALID_CLAIM, f"{name} must be a number of seconds")
    return float(value)


def _text(claims: Mapping[str, Any], name: str, limit: int) -> str:
    value = claims.get(name)
    if isinstance(value, str) and value and len(value) <= limit:
        try:
            if len(value.encode()) <= limit:
                return value
        except UnicodeEncodeError:  # a lone surrogate, written as an escape
            pass
    raise _missing_or_invalid(claims, name, f" of 1 to {limit} bytes")


def _missing_or_invalid(claims: Mapping[str, Any], name: str, form: str = "") -> TokenRefused:
    if name not in claims:
        return TokenRefused(refusal.MISSING_CLAIM, f"client_assertion: {name} is missing")
    return TokenRefused(refusal.INVALID_CLAIM, f"client_assertion: {name} must be a string{form}")


def _not_proven(reason: str) -> TokenRefused:
    return TokenRefused(reason, "client_assertion: not signed by a key registered for this client", cause=reason)
