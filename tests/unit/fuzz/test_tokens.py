"""Whatever comes as a token or an assertion is taken apart or refused; nothing else happens."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.jose.jws import CompactJws, MalformedToken, parse_claims, parse_compact
from keyturn.jose.strict_json import InvalidJson, parse_object
from keyturn.tokens.access import read_access_token
from keyturn.tokens.assertion import AssertionPolicy, VerifiedAssertion, verify_assertion
from keyturn.tokens.refusal import TokenRefused
from tests.unit.fuzz.strategies import FEWER, FUZZED, JSON, encoded, members, mutations, segment
from tests.unit.tokens.worlds import CLIENT, CLIENT_ID, ISSUER, NOW, World, encode

GOOD = {"iss": CLIENT_ID, "sub": CLIENT_ID, "aud": ISSUER, "jti": "one", "iat": NOW - 5, "exp": NOW + 60}
ASSERTION = encode(CLIENT, {"alg": "RS256", "kid": CLIENT.kid, "typ": "JWT"}, GOOD)
HEADER = ("alg", "kid", "typ", "crit", "jwk", "b64", "cty")
CLAIMS = ("iss", "sub", "aud", "jti", "iat", "exp", "nbf", "requested_audiences")


def verified(assertion: bytes) -> VerifiedAssertion | None:
    """What the assertion proves; None where it is refused."""
    policy = AssertionPolicy(frozenset({ISSUER}), 10.0)
    try:
        return verify_assertion(assertion, clients=World(), policy=policy, store_born_at=NOW - 10_000, now=NOW)
    except TokenRefused as refused:
        assert refused.reason
        assert refused.description
        return None


@FUZZED
@given(st.one_of(st.binary(max_size=400), mutations(ASSERTION)))
def test_bytes_are_a_compact_jws_or_malformed(token: bytes) -> None:
    try:
        parsed = parse_compact(token)
    except MalformedToken as error:
        assert error.description
        return
    assert isinstance(parsed, CompactJws)
    assert parsed.signing_input + b"." == token[: len(parsed.signing_input) + 1]
    assert isinstance(parsed.header["alg"], str)


@FUZZED
@given(st.one_of(members(*HEADER), JSON))
def test_any_header_is_read_or_malformed(header: Any) -> None:
    token = b".".join((segment(encoded(header)), segment(b"{}"), segment(b"signature")))
    with suppress(MalformedToken):
        assert parse_compact(token).header["alg"] in {"RS256", "PS256", "ES256", "EdDSA"}


@FUZZED
@given(st.one_of(st.binary(max_size=300), st.builds(encoded, JSON), mutations(encoded(GOOD))))
def test_strict_json_reads_what_the_standard_librarys_reads_or_refuses_it(data: bytes) -> None:
    try:
        value = parse_object(data)
    except InvalidJson as error:
        # What it says must not quote the input.
        assert len(str(error)) < 80
        return
    assert value == json.loads(data)


@FUZZED
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "sub"]), st.integers(0, 9)), max_size=5))
def test_a_member_that_stands_twice_is_refused_and_no_other(pairs: list[tuple[str, int]]) -> None:
    data = ("{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}").encode()
    if len({name for name, _ in pairs}) == len(pairs):
        assert parse_claims(data) == dict(pairs)
    else:
        with pytest.raises(MalformedToken):
            parse_claims(data)


@FEWER
@given(st.one_of(members(*CLAIMS), st.builds(lambda change: {**GOOD, **change}, members(*CLAIMS))))
def test_whatever_a_client_signs_is_proven_by_all_of_the_rules_or_refused(claims: dict[str, Any]) -> None:
    signed = encode(CLIENT, {"alg": "RS256", "kid": CLIENT.kid}, encoded(claims))
    proven = verified(signed)
    if proven is not None:
        assert (claims["iss"], claims["sub"]) == (CLIENT_ID, CLIENT_ID)
        assert claims["aud"] in (ISSUER, [ISSUER])
        assert NOW - 10 < claims["exp"] <= NOW + 3610
        assert 0 < len(claims["jti"].encode()) <= 256


@FEWER
@given(mutations(ASSERTION))
def test_an_assertion_that_was_touched_proves_nothing(token: bytes) -> None:
    if token != ASSERTION:
        assert verified(token) is None
    assert verified(ASSERTION) is not None


@FEWER
@given(st.one_of(st.binary(max_size=300), mutations(ASSERTION)))
def test_no_bytes_are_an_access_token_but_ours(token: bytes) -> None:
    with pytest.raises(TokenRefused):
        read_access_token(token, world=World(), issuer=ISSUER, now=NOW)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(b"." * 8000, id="points"),
        pytest.param(segment(b"[" * 6000) + b".e30.e30", id="a header of opening brackets"),
        pytest.param(segment(b'{"a":' * 1200) + b".e30.e30", id="a header nested 1200 times"),
        pytest.param(segment(b'{"' + b"\\" * 5990 + b'":1}') + b".e30.e30", id="a header of backslashes"),
        pytest.param(segment(b'{"alg":' + b"9" * 5900 + b"}") + b".e30.e30", id="a number of 5900 digits"),
        pytest.param(segment(b'"' * 6000) + b".e30.e30", id="a header of quotes"),
        pytest.param(b"A" * 10_000_000, id="ten million bytes"),
    ],
)
def test_no_token_takes_long_to_refuse(token: bytes) -> None:
    before = time.process_time()
    for _ in range(20):
        with pytest.raises(MalformedToken):
            parse_compact(token)
    assert time.process_time() - before < 2.0
