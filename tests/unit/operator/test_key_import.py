"""The key of the service that is replaced, as people have it in a Secret."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from keyturn_operator.key_import import ImportRefused, read_import
from keyturn_operator.kube.client import Object
from keyturn_operator.signing_key_spec import ImportSource

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PASSPHRASE = b"correct horse"
SOURCE = ImportSource("old-keys", "private.pem", None, "old-kid")
WITH_PASSPHRASE = ImportSource("old-keys", "private.pem", "passphrase", "old-kid")
PLAIN = NoEncryption()


def pem(form: PrivateFormat = PrivateFormat.PKCS8, encryption: KeySerializationEncryption = PLAIN) -> bytes:
    return KEY.private_bytes(Encoding.PEM, form, encryption)


def secret(**members: bytes) -> Object:
    data = {name.replace("_", "."): base64.b64encode(value).decode() for name, value in members.items()}
    return {"metadata": {"name": "old-keys"}, "data": data}


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL], ids=["PKCS #8", "PKCS #1"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["as it is", "encrypted"])
def test_a_key_in_pem_keeps_its_kid(form: PrivateFormat, encrypted: bool) -> None:
    encryption = BestAvailableEncryption(PASSPHRASE) if encrypted else PLAIN
    held = secret(private_pem=pem(form, encryption), passphrase=PASSPHRASE + b"\n")
    key = read_import(WITH_PASSPHRASE if encrypted else SOURCE, held, algorithm="RS256")
    assert (key.kid, key.algorithm, key.size) == ("old-kid", "RS256", 2048)
    assert b"ENCRYPTED" not in key.to_pem()


@pytest.mark.parametrize(("asked", "made"), [("PS256", "PS256"), ("ES256", "RS256"), ("RS256", "RS256")])
def test_it_signs_with_what_is_asked_for_where_it_can(asked: str, made: str) -> None:
    assert read_import(SOURCE, secret(private_pem=pem()), algorithm=asked).algorithm == made


def test_without_a_kid_it_has_its_thumbprint() -> None:
    source = ImportSource("old-keys", "private.pem", None, None)
    key = read_import(source, secret(private_pem=pem()), algorithm="RS256")
    assert key.kid == key.public.thumbprint


ENCRYPTED = pem(PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE))
PUBLIC = KEY.public_key()


@pytest.mark.parametrize(
    ("source", "held", "reason", "word"),
    [
        pytest.param(SOURCE, None, "SecretNotFound", "old-keys", id="no Secret"),
        pytest.param(SOURCE, secret(other=b"x"), "ImportFailed", "private.pem", id="no such member"),
        pytest.param(
            SOURCE, {"data": {"private.pem": "%"}}, "ImportFailed", "private.pem", id="a member not in base64"
        ),
        pytest.param(SOURCE, secret(private_pem=b"no key"), "ImportFailed", "private.pem", id="no PEM"),
        pytest.param(SOURCE, secret(private_pem=ENCRYPTED), "ImportFailed", "password", id="no passphrase"),
        pytest.param(
            WITH_PASSPHRASE,
            secret(private_pem=ENCRYPTED, passphrase=b"guess-1"),
            "ImportFailed",
            "password",
            id="a wrong one",
        ),
        pytest.param(
            WITH_PASSPHRASE,
            secret(private_pem=pem(), passphrase=b"x"),
            "ImportFailed",
            "not encrypted",
            id="one too many",
        ),
        pytest.param(
            WITH_PASSPHRASE, secret(private_pem=ENCRYPTED), "ImportFailed", "passphrase", id="its member is absent"
        ),
    ],
)
def test_what_cannot_be_adopted_is_said_without_a_value(
    source: ImportSource, held: Object | None, reason: str, word: str
) -> None:
    with pytest.raises(ImportRefused) as caught:
        read_import(source, held, algorithm="RS256")
    verdict = caught.value.verdict
    assert (verdict.status, verdict.reason) == ("False", reason)
    assert word in verdict.message
    for hidden in ("correct horse", "guess-1", "PRIVATE"):
        assert hidden not in verdict.message


def test_a_weak_key_is_refused() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    held = secret(private_pem=weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN))
    with pytest.raises(ImportRefused, match="2048"):
        read_import(SOURCE, held, algorithm="RS256")
