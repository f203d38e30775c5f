"""Client assertions: each rule of RFC 7523 and of the store with a case that it refuses."""

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from keyturn.clients.state import CLIENT_SECRET_BASIC
from keyturn.jose import base64url
from keyturn.jose.signing import PrivateKey
from keyturn.snapshot import Client
from keyturn.tokens import refusal
from keyturn.tokens.assertion import AssertionPolicy, VerifiedAssertion, token_hash, verify_assertion
from keyturn.tokens.refusal import TokenRefused
from tests.sample_keys import sample_key
from tests.unit.tokens.worlds import (
    CLIENT,
    CLIENT_ID,
    ISSUER,
    MISSING,
    NOW,
    World,
    changed,
    client_key,
    client_state,
    encode,
)

TOKEN_ENDPOINT = f"{ISSUER}/oauth/token"
POLICY = AssertionPolicy(frozenset({ISSUER}), clock_skew=10)
BORN = NOW - 100_000


def claims(**changes: Any) -> dict[str, Any]:
    base = {"iss": CLIENT_ID, "sub": CLIENT_ID, "aud": ISSUER, "jti": "one", "iat": NOW - 5, "exp": NOW + 60}
    return changed(base, changes)


def verify(
    token: bytes, *, world: World | None = None, policy: AssertionPolicy = POLICY, born_at: float = BORN, **more: Any
) -> VerifiedAssertion:
    return verify_assertion(token, clients=world or World(), policy=policy, store_born_at=born_at, now=NOW, **more)


def signed(key: PrivateKey = CLIENT, header: dict[str, Any] | None = None, **changes: Any) -> bytes:
    return encode(key, changed({"alg": key.algorithm, "kid": key.kid}, header or {}), claims(**changes))


def refused(token: bytes, **more: Any) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        verify(token, **more)
    return caught.value


def test_a_right_assertion_proves_its_client_and_names_the_jti_to_consume() -> None:
    verified = verify(signed(requested_audiences=["orders"]))
    assert verified.client.client_id == CLIENT_ID
    assert verified.kid == CLIENT.kid
    assert verified.requested_audiences == ("orders",)
    assert verified.used.key == token_hash(CLIENT_ID, "one")
    assert verified.used.forget_at == NOW + 60 + 10 + 60


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_an_assertion_of_an_independent_library_counts_for_every_algorithm(algorithm: str) -> None:
    key = sample_key(algorithm, 3)
    world = World()
    world.change_client(keys=(client_key(key),))
    token = jwt.encode(claims(), key.to_pem().decode(), algorithm, {"kid": key.kid})
    assert verify(token.encode(), world=world).kid == key.kid


@pytest.mark.parametrize(
    ("header", "changes"),
    [
        pytest.param({"typ": MISSING}, {}, id="typ absent"),
        pytest.param({"typ": "JWT"}, {}, id="typ JWT"),
        pytest.param({"typ": "client-authentication+jwt"}, {}, id="typ client-authentication+jwt"),
        pytest.param({"kid": MISSING}, {}, id="no kid with one registered key"),
        pytest.param({}, {"aud": [ISSUER]}, id="aud an array of one"),
        pytest.param({}, {"nbf": NOW + 9}, id="nbf within the skew"),
        pytest.param({}, {"iat": NOW + 9}, id="iat within the skew"),
        pytest.param({}, {"exp": NOW - 9}, id="exp within the skew"),
        pytest.param({}, {"exp": NOW + 3600}, id="exp an hour ahead"),
        pytest.param({}, {"iat": MISSING}, id="no iat when the store is old enough"),
        pytest.param({}, {"jti": "j" * 256}, id="a jti of 256 bytes"),
    ],
)
def test_what_the_rules_leave_open_is_accepted(header: dict[str, Any], changes: dict[str, Any]) -> None:
    assert verify(signed(header=header, **changes)).client.client_id == CLIENT_ID


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        pytest.param({"iss": "other"}, refusal.WRONG_ISSUER, "iss", id="iss is another client"),
        pytest.param({"iss": MISSING}, refusal.MISSING_CLAIM, "iss", id="iss missing"),
        pytest.param({"sub": MISSING}, refusal.MISSING_CLAIM, "sub", id="sub missing"),
        pytest.param({"sub": 7}, refusal.INVALID_CLAIM, "sub", id="sub a number"),
        pytest.param({"sub": ""}, refusal.INVALID_CLAIM, "sub", id="sub empty"),
        pytest.param({"aud": MISSING}, refusal.MISSING_CLAIM, "aud", id="aud missing"),
        pytest.param({"aud": None}, refusal.INVALID_CLAIM, "aud", id="aud null"),
        pytest.param({"aud": []}, refusal.WRONG_AUDIENCE, "aud", id="aud an empty array"),
        pytest.param({"aud": [ISSUER, ISSUER]}, refusal.WRONG_AUDIENCE, "aud", id="aud twice the issuer"),
        pytest.param({"aud": [ISSUER, "https://b"]}, refusal.WRONG_AUDIENCE, "aud", id="aud an array of two"),
        pytest.param({"aud": "https://b"}, refusal.WRONG_AUDIENCE, "aud", id="aud another issuer"),
        pytest.param({"aud": TOKEN_ENDPOINT}, refusal.WRONG_AUDIENCE, "aud", id="aud the token endpoint"),
        pytest.param({"aud": f"{ISSUER}/"}, refusal.WRONG_AUDIENCE, "aud", id="aud the issuer with a slash"),
        pytest.param({"jti": MISSING}, refusal.MISSING_CLAIM, "jti", id="jti missing"),
        pytest.param({"jti": ""}, refusal.INVALID_CLAIM, "jti", id="jti empty"),
        pytest.param({"jti": 5}, refusal.INVALID_CLAIM, "jti", id="jti a number"),
        pytest.param({"jti": "j" * 257}, refusal.INVALID_CLAIM, "jti", id="jti of 257 bytes"),
        pytest.param({"jti": "ü" * 129}, refusal.INVALID_CLAIM, "jti", id="jti of 258 bytes in 129 characters"),
        pytest.param({"exp": MISSING}, refusal.MISSING_CLAIM, "exp", id="exp missing"),
        pytest.param({"exp": str(NOW)}, refusal.INVALID_CLAIM, "exp", id="exp a string"),
        pytest.param({"exp": True}, refusal.INVALID_CLAIM, "exp", id="exp a boolean"),
        pytest.param({"exp": 1e300}, refusal.INVALID_CLAIM, "exp", id="exp beyond any clock"),
        pytest.param({"exp": -1}, refusal.INVALID_CLAIM, "exp", id="exp negative"),
        pytest.param({"exp": NOW - 10}, refusal.EXPIRED, "expired", id="expired beyond the skew"),
        pytest.param({"exp": NOW + 3611}, refusal.TOO_LONG_LIVED, "exp", id="exp more than an hour ahead"),
        pytest.param({"iat": NOW + 11}, refusal.NOT_YET_VALID, "iat", id="from the future"),
        pytest.param({"nbf": NOW + 11}, refusal.NOT_YET_VALID, "nbf", id="not yet valid"),
        pytest.param({"nbf": "soon"}, refusal.INVALID_CLAIM, "nbf", id="nbf a string"),
        pytest.param(
            {"requested_audiences": [1]}, refusal.INVALID_CLAIM, "requested_audiences", id="audiences numbers"
        ),
    ],
)
def test_a_wrong_claim_is_refused_by_name(changes: dict[str, Any], reason: str, words: str) -> None:
    error = refused(signed(**changes))
    assert error.reason == reason
    assert words in error.description


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param({"alg": "none"}, refusal.MALFORMED, id="alg none"),
        pytest.param({"alg": "HS256"}, refusal.MALFORMED, id="HS256"),
        pytest.param({"alg": "PS256"}, refusal.WRONG_ALGORITHM, id="another algorithm than the key's"),
        pytest.param({"alg": "RS512"}, refusal.MALFORMED, id="RS512"),
        pytest.param({"crit": ["b64"]}, refusal.MALFORMED, id="unknown crit"),
        pytest.param({"jwk": CLIENT.public.jwk}, refusal.MALFORMED, id="a key in the header"),
        pytest.param({"jku": "https://evil.example/jwks"}, refusal.MALFORMED, id="jku"),
        pytest.param({"x5u": "https://evil.example/cert"}, refusal.MALFORMED, id="x5u"),
        pytest.param({"kid": "unknown"}, refusal.UNKNOWN_KEY, id="an unknown kid"),
        pytest.param({"kid": 7}, refusal.MALFORMED, id="a kid that is no string"),
        pytest.param({"typ": "at+jwt"}, refusal.WRONG_TYPE, id="typ of an access token"),
    ],
)
def test_a_wrong_header_is_refused(header: dict[str, Any], reason: str) -> None:
    assert refused(signed(header=header)).reason == reason


def test_hs256_with_the_public_key_as_secret_is_refused() -> None:
    header, _, _ = encode(CLIENT, {"alg": "HS256", "kid": CLIENT.kid}, b"{}").partition(b".")
    _, payload, _ = signed().split(b".")
    mac = HMAC(CLIENT.public.jwk["n"].encode(), SHA256())
    mac.update(header + b"." + payload)
    forged = header + b"." + payload + b"." + base64url.encode(mac.finalize())
    assert refused(forged).reason == refusal.MALFORMED


def test_a_doubled_claim_is_refused() -> None:
    token = encode(CLIENT, {"alg": "RS256", "kid": CLIENT.kid}, b'{"sub":"a","sub":"b"}')
    assert refused(token).reason == refusal.MALFORMED


def test_a_kid_of_another_client_is_refused() -> None:
    other = sample_key(number=9)
    world = World()
    world.clients["other"] = Client("uid-2", client_state(client_id="other", keys=(client_key(other),)))
    assert refused(signed(other), world=world).reason == refusal.UNKNOWN_KEY


def test_a_signature_by_another_key_under_the_right_kid_is_refused() -> None:
    other = sample_key(number=9)
    assert refused(signed(other, header={"kid": CLIENT.kid})).reason == refusal.BAD_SIGNATURE


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"keys": ()}, id="no key left"),
        pytest.param({"keys": (client_key(CLIENT, not_after=NOW),)}, id="the key's end has come"),
        pytest.param({"keys": (client_key(CLIENT, not_before=NOW + 1),)}, id="the key's time has not come"),
        pytest.param({"auth_method": CLIENT_SECRET_BASIC}, id="another method registered"),
    ],
)
def test_without_a_key_that_counts_now_the_answer_is_the_same_as_for_an_unknown_client(changes: dict[str, Any]) -> None:
    world = World()
    world.change_client(**changes)
    empty = World(clients={})
    assert refused(signed(), world=world).description == refused(signed(), world=empty).description


def test_without_a_kid_each_generated_key_of_the_overlap_counts_and_no_other() -> None:
    """A client that names no kid must not fail while the key in its Secret is being replaced."""
    old, new, stranger = CLIENT, sample_key(number=9), sample_key(number=8)
    ended = client_key(sample_key(number=7), source="generateKey", not_after=NOW)
    world = World()
    made = [client_key(old, source="generateKey", not_after=NOW + 60), client_key(new, source="generateKey"), ended]
    world.change_client(keys=tuple(made))
    for key in (old, new):
        assert verify(signed(key, header={"kid": MISSING}), world=world).kid == key.kid
    assert refused(signed(stranger, header={"kid": MISSING}), world=world).reason == refusal.BAD_SIGNATURE
    assert refused(signed(sample_key(number=7), header={"kid": MISSING}), world=world).reason == refusal.BAD_SIGNATURE
    world.change_client(keys=(*made, client_key(stranger)))
    assert refused(signed(new, header={"kid": MISSING}), world=world).reason == refusal.UNKNOWN_KEY


def test_without_a_kid_and_with_two_registered_keys_nothing_is_guessed() -> None:
    world = World()
    world.change_client(keys=(client_key(CLIENT), client_key(sample_key(number=9))))
    assert refused(signed(header={"kid": MISSING}), world=world).reason == refusal.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"suspended": True}, refusal.CLIENT_SUSPENDED, id="suspended"),
        pytest.param({"expires_at": NOW}, refusal.CLIENT_EXPIRED, id="past its end"),
    ],
)
def test_a_stopped_client_is_refused(changes: dict[str, Any], reason: str) -> None:
    world = World()
    world.change_client(**changes)
    assert refused(signed(), world=world).reason == reason


def test_a_client_id_parameter_must_be_the_subject() -> None:
    assert verify(signed(), client_id=CLIENT_ID).client.client_id == CLIENT_ID
    assert refused(signed(), client_id="other").reason == refusal.WRONG_SUBJECT


def test_the_token_endpoint_is_an_audience_by_setting_only() -> None:
    policy = AssertionPolicy(frozenset({ISSUER, TOKEN_ENDPOINT}), clock_skew=10)
    assert verify(signed(aud=TOKEN_ENDPOINT), policy=policy).client.client_id == CLIENT_ID


@pytest.mark.parametrize(
    ("changes", "born_at"),
    [
        pytest.param({"iat": NOW - 5}, NOW - 4, id="issued before the store's birth"),
        pytest.param({"iat": MISSING}, NOW - 3600, id="no iat while one from before may live"),
    ],
)
def test_an_assertion_that_a_lost_store_may_have_seen_is_refused(changes: dict[str, Any], born_at: float) -> None:
    assert refused(signed(**changes), born_at=born_at).reason == refusal.BEFORE_STORE


def test_the_hash_of_client_and_jti_keeps_their_border() -> None:
    assert token_hash("a", "bc") != token_hash("ab", "c")


def test_a_refusal_never_repeats_the_input() -> None:
    error = refused(signed(aud="https://secret.example"))
    assert "secret" not in error.description + error.cause
