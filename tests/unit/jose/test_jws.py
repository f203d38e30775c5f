import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.jose import base64url, jws
from keyturn.jose.jws import MalformedToken, parse_claims, parse_compact
from tests.unit.jose import vectors

HEADER = {"alg": "RS256", "typ": "JWT", "kid": "k"}


def token_of(header: object, payload: bytes = b"{}", signature: bytes = b"signature") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return b".".join(map(base64url.encode, (raw, payload, signature)))


@pytest.mark.parametrize(
    ("token", "algorithm"),
    [
        pytest.param(vectors.RFC7515_RS256, "RS256", id="RFC 7515 appendix A.2"),
        pytest.param(vectors.RFC7515_ES256, "ES256", id="RFC 7515 appendix A.3"),
    ],
)
def test_the_tokens_of_the_rfc_are_taken_apart(token: bytes, algorithm: str) -> None:
    parsed = parse_compact(token)
    assert parsed.header == {"alg": algorithm}
    assert parse_claims(parsed.payload) == vectors.RFC7515_CLAIMS
    assert parsed.signing_input + b"." + base64url.encode(parsed.signature) == token


def test_the_fuller_name_of_ed25519_is_read_as_the_older_one() -> None:
    """RFC 9864 section 2.2."""
    assert parse_compact(token_of({"alg": "Ed25519"})).header == {"alg": "EdDSA"}


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_the_four_algorithms_and_unknown_header_members_are_let_through(algorithm: str) -> None:
    header = {"alg": algorithm, "typ": "at+jwt", "cty": "JWT", "kid": "k", "x5t": "abc", "extra": [1]}
    assert parse_compact(token_of(header)).header == header


GOOD = token_of(HEADER)
PARTS = GOOD.split(b".")


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param(b"", jws.MALFORMED, id="nothing"),
        pytest.param(b"..", jws.MALFORMED, id="three empty parts"),
        pytest.param(b".".join(PARTS[:2]), jws.MALFORMED, id="two parts"),
        pytest.param(GOOD + b".AAAA", jws.MALFORMED, id="four parts"),
        pytest.param(b".".join([*PARTS, b"AAAA", b"AAAA"]), jws.MALFORMED, id="five parts, as JWE has"),
        pytest.param(b".".join([b"", *PARTS[1:]]), jws.MALFORMED, id="no header"),
        pytest.param(b".".join([PARTS[0], b"", PARTS[2]]), jws.MALFORMED, id="no payload"),
        pytest.param(b".".join([*PARTS[:2], b""]), jws.MALFORMED, id="no signature (RFC 7515 appendix A.5)"),
        pytest.param(GOOD + b"=", jws.MALFORMED, id="padding"),
        pytest.param(GOOD + b"\n", jws.MALFORMED, id="a newline at the end"),
        pytest.param(b" " + GOOD, jws.MALFORMED, id="a space in front"),
        pytest.param(b".".join([PARTS[0], b"QR", PARTS[2]]), jws.MALFORMED, id="a payload that is not canonical"),
        pytest.param(b".".join([*PARTS[:2], b"QR"]), jws.MALFORMED, id="a signature that is not canonical"),
        pytest.param(b".".join([*PARTS[:2], b"+/+/"]), jws.MALFORMED, id="the other base64 alphabet"),
        pytest.param(b".".join([b"e30", *PARTS[1:]]), jws.MALFORMED, id="no alg (RFC 7515 section 4.1.1)"),
        pytest.param(b".".join([b"QR", *PARTS[1:]]), jws.MALFORMED, id="a header that is not canonical"),
        pytest.param(token_of([HEADER]), jws.MALFORMED, id="a header that is a list"),
        pytest.param(token_of(b'"alg"'), jws.MALFORMED, id="a header that is a text"),
        pytest.param(token_of(b"{"), jws.MALFORMED, id="a header that is no JSON"),
        pytest.param(token_of(b"\xff{}"), jws.MALFORMED, id="a header that is no UTF-8"),
        pytest.param(token_of('{"alg":"RS256"}'.encode("utf-16")), jws.MALFORMED, id="a header in UTF-16"),
        pytest.param(token_of(b'{"alg":"none","alg":"RS256"}'), jws.MALFORMED, id="alg twice (RFC 7515 section 4)"),
        pytest.param(token_of(b'{"alg":"RS256","x":{"a":1,"a":2}}'), jws.MALFORMED, id="a member twice further down"),
        pytest.param(token_of({**HEADER, "alg": None}), jws.MALFORMED, id="alg null"),
        pytest.param(token_of({**HEADER, "alg": ["RS256"]}), jws.MALFORMED, id="alg as a list"),
        pytest.param(token_of({**HEADER, "kid": 1}), jws.MALFORMED, id="kid as a number (RFC 7515 section 4.1.4)"),
        pytest.param(token_of({**HEADER, "kid": None}), jws.MALFORMED, id="kid null"),
        pytest.param(token_of({**HEADER, "typ": 1}), jws.MALFORMED, id="typ as a number (RFC 7515 section 4.1.9)"),
        pytest.param(token_of({**HEADER, "cty": {}}), jws.MALFORMED, id="cty as an object (RFC 7515 section 4.1.10)"),
        pytest.param(token_of({"alg": "none"}), jws.UNSECURED, id="alg none (RFC 8725 section 3.2)"),
        pytest.param(token_of({"alg": "nOnE"}), jws.UNSECURED, id="alg none in another case"),
        pytest.param(token_of({"alg": "HS256"}), jws.SYMMETRIC_ALGORITHM, id="HS256"),
        pytest.param(token_of({"alg": "HS512"}), jws.SYMMETRIC_ALGORITHM, id="HS512"),
        pytest.param(token_of({"alg": "RS512"}), jws.UNSUPPORTED_ALGORITHM, id="RS512"),
        pytest.param(token_of({"alg": "Ed448"}), jws.UNSUPPORTED_ALGORITHM, id="Ed448 (RFC 9864 section 2.2)"),
        pytest.param(token_of({"alg": "ES256K"}), jws.UNSUPPORTED_ALGORITHM, id="ES256K"),
        pytest.param(token_of({"alg": "rs256"}), jws.UNSUPPORTED_ALGORITHM, id="an algorithm in another case"),
        pytest.param(token_of({"alg": "RSA256"}), jws.UNSUPPORTED_ALGORITHM, id="RSA256, which is a key's alias only"),
        pytest.param(token_of({"alg": ""}), jws.UNSUPPORTED_ALGORITHM, id="an empty alg"),
        pytest.param(token_of({**HEADER, "crit": ["exp"], "exp": 1}), jws.UNSUPPORTED_HEADER, id="crit"),
        pytest.param(token_of({**HEADER, "crit": []}), jws.UNSUPPORTED_HEADER, id="an empty crit"),
        pytest.param(token_of({**HEADER, "crit": None}), jws.UNSUPPORTED_HEADER, id="crit null"),
        pytest.param(token_of({**HEADER, "b64": True}), jws.UNSUPPORTED_HEADER, id="b64 (RFC 7797)"),
        pytest.param(token_of({**HEADER, "jwk": vectors.RFC7515_RSA}), jws.UNSUPPORTED_HEADER, id="an embedded key"),
        pytest.param(token_of({**HEADER, "jku": "https://x.example"}), jws.UNSUPPORTED_HEADER, id="jku"),
        pytest.param(token_of({**HEADER, "x5u": "https://x.example"}), jws.UNSUPPORTED_HEADER, id="x5u"),
        pytest.param(token_of({**HEADER, "x5c": ["MII"]}), jws.UNSUPPORTED_HEADER, id="x5c"),
        pytest.param(token_of({**HEADER, "zip": "DEF"}), jws.UNSUPPORTED_HEADER, id="zip"),
        pytest.param(token_of(HEADER, b"x" * 8192), jws.TOO_LARGE, id="more than 8192 bytes"),
    ],
)
def test_a_token_is_refused_with_its_reason_each_time(token: bytes, reason: str) -> None:
    for _ in range(2):  # the second time past the cache
        with pytest.raises(MalformedToken) as caught:
            parse_compact(token)
        assert caught.value.reason == reason


def test_the_limit_is_inclusive() -> None:
    assert parse_compact(GOOD, max_bytes=len(GOOD)).payload == b"{}"
    with pytest.raises(MalformedToken, match="too long"):
        parse_compact(GOOD, max_bytes=len(GOOD) - 1)


def test_a_refusal_and_a_repr_tell_nothing_of_the_token() -> None:
    with pytest.raises(MalformedToken) as caught:
        parse_compact(token_of({"alg": "evil-value"}))
    assert "evil" not in f"{caught.value!r}{caught.value.description}"
    parsed = parse_compact(token_of(HEADER, b'{"sub":"somebody"}'))
    assert "somebody" not in repr(parsed)
    assert "signature" not in repr(parsed).replace("signature=", "")


def test_a_cached_header_cannot_be_changed_by_who_reads_it() -> None:
    header = parse_compact(GOOD).header
    assert parse_compact(GOOD).header is header
    with pytest.raises(TypeError):
        header["alg"] = "none"  # type: ignore[index]


def test_the_cache_of_headers_is_bounded_and_holds_no_long_ones() -> None:
    jws._headers.clear()
    for number in range(1500):
        parse_compact(token_of({**HEADER, "kid": str(number)}))
    parse_compact(token_of({**HEADER, "kid": "x" * 600}))
    assert 0 < len(jws._headers) <= 1024
    assert max(map(len, jws._headers)) <= 512


@pytest.mark.parametrize(
    ("payload", "claims"),
    [
        pytest.param(b"{}", {}, id="none"),
        pytest.param(b' {"a" : [1, 2.5, true, null, "\\u00fc"]} ', {"a": [1, 2.5, True, None, "ü"]}, id="each type"),
        pytest.param('{"ü":"😀"}'.encode(), {"ü": "😀"}, id="UTF-8"),
        pytest.param(b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}, id="a pair of surrogates"),
        pytest.param(b'{"a":{"x":1},"b":{"x":1}}', {"a": {"x": 1}, "b": {"x": 1}}, id="one name in two objects"),
        pytest.param(b'{"a":"' + b"[" * 100 + b'"}', {"a": "[" * 100}, id="brackets in a text"),
        pytest.param(b'{"a":"\\"' + b"{" * 100 + b'\\\\"}', {"a": '"' + "{" * 100 + "\\"}, id="brackets after a quote"),
        pytest.param(b'{"a":[' + b"[]," * 50 + b"[]]}", {"a": [[]] * 51}, id="many brackets side by side"),
    ],
)
def test_claims_are_read(payload: bytes, claims: dict[str, Any]) -> None:
    assert parse_claims(payload) == claims


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_claims_may_be_sixteen_deep() -> None:
    assert parse_claims(nested(16))
    # With more brackets than that elsewhere, so that the depth is really looked at.
    assert parse_claims(b'{"b":[[],[],[]],' + nested(16)[1:])


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        pytest.param(b"", "not valid", id="nothing"),
        pytest.param(b"[]", "not a JSON object", id="a list"),
        pytest.param(b"null", "not a JSON object", id="null"),
        pytest.param(b'"x"', "not a JSON object", id="a text"),
        pytest.param(b"{}{}", "not valid", id="two objects"),
        pytest.param(b"{'a':1}", "not valid", id="other quotes"),
        pytest.param(b'{"a":1,}', "not valid", id="a comma too many"),
        pytest.param(b'{"a":01}', "not valid", id="a leading zero"),
        pytest.param(b'{"a":"\n"}', "not valid", id="a control character in a text"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', "not valid", id="a byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), "not valid", id="UTF-16"),
        pytest.param(b'{"a":"\xff"}', "not valid", id="no UTF-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', "not valid", id="a surrogate in UTF-8"),
        pytest.param(b'{"a":"\\ud800"}', "Unicode", id="half a pair of surrogates"),
        pytest.param(b'{"a":[{"\\udfff":1}]}', "Unicode", id="half a pair in a name"),
        pytest.param(b'{"a":1,"a":1}', "twice", id="a member twice (RFC 7519 section 4)"),
        pytest.param(b'{"a":1,"\\u0061":1}', "twice", id="a member twice, once escaped"),
        pytest.param(b'{"x":[{"y":{"a":1,"a":2}}]}', "twice", id="a member twice further down"),
        pytest.param(b'{"a":NaN}', "NaN", id="NaN"),
        pytest.param(b'{"a":Infinity}', "NaN", id="Infinity"),
        pytest.param(b'{"a":-Infinity}', "NaN", id="-Infinity"),
        pytest.param(b'{"a":1e999}', "range", id="a number beyond the range"),
        pytest.param(b'{"a":18446744073709551616}', "range", id="an integer beyond 64 bits"),
        pytest.param(b'{"a":[-9223372036854775809]}', "range", id="a negative integer beyond 64 bits"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", "not valid", id="a number of 5000 digits"),
        pytest.param(nested(17), "deep", id="seventeen deep"),
        pytest.param(b'{"a":' * 4000, "deep", id="thousands of objects"),
        pytest.param(b"[" * 8000, "deep", id="thousands of lists"),
        pytest.param(b'{"\\"":' + b"[" * 30, "deep", id="depth behind an escaped quote"),
    ],
)
def test_claims_are_refused(payload: bytes, why: str) -> None:
    with pytest.raises(MalformedToken, match=why):
        parse_claims(payload)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"[" * 20 + b'"\\' * 50_000, id="escapes without end"),
        pytest.param(b"[]" * 20 + b'"' * 100_001, id="an odd number of quotes"),
        pytest.param(b"[]" * 20 + b'"' + b'\\"' * 50_000, id="one text without end"),
    ],
)
def test_looking_at_the_depth_takes_one_pass_over_hostile_input(payload: bytes) -> None:
    started = time.process_time()
    with pytest.raises(MalformedToken):
        parse_claims(payload)
    assert time.process_time() - started < 0.5


def test_the_claims_of_an_error_are_not_in_its_chain() -> None:
    with pytest.raises(MalformedToken) as caught:
        parse_claims(b'{"sub":"somebody"')
    assert caught.value.__suppress_context__


json_texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode())


@settings(max_examples=200, deadline=None)
@given(json_texts | st.binary(max_size=60) | st.text('{}[]",:\\ua1e.N', max_size=40).map(str.encode))
def test_whatever_is_given_as_claims_is_an_object_or_malformed(payload: bytes) -> None:
    try:
        claims = parse_claims(payload)
    except MalformedToken:
        return
    # What is read can be written again, as the same.
    assert parse_claims(json.dumps(claims, ensure_ascii=False).encode()) == claims


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=80)
    | st.lists(json_texts.map(base64url.encode) | st.binary(max_size=8), max_size=4).map(b".".join)
    | st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=3)).map(
        lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] :]
    )
)
def test_whatever_is_given_as_a_token_is_one_or_malformed(token: bytes) -> None:
    try:
        parsed = parse_compact(token)
    except MalformedToken:
        return
    # One token has one text: nothing was overlooked.
    assert (
        b".".join([*token.split(b".")[:1], base64url.encode(parsed.payload), base64url.encode(parsed.signature)])
        == token
    )
    assert parsed.header["alg"] in {"RS256", "PS256", "ES256", "EdDSA"}
