"""Tokens of other issuers: what makes one an access token for this installation, and what is read of it."""

from dataclasses import replace
from typing import Any

import jwt
import pytest

from keyturn.jose.signing import PrivateKey
from keyturn.tokens import refusal
from keyturn.tokens.foreign import MAX_KEYS, Keys, read_foreign_token, read_keys
from keyturn.tokens.issuers import ClaimMapping, TrustedIssuer
from keyturn.tokens.refusal import TokenRefused
from tests.sample_keys import ALGORITHMS, sample_key
from tests.unit.tokens.worlds import MISSING, NOW, changed, encode

LOGIN = "https://login.example"
KEY = sample_key(number=31)
OTHER = sample_key(number=32)
TRUSTED = TrustedIssuer(LOGIN, frozenset({"orders", "stock"}), frozenset({"RS256", "ES256"}))


def jwks(*keys: PrivateKey, **more: Any) -> dict[str, Any]:
    return {"keys": [{**key.public.jwk, **more} for key in keys]}


def keys(*listed: PrivateKey, issuer: TrustedIssuer = TRUSTED) -> Keys:
    return read_keys(jwks(*listed), issuer)


def token(key: PrivateKey = KEY, *, header: dict[str, Any] | None = None, **claims: Any) -> bytes:
    base = {"iss": LOGIN, "sub": "ann", "aud": ["orders"], "iat": NOW - 60, "exp": NOW + 600}
    heading = {"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt"}
    return encode(key, changed(heading, header or {}), changed(base, claims))


def read(raw: bytes, issuer: TrustedIssuer = TRUSTED, *, known: Keys | None = None, now: float = NOW) -> Any:
    return read_foreign_token(raw, issuer=issuer, keys=known or keys(KEY), now=now, clock_skew=10)


def test_a_token_of_a_trusted_issuer_names_its_user_and_by_default_nothing_else() -> None:
    found = read(token(groups=["admins"], permissions=["orders:read"], scope="orders:read", roles=["x"]))
    assert (found.user_id, found.groups, found.permissions, found.user_properties) == ("ann", None, None, None)
    assert (found.audiences, found.expires_at) == (("orders",), NOW + 600)


def test_the_mapping_says_which_claims_count() -> None:
    mapping = ClaimMapping(("email",), ("realm_access", "roles"), ("scope",), ("https://x.example/profile",))
    named: dict[str, Any] = {"https://x.example/profile": {"plan": "gold"}}
    raw = token(KEY, email="ann@x.example", realm_access={"roles": ["admins"]}, scope="a b", **named)
    found = read(raw, replace(TRUSTED, claims=mapping))
    assert (found.user_id, found.groups, found.permissions) == ("ann@x.example", ["admins"], "a b")
    assert found.user_properties == {"plan": "gold"}
    assert read(token(email="e", realm_access="x"), replace(TRUSTED, claims=mapping)).groups is None


def test_of_the_audiences_only_those_count_that_the_issuer_is_trusted_for() -> None:
    assert read(token(aud=["elsewhere", "stock"])).audiences == ("stock",)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_verifies_where_it_is_allowed_and_nowhere_else(algorithm: str) -> None:
    key = sample_key(algorithm, number=33)
    issuer = replace(TRUSTED, algorithms=frozenset({algorithm}))
    assert read(token(key), issuer, known=keys(key, issuer=issuer)).user_id == "ann"
    others = replace(TRUSTED, algorithms=frozenset(ALGORITHMS) - {algorithm})
    with pytest.raises(TokenRefused):
        read(token(key), others, known=keys(key, KEY, issuer=others))


def test_a_key_that_names_no_algorithm_serves_each_allowed_one() -> None:
    issuer = replace(TRUSTED, algorithms=frozenset({"RS256", "PS256"}))
    document = jwks(KEY)
    del document["keys"][0]["alg"]
    known = read_keys(document, issuer)
    for algorithm in ("RS256", "PS256"):
        raw = jwt.encode(
            {"iss": LOGIN, "sub": "ann", "aud": "orders", "exp": NOW + 60},
            KEY.to_pem().decode(),
            algorithm,
            {"kid": KEY.kid, "typ": "at+jwt"},
        )
        assert read(raw.encode(), issuer, known=known).user_id == "ann"


TAKEN_FOR_ACCESS = replace(TRUSTED, token_types=frozenset({"at+jwt", "jwt"}))


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        pytest.param({}, {}, id="RFC 9068"),
        pytest.param({}, {"typ": "application/at+jwt"}, id="the whole media type"),
        pytest.param({}, {"typ": "AT+JWT"}, id="in other letters"),
        pytest.param({}, {"typ": "JWT"}, id="a plain JWT"),
        pytest.param({"typ": "Bearer", "azp": "shop", "sid": "1"}, {"typ": "JWT"}, id="as Keycloak writes them"),
        pytest.param({"token_use": "access"}, {"typ": "JWT"}, id="as Cognito writes them"),
        pytest.param({"nbf": NOW + 5, "iat": NOW + 5}, {}, id="within the clock skew"),
        pytest.param({"iat": MISSING}, {}, id="without the time of issue"),
        pytest.param({"aud": "orders"}, {}, id="one audience as a text"),
    ],
)
def test_an_access_token_is_taken_in_each_of_its_forms(claims: dict[str, Any], header: dict[str, Any]) -> None:
    assert read(token(header=header, **claims), TAKEN_FOR_ACCESS).user_id == "ann"


@pytest.mark.parametrize(
    ("claims", "header", "reason"),
    [
        pytest.param({}, {"typ": "JWT"}, refusal.WRONG_TYPE, id="a plain JWT, unless the installation says so"),
        pytest.param({}, {"typ": MISSING}, refusal.WRONG_TYPE, id="no type"),
        pytest.param({}, {"typ": "logout+jwt"}, refusal.WRONG_TYPE, id="a logout token"),
        pytest.param({}, {"kid": "unknown"}, refusal.UNKNOWN_KEY, id="an unknown key"),
        pytest.param({}, {"alg": "PS256"}, refusal.WRONG_ALGORITHM, id="another algorithm than the key's"),
        pytest.param({}, {"alg": "none"}, refusal.MALFORMED, id="no signature"),
        pytest.param({}, {"alg": "HS256"}, refusal.MALFORMED, id="a symmetric algorithm"),
        pytest.param({}, {"jwk": dict(OTHER.public.jwk)}, refusal.MALFORMED, id="a key of its own"),
        pytest.param({"iss": "https://login.example/"}, {}, refusal.WRONG_ISSUER, id="an issuer almost alike"),
        pytest.param({"iss": MISSING}, {}, refusal.WRONG_ISSUER, id="no issuer"),
        pytest.param({"aud": ["elsewhere"]}, {}, refusal.WRONG_AUDIENCE, id="another audience"),
        pytest.param({"aud": MISSING}, {}, refusal.WRONG_AUDIENCE, id="no audience"),
        pytest.param({"aud": [1]}, {}, refusal.WRONG_AUDIENCE, id="an audience that is no text"),
        pytest.param({"exp": MISSING}, {}, refusal.INVALID_CLAIM, id="no end"),
        pytest.param({"exp": "soon"}, {}, refusal.INVALID_CLAIM, id="an end that is no time"),
        pytest.param({"nbf": "soon"}, {}, refusal.INVALID_CLAIM, id="a beginning that is no time"),
        pytest.param({"exp": NOW}, {}, refusal.EXPIRED, id="expired to the second"),
        pytest.param({"nbf": NOW + 11}, {}, refusal.NOT_YET_VALID, id="not valid yet"),
        pytest.param({"iat": NOW + 11}, {}, refusal.NOT_YET_VALID, id="issued in the future"),
        pytest.param({"sub": MISSING}, {}, refusal.INVALID_CLAIM, id="no user"),
        pytest.param({"sub": ""}, {}, refusal.INVALID_CLAIM, id="an empty user"),
    ],
)
def test_what_is_no_access_token_for_here_is_refused(
    claims: dict[str, Any], header: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TokenRefused) as refused:
        read(token(header=header, **claims))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"nonce": "n"}, id="a nonce"),
        pytest.param({"at_hash": "h"}, id="the hash of an access token"),
        pytest.param({"c_hash": "h"}, id="the hash of a code"),
        pytest.param({"events": {}}, id="events, as in logout tokens"),
        pytest.param({"typ": "ID"}, id="Keycloak's ID tokens"),
        pytest.param({"typ": "Refresh"}, id="Keycloak's refresh tokens"),
        pytest.param({"token_use": "id"}, id="Cognito's ID tokens"),
    ],
)
@pytest.mark.parametrize("typ", ["JWT", "at+jwt"])
def test_an_id_token_is_refused_whatever_type_it_claims(claims: dict[str, Any], typ: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        read(token(header={"typ": typ}, **claims), TAKEN_FOR_ACCESS)
    assert refused.value.reason == refusal.WRONG_TYPE


def test_a_signature_by_another_key_under_the_same_name_is_refused() -> None:
    with pytest.raises(TokenRefused) as refused:
        read(token(OTHER, header={"kid": KEY.kid}))
    assert refused.value.reason == refusal.BAD_SIGNATURE


def test_without_a_kid_the_only_key_is_meant_and_of_several_none() -> None:
    raw = token(header={"kid": MISSING})
    assert read(raw).user_id == "ann"
    with pytest.raises(TokenRefused):
        read(raw, known=keys(KEY, OTHER))


@pytest.mark.parametrize(
    "unusable",
    [
        pytest.param({"use": "enc"}, id="for encryption"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, id="symmetric"),
        pytest.param({"d": "AQAB"}, id="private"),
        pytest.param({"alg": "RS512"}, id="another algorithm"),
        pytest.param({"n": "AQAB"}, id="weak"),
        pytest.param({"kty": "EC", "crv": "P-521"}, id="a curve of another size"),
    ],
)
def test_keys_that_cannot_be_used_are_passed_over_and_the_rest_counts(unusable: dict[str, Any]) -> None:
    document = {"keys": ["junk", {**OTHER.public.jwk, **unusable}, *jwks(KEY, x5c=["MIIB"], x5t="t")["keys"]]}
    assert set(read_keys(document, TRUSTED)) == {KEY.kid}


def test_of_a_jwk_set_without_end_only_so_many_keys_are_read() -> None:
    many = {"keys": [*[{"kty": "unknown"}] * MAX_KEYS, *jwks(KEY)["keys"]]}
    assert read_keys(many, TRUSTED) == {}


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}], ids=str)
def test_what_is_no_jwk_set_is_an_error(document: Any) -> None:
    with pytest.raises(ValueError, match="no JWK Set"):
        read_keys(document, TRUSTED)
