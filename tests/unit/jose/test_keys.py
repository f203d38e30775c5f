import math
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn import reasons
from keyturn.jose import base64url, jws
from keyturn.jose.keys import KeyRejected, PublicKey, load, parse_jwk, parse_pem
from tests.sample_keys import ALGORITHMS, sample_key
from tests.unit.jose import vectors

FIELD = "spec.publicKeys[0].jwk"
P25519 = 2**255 - 19


def number(value: int) -> str:
    return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8)).decode()


def octets(value: bytes) -> str:
    return base64url.encode(value).decode()


def modulus_of(jwk: dict[str, str]) -> int:
    return int.from_bytes(base64url.decode(jwk["n"].encode()))


def pem_of(key: Any, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> str:
    pem: bytes = key.public_bytes(Encoding.PEM, form)
    return pem.decode()


def small_order_points() -> list[bytes]:
    """Encodings of all points of edwards25519 whose order divides 8, found by multiplying some point with the prime order of the group."""
    p, d, order = P25519, -121665 * pow(121666, -1, P25519) % P25519, 2**252 + 27742317777372353535851937790883648493

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        (x1, y1), (x2, y2) = a, b
        t = d * x1 * x2 * y1 * y2 % p
        return (x1 * y2 + x2 * y1) * pow(1 + t, -1, p) % p, (y1 * y2 + x1 * x2) * pow(1 - t, -1, p) % p

    def times(k: int, point: tuple[int, int]) -> tuple[int, int]:
        total = (0, 1)
        while k:
            if k & 1:
                total = add(total, point)
            point, k = add(point, point), k >> 1
        return total

    found: set[tuple[int, int]] = set()
    y = 2
    while len(found) < 8:
        y += 1
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        if x * x % p != square:
            x = x * pow(2, (p - 1) // 4, p) % p
        if x * x % p != square:
            continue
        torsion = times(order, (x, y))
        for k in range(8):
            found.add(times(k, torsion))
    return [(y | (x & 1) << 255).to_bytes(32, "little") for x, y in sorted(found)]


RSA = vectors.RFC7515_RSA
EC = vectors.RFC7515_EC
OKP = vectors.RFC8037_OKP
RSA_MODULUS = modulus_of(RSA)


@pytest.mark.parametrize(
    ("jwk", "thumbprint"),
    [
        pytest.param(vectors.RFC7638_RSA, vectors.RFC7638_THUMBPRINT, id="RFC 7638 section 3.1"),
        pytest.param(vectors.RFC8037_OKP, vectors.RFC8037_THUMBPRINT, id="RFC 8037 appendix A.3"),
    ],
)
def test_the_thumbprint_is_the_one_that_the_rfc_prints(jwk: dict[str, str], thumbprint: str) -> None:
    assert parse_jwk(jwk, field=FIELD).thumbprint == thumbprint


@pytest.mark.parametrize(
    ("jwk", "token"),
    [
        pytest.param(vectors.RFC7515_RSA, vectors.RFC7515_RS256, id="RFC 7515 appendix A.2 (RS256)"),
        pytest.param(vectors.RFC7515_EC, vectors.RFC7515_ES256, id="RFC 7515 appendix A.3 (ES256)"),
        pytest.param(vectors.RFC8037_OKP, vectors.RFC8037_EDDSA, id="RFC 8037 appendix A.4 (EdDSA)"),
    ],
)
def test_the_tokens_that_the_rfcs_print_verify_and_altered_ones_do_not(jwk: dict[str, str], token: bytes) -> None:
    key, parsed = parse_jwk(jwk, field=FIELD), jws.parse_compact(token)
    signature = parsed.signature
    assert key.verify(parsed.signing_input, signature)
    assert not key.verify(parsed.signing_input + b"A", signature)
    for altered in (
        bytes([signature[0] ^ 1]) + signature[1:],
        signature[:-1] + bytes([signature[-1] ^ 1]),
        signature[:-1],
        signature + b"\0",
        b"\0" * len(signature),
        b"\xff" * len(signature),
        b"",
    ):
        assert not key.verify(parsed.signing_input, altered)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("other", ALGORITHMS)
def test_a_key_verifies_its_own_algorithm_only(algorithm: str, other: str) -> None:
    signed = sample_key(other).sign(b"input")
    assert sample_key(algorithm).public.verify(b"input", signed) is (algorithm == other)


def test_one_rsa_key_registered_for_ps256_refuses_rs256_signatures() -> None:
    pinned = parse_jwk({**sample_key("RS256").public.jwk, "alg": "PS256"}, field=FIELD)
    assert pinned.algorithm == "PS256"
    assert not pinned.verify(b"input", sample_key("RS256").sign(b"input"))


@pytest.mark.parametrize(
    ("jwk", "algorithm", "size"),
    [
        pytest.param(RSA, "RS256", 2048, id="RSA is RS256 by default"),
        pytest.param({**RSA, "alg": "PS256"}, "PS256", 2048, id="RSA may be PS256"),
        pytest.param({**RSA, "alg": "RSA256"}, "RS256", 2048, id="RSA256 is read as RS256"),
        pytest.param(EC, "ES256", 256, id="P-256 is ES256"),
        pytest.param(OKP, "EdDSA", 256, id="Ed25519 is EdDSA"),
        pytest.param({**OKP, "alg": "Ed25519"}, "EdDSA", 256, id="RFC 9864's name is read as EdDSA"),
    ],
)
def test_the_normal_form_has_kid_algorithm_use_and_nothing_that_is_foreign(
    jwk: dict[str, str], algorithm: str, size: int
) -> None:
    key = parse_jwk({**jwk, "key_ops": ["verify"], "x5t": "abc", "comment": 1}, field=FIELD)
    material = {name: value for name, value in jwk.items() if name != "alg"}
    assert key.jwk == {**material, "kid": key.thumbprint, "alg": algorithm, "use": "sig"}
    assert (key.kid, key.algorithm, key.size) == (key.thumbprint, algorithm, size)
    again = load(key.jwk)
    assert again == key
    assert again.jwk == key.jwk


@pytest.mark.parametrize(
    ("own", "beside", "expected"),
    [
        pytest.param("own", None, "own", id="the kid in the key counts"),
        pytest.param(None, "beside", "beside", id="a kid beside the key counts"),
        pytest.param("same", "same", "same", id="both may agree"),
        pytest.param('a key: "x" ~', None, 'a key: "x" ~', id="any printable ASCII"),
        pytest.param("k" * 256, None, "k" * 256, id="256 characters"),
    ],
)
def test_a_kid_is_taken_as_given(own: str | None, beside: str | None, expected: str) -> None:
    key = parse_jwk(OKP if own is None else {**OKP, "kid": own}, kid=beside, field=FIELD)
    assert (key.kid, key.jwk["kid"]) == (expected, expected)


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
@pytest.mark.parametrize("base", [RSA, EC, OKP, {"kty": "oct"}, {}], ids=["RSA", "EC", "OKP", "oct", "no kty"])
def test_a_private_member_is_called_private_and_not_echoed(base: dict[str, str], member: str) -> None:
    with pytest.raises(KeyRejected) as caught:
        parse_jwk({**base, member: "c2VjcmV0LXZhbHVl"}, field=FIELD)
    assert caught.value.reason == reasons.PRIVATE_KEY
    assert caught.value.field == FIELD
    assert "c2VjcmV0" not in str(caught.value) + repr(caught.value) + caught.value.description


PLAIN_RSA_1024 = (1 << 1023) | 1
REFUSED_JWKS: list[Any] = [
    pytest.param(None, reasons.INVALID_KEY, "", id="nothing"),
    pytest.param("{}", reasons.INVALID_KEY, "", id="a text"),
    pytest.param([RSA], reasons.INVALID_KEY, "", id="a list"),
    pytest.param({}, reasons.INVALID_KEY, ".kty", id="no kty"),
    pytest.param({**RSA, "kty": "rsa"}, reasons.INVALID_KEY, ".kty", id="kty in another case"),
    pytest.param({**RSA, "kty": ["RSA"]}, reasons.INVALID_KEY, ".kty", id="kty as a list"),
    pytest.param({"kty": "oct"}, reasons.INVALID_KEY, ".kty", id="a symmetric key"),
    pytest.param({1: "x", "kty": "RSA"}, reasons.INVALID_KEY, "", id="a member that is not named by a string"),
    pytest.param({**RSA, **{f"m{i}": 1 for i in range(40)}}, reasons.INVALID_KEY, "", id="too many members"),
    pytest.param({**RSA, "x5u": "https://x.example"}, reasons.INVALID_KEY, ".x5u", id="x5u"),
    pytest.param({**RSA, "x5c": ["MII"]}, reasons.INVALID_KEY, ".x5c", id="x5c"),
    pytest.param({**RSA, "jku": "https://x.example"}, reasons.INVALID_KEY, ".jku", id="jku"),
    pytest.param({**RSA, "use": "enc"}, reasons.INVALID_KEY, ".use", id="a use other than sig (RFC 7517 section 4.2)"),
    pytest.param({**RSA, "use": ["sig"]}, reasons.INVALID_KEY, ".use", id="use as a list"),
    pytest.param({**RSA, "key_ops": ["encrypt"]}, reasons.INVALID_KEY, ".key_ops", id="key_ops without verify"),
    pytest.param({**RSA, "key_ops": ["verify", "verify"]}, reasons.INVALID_KEY, ".key_ops", id="an operation twice"),
    pytest.param({**RSA, "key_ops": "verify"}, reasons.INVALID_KEY, ".key_ops", id="key_ops as a text"),
    pytest.param({**RSA, "key_ops": [["verify"]]}, reasons.INVALID_KEY, ".key_ops", id="key_ops of lists"),
    pytest.param({**RSA, "alg": "ES256"}, reasons.INVALID_KEY, ".alg", id="an algorithm of another kind of key"),
    pytest.param({**EC, "alg": "RS256"}, reasons.INVALID_KEY, ".alg", id="RS256 on an EC key"),
    pytest.param({**RSA, "alg": "Ed25519"}, reasons.INVALID_KEY, ".alg", id="RFC 9864's Ed25519 on an RSA key"),
    pytest.param({**OKP, "alg": "RSA256"}, reasons.INVALID_KEY, ".alg", id="RSA256 on an Ed25519 key"),
    pytest.param({**RSA, "alg": "RS512"}, reasons.INVALID_KEY, ".alg", id="an algorithm that is not supported"),
    pytest.param({**RSA, "alg": "none"}, reasons.INVALID_KEY, ".alg", id="alg none"),
    pytest.param({**RSA, "alg": "HS256"}, reasons.INVALID_KEY, ".alg", id="HS256 on a public key"),
    pytest.param({**RSA, "alg": 10**5000}, reasons.INVALID_KEY, ".alg", id="alg as a huge number"),
    pytest.param({**RSA, "kid": ""}, reasons.INVALID_KEY, ".kid", id="an empty kid"),
    pytest.param({**RSA, "kid": "k" * 257}, reasons.INVALID_KEY, ".kid", id="a kid that is too long"),
    pytest.param({**RSA, "kid": "schlüssel"}, reasons.INVALID_KEY, ".kid", id="a kid outside ASCII"),
    pytest.param({**RSA, "kid": "a\nb"}, reasons.INVALID_KEY, ".kid", id="a kid with a newline"),
    pytest.param({**RSA, "kid": "ab\n"}, reasons.INVALID_KEY, ".kid", id="a kid with a newline at its end"),
    pytest.param({**RSA, "kid": 7}, reasons.INVALID_KEY, ".kid", id="a kid that is a number"),
    pytest.param({"kty": "RSA", "e": "AQAB"}, reasons.INVALID_KEY, ".n", id="no modulus"),
    pytest.param({"kty": "RSA", "n": RSA["n"]}, reasons.INVALID_KEY, ".e", id="no exponent"),
    pytest.param({**RSA, "n": ""}, reasons.INVALID_KEY, ".n", id="an empty modulus"),
    pytest.param({**RSA, "n": 123}, reasons.INVALID_KEY, ".n", id="a modulus that is a number"),
    pytest.param({**RSA, "n": RSA["n"] + "=="}, reasons.INVALID_KEY, ".n", id="padding"),
    pytest.param({**RSA, "n": RSA["n"] + "\n"}, reasons.INVALID_KEY, ".n", id="whitespace"),
    pytest.param({**RSA, "n": RSA["n"][:-1] + "R"}, reasons.INVALID_KEY, ".n", id="a non-canonical end"),
    pytest.param({**RSA, "n": "ü" * 100}, reasons.INVALID_KEY, ".n", id="a modulus outside ASCII"),
    pytest.param({**RSA, "n": "A" * 5000}, reasons.INVALID_KEY, ".n", id="a modulus that is too long"),
    pytest.param(
        {**RSA, "n": octets(b"\0" + RSA_MODULUS.to_bytes(256))},
        reasons.INVALID_KEY,
        ".n",
        id="a leading zero byte (RFC 7518 section 2)",
    ),
    pytest.param({**RSA, "n": number(PLAIN_RSA_1024)}, reasons.WEAK_KEY, "", id="RSA of 1024 bits"),
    pytest.param({**RSA, "n": number(RSA_MODULUS >> 1 | 1)}, reasons.WEAK_KEY, "", id="RSA of 2047 bits"),
    pytest.param({**RSA, "n": number(1 << 8192 | 1)}, reasons.WEAK_KEY, "", id="RSA of 8193 bits"),
    pytest.param({**RSA, "n": number(RSA_MODULUS + 1)}, reasons.WEAK_KEY, "", id="an even modulus"),
    pytest.param({**RSA, "n": number(RSA_MODULUS * 3)}, reasons.WEAK_KEY, "", id="a modulus that 3 divides"),
    pytest.param({**RSA, "n": number(RSA_MODULUS * 997)}, reasons.WEAK_KEY, "", id="a modulus that 997 divides"),
    pytest.param({**RSA, "e": "AQ"}, reasons.WEAK_KEY, "", id="the exponent 1"),
    pytest.param({**RSA, "e": "Aw"}, reasons.WEAK_KEY, "", id="the exponent 3"),
    pytest.param({**RSA, "e": number(65535)}, reasons.WEAK_KEY, "", id="an exponent below 65537"),
    pytest.param({**RSA, "e": number(65538)}, reasons.WEAK_KEY, "", id="an even exponent"),
    pytest.param({**RSA, "e": number((1 << 64) + 1)}, reasons.WEAK_KEY, "", id="an exponent of 65 bits"),
    pytest.param({**EC, "crv": "P-384"}, reasons.INVALID_KEY, ".crv", id="a curve that is not supported"),
    pytest.param({**EC, "crv": "secp256k1"}, reasons.INVALID_KEY, ".crv", id="secp256k1"),
    pytest.param({**EC, "y": EC["x"]}, reasons.INVALID_KEY, "", id="a point off the curve"),
    pytest.param({**EC, "x": octets(bytes(32)), "y": octets(bytes(32))}, reasons.INVALID_KEY, "", id="the point 0, 0"),
    pytest.param({**EC, "x": octets(b"\xff" * 32)}, reasons.INVALID_KEY, "", id="a coordinate beyond the field"),
    pytest.param({**EC, "x": octets(bytes(31))}, reasons.INVALID_KEY, ".x", id="a coordinate of 31 bytes"),
    pytest.param({**EC, "y": octets(bytes(33))}, reasons.INVALID_KEY, ".y", id="a coordinate of 33 bytes"),
    pytest.param({**OKP, "crv": "X25519"}, reasons.INVALID_KEY, ".crv", id="X25519, which does not sign"),
    pytest.param({**OKP, "crv": "Ed448"}, reasons.INVALID_KEY, ".crv", id="Ed448"),
    pytest.param({**OKP, "x": octets(bytes(31))}, reasons.INVALID_KEY, ".x", id="an Ed25519 key of 31 bytes"),
    pytest.param(
        {**OKP, "x": octets((2).to_bytes(32, "little"))}, reasons.INVALID_KEY, ".x", id="no point of edwards25519"
    ),
    pytest.param(
        {**OKP, "x": octets((P25519 + 3).to_bytes(32, "little"))}, reasons.INVALID_KEY, ".x", id="a y beyond the field"
    ),
    *(
        pytest.param({**OKP, "x": octets(point)}, reasons.WEAK_KEY, ".x", id=f"Ed25519 point {place} of small order")
        for place, point in enumerate(small_order_points())
    ),
]


@pytest.mark.parametrize(("value", "reason", "suffix"), REFUSED_JWKS)
def test_a_jwk_is_refused_with_reason_and_field(value: object, reason: str, suffix: str) -> None:
    with pytest.raises(KeyRejected) as caught:
        parse_jwk(value, field=FIELD)
    assert (caught.value.reason, caught.value.field) == (reason, FIELD + suffix)


def test_a_kid_beside_the_key_that_contradicts_it_is_refused() -> None:
    with pytest.raises(KeyRejected) as caught:
        parse_jwk({**OKP, "kid": "one"}, kid="two", field=FIELD)
    assert caught.value.field == f"{FIELD}.kid"


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 8192])
def test_rsa_keys_of_usual_sizes_are_taken(bits: int) -> None:
    # Any number without small factors stands for a modulus here: making a real one of 8192 bits takes seconds.
    candidate = (1 << (bits - 1)) + 1
    small = math.prod(n for n in range(3, 1000, 2) if all(n % d for d in range(3, n, 2)))
    while math.gcd(candidate, small) != 1:
        candidate += 2
    assert parse_jwk({"kty": "RSA", "n": number(candidate), "e": "AQAB"}, field=FIELD).size == bits


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_pem_and_jwk_of_one_key_are_equal(algorithm: str) -> None:
    public = sample_key(algorithm).public
    key = parse_pem(sample_key(algorithm).public_pem().decode(), field=FIELD)
    assert key == public
    assert key.jwk == public.jwk


@pytest.mark.parametrize(
    "dress",
    [
        pytest.param(lambda pem: pem.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(lambda pem: pem.rstrip("\n"), id="no newline at the end"),
        pytest.param(lambda pem: f"\n  {pem}\n\n", id="whitespace around"),
    ],
)
def test_a_pem_may_be_dressed_as_editors_do(dress: Any) -> None:
    pem = sample_key("ES256").public_pem().decode()
    assert parse_pem(dress(pem), kid="named", field=FIELD).kid == "named"


def test_a_pkcs1_public_key_is_read() -> None:
    numbers = rsa.RSAPublicNumbers(65537, RSA_MODULUS).public_key()
    pem = pem_of(numbers, PublicFormat.PKCS1)
    assert "BEGIN RSA PUBLIC KEY" in pem
    assert parse_pem(pem, field=FIELD) == parse_jwk(RSA, field=FIELD)


def edward(y: int) -> ed25519.Ed25519PublicKey:
    return ed25519.Ed25519PublicKey.from_public_bytes(y.to_bytes(32, "little"))


GOOD_PEM = pem_of(rsa.RSAPublicNumbers(65537, RSA_MODULUS).public_key())
SECRET_BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            f"-----BEGIN PRIVATE KEY-----\n{SECRET_BODY}\n-----END PRIVATE KEY-----\n",
            reasons.PRIVATE_KEY,
            id="PKCS #8",
        ),
        pytest.param(
            f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET_BODY}\n-----END RSA PRIVATE KEY-----\n",
            reasons.PRIVATE_KEY,
            id="PKCS #1 private",
        ),
        pytest.param(
            f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{SECRET_BODY}\n-----END ENCRYPTED PRIVATE KEY-----\n",
            reasons.PRIVATE_KEY,
            id="an encrypted one",
        ),
        pytest.param(
            f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET_BODY}\n-----END OPENSSH PRIVATE KEY-----\n",
            reasons.PRIVATE_KEY,
            id="OpenSSH private",
        ),
        pytest.param(
            f"{GOOD_PEM}-----BEGIN PRIVATE KEY-----\n{SECRET_BODY}\n-----END PRIVATE KEY-----\n",
            reasons.PRIVATE_KEY,
            id="a private key after the public one",
        ),
        pytest.param(f"-----BEGIN EC PRIVATE KEY-----\n{SECRET_BODY}", reasons.PRIVATE_KEY, id="a private key cut off"),
        pytest.param(
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", reasons.INVALID_KEY, id="a certificate"
        ),
        pytest.param(GOOD_PEM + GOOD_PEM, reasons.INVALID_KEY, id="two blocks"),
        pytest.param("", reasons.INVALID_KEY, id="nothing"),
        pytest.param("garbage", reasons.INVALID_KEY, id="garbage"),
        pytest.param(f"Subject: me\n{GOOD_PEM}", reasons.INVALID_KEY, id="text before the block"),
        pytest.param(f"{GOOD_PEM}trailer", reasons.INVALID_KEY, id="text after the block"),
        pytest.param(GOOD_PEM.replace("END PUBLIC", "END RSA PUBLIC"), reasons.INVALID_KEY, id="labels that differ"),
        pytest.param(GOOD_PEM.replace("-----END PUBLIC KEY-----", ""), reasons.INVALID_KEY, id="no end"),
        pytest.param(GOOD_PEM.replace("MIIB", "MIIC", 1), reasons.INVALID_KEY, id="damaged DER"),
        pytest.param(
            "-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n", reasons.INVALID_KEY, id="no base64 inside"
        ),
        pytest.param(
            "-----BEGIN PUBLIC KEY-----\n\u00a0AAAA\n-----END PUBLIC KEY-----\n",
            reasons.INVALID_KEY,
            id="whitespace outside ASCII",
        ),
        pytest.param(GOOD_PEM + " " * 20000, reasons.INVALID_KEY, id="too long"),
        pytest.param(
            pem_of(ec.generate_private_key(ec.SECP384R1()).public_key()),
            reasons.INVALID_KEY,
            id="a curve that is not supported",
        ),
        pytest.param(pem_of(x25519.X25519PrivateKey.generate().public_key()), reasons.INVALID_KEY, id="X25519"),
        pytest.param(
            pem_of(dsa.DSAPublicNumbers(5, dsa.DSAParameterNumbers(RSA_MODULUS, 2**255 + 95, 2)).public_key()),
            reasons.INVALID_KEY,
            id="DSA",
        ),
        pytest.param(pem_of(rsa.RSAPublicNumbers(3, RSA_MODULUS).public_key()), reasons.WEAK_KEY, id="the exponent 3"),
        pytest.param(
            pem_of(rsa.RSAPublicNumbers(65537, PLAIN_RSA_1024).public_key()), reasons.WEAK_KEY, id="RSA of 1024 bits"
        ),
        pytest.param(pem_of(edward(1)), reasons.WEAK_KEY, id="Ed25519 of small order"),
        pytest.param(pem_of(edward(2)), reasons.INVALID_KEY, id="no point of edwards25519"),
    ],
)
def test_a_pem_is_refused_with_its_reason_and_never_echoed(text: str, reason: str) -> None:
    with pytest.raises(KeyRejected) as caught:
        parse_pem(text, field=FIELD)
    assert (caught.value.reason, caught.value.field) == (reason, FIELD)
    assert SECRET_BODY not in f"{caught.value!r} {caught.value.description}"


def test_a_certificate_is_refused_with_advice() -> None:
    with pytest.raises(KeyRejected, match="extract its public key"):
        parse_pem("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", field=FIELD)


@pytest.mark.parametrize("kid", ["", "x" * 257, "ü", "a\tb"])
def test_a_pem_with_an_impossible_kid_is_refused(kid: str) -> None:
    with pytest.raises(KeyRejected, match="kid must be"):
        parse_pem(GOOD_PEM, kid=kid, field=FIELD)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
jwk_members = st.sampled_from(
    ["kty", "n", "e", "x", "y", "crv", "use", "alg", "kid", "key_ops", "d", "k", "x5c", "ext"]
)
jwk_values = json_values | st.sampled_from(
    [*RSA.values(), *EC.values(), *OKP.values(), "RS256", "sig", "oct", ["verify"]]
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([RSA, EC, OKP, {}]), st.dictionaries(jwk_members, jwk_values, max_size=4) | json_values)
def test_whatever_is_given_as_a_jwk_is_a_key_or_rejected(base: dict[str, str], change: object) -> None:
    value = {**base, **change} if isinstance(change, dict) else change
    try:
        key = parse_jwk(value, field=FIELD)
    except KeyRejected as error:
        assert error.field.startswith(FIELD)  # noqa: PT017
    else:
        assert isinstance(key, PublicKey)
        assert load(key.jwk) == key


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=200),
    st.integers(0, len(GOOD_PEM)),
    st.integers(0, len(GOOD_PEM)),
    st.booleans(),
)
def test_whatever_is_given_as_a_pem_is_a_key_or_rejected(text: str, start: int, end: int, alone: bool) -> None:
    try:
        key = parse_pem(text if alone else GOOD_PEM[:start] + text + GOOD_PEM[end:], field=FIELD)
    except KeyRejected as error:
        assert error.field == FIELD  # noqa: PT017
    else:
        assert load(key.jwk) == key
