"""Access tokens of other issuers (RFC 7519, RFC 9068), verified by the keys that their issuer publishes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from keyturn.jose.jws import MalformedToken, parse_claims, parse_compact
from keyturn.jose.keys import KeyRejected, PublicKey, parse_jwk
from keyturn.tokens import refusal
from keyturn.tokens.assertion import numeric_date
from keyturn.tokens.claims import string_list
from keyturn.tokens.issuers import ClaimPath, TrustedIssuer, token_type
from keyturn.tokens.refusal import TokenRefused

# Users' tokens carry groups and roles; the limit on header bytes lets no longer one in.
MAX_TOKEN_BYTES: Final = 16 * 1024
MAX_KEYS: Final = 100
# Members of a JWK (RFC 7517) that say what the key is. Certificates and thumbprints beside them prove nothing and are left out.
_KEY_MEMBERS: Final = ("kty", "use", "key_ops", "alg", "kid", "n", "e", "crv", "x", "y")
# OpenID Connect Core sections 2 and 3.3.2.11, Back-Channel Logout section 2.4: marks of ID tokens and logout tokens, which say
# that somebody logged in somewhere, and permit nothing here.
_NO_ACCESS_TOKEN: Final = ("nonce", "at_hash", "c_hash", "s_hash", "events")
# What widespread issuers write into claims of their own to tell the kinds apart; only these mean an access token.
_KIND_CLAIMS: Final = {"typ": ("bearer", "at+jwt", "jwt"), "token_use": ("access",)}

Keys = Mapping[str, tuple[PublicKey, ...]]


@dataclass(frozen=True, slots=True)
class ForeignToken:
    """A verified token of another issuer, with the claims that the issuer's mapping names. Times in seconds."""

    issuer: str
    kid: str
    audiences: tuple[str, ...]
    not_before: float
    expires_at: float
    user_id: str
    groups: object = field(default=None, repr=False)
    permissions: object = field(default=None, repr=False)
    user_properties: object = field(default=None, repr=False)


def read_keys(document: Any, issuer: TrustedIssuer) -> dict[str, tuple[PublicKey, ...]]:
    """The usable keys of a JWK Set (RFC 7517 section 5) by `kid`, once for each allowed algorithm that fits.

    Those that this verifier cannot use are passed over, as the RFC tells; private or symmetric ones and such for encryption too. Raises
    ValueError where the document is no JWK Set.
    """
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise ValueError("no JWK Set")
    keys: dict[str, list[PublicKey]] = {}
    for value in listed[:MAX_KEYS]:
        if not isinstance(value, Mapping) or "d" in value or "k" in value:
            continue
        members = {name: value[name] for name in _KEY_MEMBERS if name in value}
        named = members.get("alg")
        for algorithm in sorted(issuer.algorithms):
            if named not in (None, algorithm):
                continue
            try:
                key = parse_jwk({**members, "alg": algorithm}, field="keys")
            except KeyRejected:
                continue
            keys.setdefault(key.kid, []).append(key)
    return {kid: tuple(of_kid) for kid, of_kid in keys.items()}


def read_foreign_token(
    token: bytes, *, issuer: TrustedIssuer, keys: Keys, now: float, clock_skew: float
) -> ForeignToken:
    """Checks signature, kind, issuer, audience and times. Raises `TokenRefused`; UNKNOWN_KEY where fresher keys may help."""
    try:
        jws = parse_compact(token, max_bytes=MAX_TOKEN_BYTES)
    except MalformedToken as error:
        raise TokenRefused(refusal.MALFORMED, "the access token is malformed", cause=error.description) from error
    header = jws.header
    typ = header.get("typ")
    if not isinstance(typ, str) or token_type(typ) not in issuer.token_types:
        raise TokenRefused(refusal.WRONG_TYPE, "this is not an access token")
    key = _key(header, keys)
    if not key.verify(jws.signing_input, jws.signature):
        raise TokenRefused(refusal.BAD_SIGNATURE, "the access token's signature is wrong")
    try:
        claims = parse_claims(jws.payload)
    except MalformedToken as error:
        raise TokenRefused(refusal.MALFORMED, "the access token is malformed", cause=error.description) from error
    if claims.get("iss") != issuer.issuer:
        raise TokenRefused(refusal.WRONG_ISSUER, "the access token is from another issuer")
    _check_kind(claims)
    audiences = string_list(claims.get("aud"))
    if not audiences or issuer.audiences.isdisjoint(audiences):
        raise TokenRefused(refusal.WRONG_AUDIENCE, "the access token is not for this audience")
    expires_at, not_before = numeric_date(claims, "exp"), numeric_date(claims, "nbf")
    issued_at = numeric_date(claims, "iat")
    if expires_at is None or (not_before is None and "nbf" in claims) or (issued_at is None and "iat" in claims):
        raise TokenRefused(refusal.INVALID_CLAIM, "the access token lacks a claim or has one of a wrong form")
    since = max(not_before or 0.0, issued_at or 0.0) - clock_skew
    if now >= expires_at:
        raise TokenRefused(refusal.EXPIRED, "the access token has expired")
    if now < since:
        raise TokenRefused(refusal.NOT_YET_VALID, "the access token is not valid yet")
    mapping = issuer.claims
    user_id = _at(claims, mapping.user_id)
    if not isinstance(user_id, str) or not user_id:
        raise TokenRefused(refusal.INVALID_CLAIM, "the access token names no user")
    return ForeignToken(
        issuer=issuer.issuer,
        kid=key.kid,
        # Those that the issuer is trusted for: what else it writes is for others.
        audiences=tuple(audience for audience in audiences if audience in issuer.audiences),
        not_before=since,
        expires_at=expires_at,
        user_id=user_id,
        groups=_at(claims, mapping.groups),
        permissions=_at(claims, mapping.permissions),
        user_properties=_at(claims, mapping.user_properties),
    )


def _key(header: Mapping[str, Any], keys: Keys) -> PublicKey:
    kid = header.get("kid")
    if kid is None and len(keys) == 1:
        (of_kid,) = keys.values()
    else:
        of_kid = keys.get(kid, ()) if isinstance(kid, str) else ()
    if not of_kid:
        raise TokenRefused(refusal.UNKNOWN_KEY, "the access token was not signed by a known key of its issuer")
    for key in of_kid:
        if key.algorithm == header.get("alg"):
            return key
    raise TokenRefused(refusal.WRONG_ALGORITHM, "the access token is not signed as its key prescribes")


def _check_kind(claims: Mapping[str, Any]) -> None:
    for name in _NO_ACCESS_TOKEN:
        if name in claims:
            raise TokenRefused(refusal.WRONG_TYPE, "this is not an access token", cause=f"it has the claim {name}")
    for name, meant in _KIND_CLAIMS.items():
        if name in claims and (not isinstance(claims[name], str) or claims[name].lower() not in meant):
            raise TokenRefused(refusal.WRONG_TYPE, "this is not an access token", cause=f"by its claim {name}")


def _at(claims: Mapping[str, Any], path: ClaimPath | None) -> object:
    if path is None:
        return None
    found: Any = claims
    for step in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(step)
    return found
