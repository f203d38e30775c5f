import json
import pickle
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from keyturn import reasons
from keyturn.jose import jws, signing
from keyturn.jose.keys import KeyRejected
from tests.sample_keys import ALGORITHMS, SIZES, sample_key

CLAIMS = {"iss": "https://issuer.example", "sub": "a.b", "aud": "https://api.example", "exp": 4102444800, "ü": ["x"]}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_we_sign_an_independent_library_verifies(algorithm: str) -> None:
    key = sample_key(algorithm)
    token = signing.TokenSigner(key, typ="at+jwt").encode(json.dumps(CLAIMS).encode()).decode()
    public = jwt.PyJWK.from_dict(key.public.jwk)
    assert jwt.decode(token, public, algorithms=[algorithm], audience="https://api.example") == CLAIMS
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "at+jwt", "kid": key.kid}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_an_independent_library_signs_we_verify(algorithm: str) -> None:
    key = sample_key(algorithm)
    token = jwt.encode(CLAIMS, key.to_pem().decode(), algorithm=algorithm, headers={"kid": key.kid})
    parsed = jws.parse_compact(token.encode())
    assert parsed.header == {"alg": algorithm, "typ": "JWT", "kid": key.kid}
    assert jws.parse_claims(parsed.payload) == CLAIMS
    assert key.public.verify(parsed.signing_input, parsed.signature)
    assert not sample_key(algorithm, 1).public.verify(parsed.signing_input, parsed.signature)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_key_goes_by_its_thumbprint_and_survives_pem(algorithm: str) -> None:
    key = sample_key(algorithm)
    assert (key.algorithm, key.size, key.kid) == (algorithm, SIZES[algorithm], key.public.thumbprint)
    again = signing.load_pem(key.to_pem(), kid=None, algorithm=algorithm)
    assert again.public == key.public
    assert again.to_pem() == key.to_pem()
    assert key.public.verify(b"input", again.sign(b"input"))


def test_a_private_jwk_signs_like_the_key_and_other_types_have_none() -> None:
    key = sample_key()
    jwk = key.to_private_jwk()
    assert {name: jwk[name] for name in key.public.jwk} == key.public.jwk
    loaded = jwt.PyJWK(jwk).key
    token = jwt.encode(CLAIMS, loaded, algorithm="RS256")
    parsed = jws.parse_compact(token.encode())
    assert key.public.verify(parsed.signing_input, parsed.signature)
    with pytest.raises(TypeError):
        sample_key("ES256").to_private_jwk()


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [("RS256", 1024), ("RS256", 2049), ("RS256", 16384), ("ES256", 384), ("EdDSA", 448), ("HS256", 256), ("", 0)],
)
def test_other_keys_are_not_made(algorithm: str, size: int) -> None:
    with pytest.raises(ValueError, match="cannot make a key"):
        signing.generate(algorithm, size)


def test_a_key_may_keep_the_kid_it_had_elsewhere() -> None:
    key = signing.load_pem(sample_key().to_pem(), kid="kid of old", algorithm="PS256")
    assert (key.kid, key.public.kid, key.algorithm) == ("kid of old", "kid of old", "PS256")


def pem_of(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    pem: bytes = key.private_bytes(Encoding.PEM, form, encryption)
    return pem


def raw_key(algorithm: str = "RS256") -> Any:
    return load_pem_private_key(sample_key(algorithm).to_pem(), None)


def test_pkcs1_sec1_and_encrypted_keys_are_read() -> None:
    for algorithm in ("RS256", "ES256"):
        traditional = pem_of(raw_key(algorithm), PrivateFormat.TraditionalOpenSSL)
        assert signing.load_pem(traditional, algorithm=algorithm).public == sample_key(algorithm).public
        encrypted = pem_of(raw_key(algorithm), password=b"passphrase")
        loaded = signing.load_pem(encrypted, algorithm=algorithm, password=b"passphrase")
        assert loaded.public == sample_key(algorithm).public


REFUSED: list[Any] = [
    pytest.param(b"garbage", "RS256", None, reasons.INVALID_KEY, "holds no private key", id="garbage"),
    pytest.param(b"", "RS256", None, reasons.INVALID_KEY, "holds no private key", id="nothing"),
    pytest.param(b"x" * 40000, "RS256", None, reasons.INVALID_KEY, "must not exceed", id="too long"),
    pytest.param(sample_key().public_pem(), "RS256", None, reasons.INVALID_KEY, "no private key", id="a public key"),
    pytest.param(
        sample_key("ES256").to_pem().replace(b"M", b"N", 1),
        "ES256",
        None,
        reasons.INVALID_KEY,
        "holds no private key",
        id="a damaged key",
    ),
    pytest.param(
        sample_key().to_pem(), "ES256", None, reasons.INVALID_KEY, "alg does not fit", id="another kind of key"
    ),
    pytest.param(sample_key().to_pem(), "HS256", None, reasons.INVALID_KEY, "not supported", id="HS256"),
    pytest.param(
        pem_of(raw_key("ES256"), password=b"right"),
        "ES256",
        b"wrong",
        reasons.INVALID_KEY,
        "password",
        id="wrong password",
    ),
    pytest.param(
        pem_of(raw_key("ES256"), password=b"right"), "ES256", None, reasons.INVALID_KEY, "missing", id="no password"
    ),
    pytest.param(
        sample_key("ES256").to_pem(), "ES256", b"right", reasons.INVALID_KEY, "leave", id="a password without need"
    ),
    pytest.param(
        pem_of(rsa.generate_private_key(65537, 1024)), "RS256", None, reasons.WEAK_KEY, "shorter", id="RSA of 1024 bits"
    ),
    pytest.param(
        pem_of(rsa.generate_private_key(3, 2048)), "RS256", None, reasons.WEAK_KEY, "exponent", id="the exponent 3"
    ),
    pytest.param(
        pem_of(ec.generate_private_key(ec.SECP384R1())), "ES256", None, reasons.INVALID_KEY, "P-256", id="P-384"
    ),
    pytest.param(
        pem_of(x25519.X25519PrivateKey.generate()), "EdDSA", None, reasons.INVALID_KEY, "must be RSA", id="X25519"
    ),
]


@pytest.mark.parametrize(("pem", "algorithm", "password", "reason", "words"), REFUSED)
def test_a_private_key_is_refused_with_its_reason_and_never_echoed(
    pem: bytes, algorithm: str, password: bytes | None, reason: str, words: str
) -> None:
    with pytest.raises(KeyRejected, match=words) as caught:
        signing.load_pem(pem, algorithm=algorithm, password=password, field="spec.importFrom")
    assert (caught.value.reason, caught.value.field) == (
        reason,
        "spec.importFrom" + (".alg" if words[:3] == "alg" else ""),
    )
    for line in pem.decode().splitlines()[1:-1]:
        assert line not in f"{caught.value!r}{caught.value.description}"


def test_no_repr_holds_material_and_no_key_can_be_pickled() -> None:
    key = sample_key()
    private_number = raw_key().private_numbers().d
    shown = f"{key!r} {key} {signing.TokenSigner(key, typ='JWT')!r} {key.public!r}"
    assert "PRIVATE" not in shown
    assert str(private_number) not in shown
    assert len(shown) < 600
    with pytest.raises(TypeError):
        pickle.dumps(key)
