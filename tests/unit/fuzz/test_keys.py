"""Whatever is registered as a key is a public key of a known kind or refused, and the refusal never quotes it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from keyturn.clients.parse import parse_client
from keyturn.jose.keys import PublicKey, parse_jwk, parse_pem
from keyturn.jose.rejection import KeyRejected
from tests.sample_keys import ALGORITHMS, sample_key
from tests.unit.fuzz.strategies import FEWER, FUZZED, JSON, TEXT, members, mutations

PUBLIC = [dict(sample_key(algorithm).public.jwk) for algorithm in ALGORITHMS]
MEMBERS = ("kty", "kid", "alg", "use", "n", "e", "crv", "x", "y", "d", "p", "k", "x5c", "jku", "key_ops")


def pem_of(algorithm: str) -> bytes:
    private = load_pem_private_key(sample_key(algorithm).to_pem(), None)
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


PEM = pem_of("RS256")


def checked(value: Any) -> PublicKey | None:
    """The key of a JWK; None where it is refused."""
    try:
        return parse_jwk(value, field="publicKeys[0].jwk")
    except KeyRejected as error:
        assert error.reason
        assert error.field.startswith("publicKeys[0].jwk")
        # No long text of the input stands in the message.
        for part in quoted(value):
            assert part not in str(error)
        return None


def quoted(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if len(value) > 24 else []
    if isinstance(value, dict):
        return [part for member in value.values() for part in quoted(member)]
    return [part for member in value for part in quoted(member)] if isinstance(value, list) else []


@FUZZED
@given(st.one_of(members(*MEMBERS), JSON))
def test_any_value_is_a_public_key_or_refused(value: Any) -> None:
    checked(value)


@FUZZED
@given(st.sampled_from(PUBLIC), members(*MEMBERS))
def test_a_key_with_changes_is_still_a_public_key_of_a_known_kind_or_refused(
    jwk: dict[str, Any], changes: dict[str, Any]
) -> None:
    key = checked({**jwk, **changes})
    if key is not None:
        assert key.algorithm in ALGORITHMS
        assert key.jwk.keys() <= {"kty", "kid", "alg", "use", "n", "e", "crv", "x", "y"}
        # Its own normal form is read again as the same key.
        assert parse_jwk(json.loads(json.dumps(dict(key.jwk))), field="jwk").thumbprint == key.thumbprint


@FUZZED
@given(st.one_of(TEXT, mutations(PEM).map(lambda raw: raw.decode("latin-1"))))
def test_any_text_is_a_pem_of_one_public_key_or_refused(text: str) -> None:
    try:
        key = parse_pem(text, field="publicKeys[0].pem")
    except KeyRejected as error:
        assert error.description
        return
    assert key.algorithm in ALGORITHMS


@FEWER
@given(st.binary(max_size=200))
def test_any_bytes_in_a_pem_are_a_public_key_or_refused(body: bytes) -> None:
    text = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(body).decode()}\n-----END PUBLIC KEY-----\n"
    try:
        parse_pem(text, field="pem")
    except KeyRejected:
        return
    load_der_public_key(body)


@FEWER
@given(
    members(
        *("clientId", "clientName", "authMethod", "publicKeys", "clientSecret", "permissions", "audiences"),
        *("allowedCustomClaims", "tokenLifetime", "suspended", "expiresAt", "revokeTokensIssuedBefore"),
    )
)
def test_any_spec_of_a_client_is_parsed_with_its_problems_told(spec: dict[str, Any]) -> None:
    state, problems = parse_client(spec, namespace="team", name="app", created_at=0.0, last=None)
    assert all(problem.reason and problem.message for problem in problems)
    if state is not None:
        assert all(key.algorithm in ALGORITHMS for key in state.keys)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"kty": "RSA", "e": "AQAB", "n": "A" * 60_000}, id="a modulus of 360000 bits"),
        pytest.param({"kty": "RSA", "e": "B" * 60_000, "n": PUBLIC[0]["n"]}, id="an exponent of 360000 bits"),
        pytest.param({"kty": "EC", "crv": "P-256", "x": "A" * 60_000, "y": "A"}, id="a coordinate without end"),
        pytest.param({f"m{n}": n for n in range(20_000)}, id="20000 members"),
        pytest.param({"kty": "RSA", "key_ops": ["verify"] * 50_000}, id="50000 operations"),
    ],
)
def test_no_key_takes_long_to_refuse(value: dict[str, Any]) -> None:
    before = time.process_time()
    assert checked(value) is None
    assert time.process_time() - before < 1.0


def test_no_pem_takes_long_to_refuse() -> None:
    before = time.process_time()
    for text in ("-----BEGIN " * 100_000, "-" * 2_000_000, PEM.decode() * 2_000):
        with pytest.raises(KeyRejected):
            parse_pem(text, field="pem")
    assert time.process_time() - before < 2.0
