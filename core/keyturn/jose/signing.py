"""Private keys: made, loaded, and used to sign. Their material shows in no repr and no message."""

from collections.abc import Callable
from typing import Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from keyturn.jose import base64url, keys, material
from keyturn.jose.algorithms import ALGORITHMS, EDDSA, ES256, GENERATED_SIZES, PS256
from keyturn.jose.rejection import KeyRejected, invalid

__all__ = ["KeyRejected", "PrivateKey", "TokenSigner", "generate", "load_pem"]

PrivateKeyObject = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_MAX_PEM_BYTES: Final = 32 * 1024
_SHA256: Final = SHA256()


class PrivateKey:
    """A private key ready to sign, its algorithm pinned. Compares by identity; pickles and copies are refused by its key object."""

    __slots__ = ("_key", "_sign", "public")

    def __init__(self, key: PrivateKeyObject, public: keys.PublicKey) -> None:
        self._key = key
        self._sign = _pinned(key, public.algorithm)
        self.public = public

    @property
    def kid(self) -> str:
        """The key id that stands in the header of what it signs."""
        return self.public.kid

    @property
    def algorithm(self) -> str:
        """The one algorithm that it signs with."""
        return self.public.algorithm

    @property
    def size(self) -> int:
        """Its size in bits."""
        return self.public.size

    def sign(self, signing_input: bytes) -> bytes:
        """The JWS signature over `signing_input` (RFC 7518 section 3, RFC 8037 section 3.1)."""
        return self._sign(signing_input)

    def to_pem(self) -> bytes:
        """The key in PKCS #8 PEM, not encrypted: for Secrets only."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def to_private_jwk(self) -> dict[str, str]:
        """The key as a JSON Web Key with its private members (RFC 7518 section 6.3.2), RSA only: for Secrets only. Raises TypeError."""
        if not isinstance(self._key, rsa.RSAPrivateKey):
            raise TypeError("only RSA keys are written as private JWK")
        numbers = self._key.private_numbers()
        private = {
            "d": numbers.d,
            "p": numbers.p,
            "q": numbers.q,
            "dp": numbers.dmp1,
            "dq": numbers.dmq1,
            "qi": numbers.iqmp,
        }
        return {**self.public.jwk, **{name: material.base64url_uint(value) for name, value in private.items()}}

    def public_pem(self) -> bytes:
        """The public half as SubjectPublicKeyInfo in PEM."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def __repr__(self) -> str:
        return f"<PrivateKey kid={self.kid!r} algorithm={self.algorithm!r} size={self.size}>"


class TokenSigner:
    """Makes compact JWS under one key and one `typ`. The header is encoded once."""

    __slots__ = ("_header", "_key")

    def __init__(self, key: PrivateKey, *, typ: str) -> None:
        self._key = key
        self._header = base64url.encode(orjson.dumps({"alg": key.algorithm, "typ": typ, "kid": key.kid})) + b"."

    @property
    def kid(self) -> str:
        """The key id in the header of what it signs."""
        return self._key.kid

    def encode(self, claims: bytes) -> bytes:
        """The compact JWS (RFC 7515 section 3.1) of these claims, which are JSON already."""
        signing_input = self._header + base64url.encode(claims)
        return b"%b.%b" % (signing_input, base64url.encode(self._key.sign(signing_input)))

    def __repr__(self) -> str:
        return f"<TokenSigner kid={self._key.kid!r}>"


def generate(algorithm: str, size: int) -> PrivateKey:
    """A new key whose kid is its thumbprint. Takes from a millisecond to seconds (RSA): never call it on an event loop.

    Raises ValueError for an algorithm or size (bits) that Keyturn does not make.
    """
    if size not in GENERATED_SIZES.get(algorithm, ()):
        raise ValueError(f"cannot make a key of {size} bits for this algorithm")
    key: PrivateKeyObject
    if algorithm == ES256:
        key = ec.generate_private_key(ec.SECP256R1())
    elif algorithm == EDDSA:
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=size)
    return PrivateKey(key, keys.public_key(key.public_key(), algorithm=algorithm, field="key"))


def load_pem(
    pem: bytes, *, kid: str | None = None, algorithm: str, password: bytes | None = None, field: str = "key"
) -> PrivateKey:
    """The private key of a PEM (PKCS #8, PKCS #1, SEC 1), checked like a public one. `kid` defaults to the thumbprint.

    Raises KeyRejected; its text never quotes the PEM.
    """
    if algorithm not in ALGORITHMS:
        raise invalid("the algorithm is not supported", field=field)
    if len(pem) > _MAX_PEM_BYTES:
        raise invalid(f"must not exceed {_MAX_PEM_BYTES} bytes", field=field)
    try:
        key = load_pem_private_key(pem, password)
    except TypeError:
        # What `cryptography` raises when a password is missing, and when one is given without need.
        raise invalid(
            "the private key is encrypted: its password is missing"
            if password is None
            else "the private key is not encrypted: leave the password out",
            field=field,
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise invalid(
            "holds no private key in PEM of a supported kind, or the password is wrong", field=field
        ) from None
    if not isinstance(key, PrivateKeyObject):
        raise invalid("the key must be RSA, EC on P-256, or Ed25519", field=field)
    checked = material.check(key.public_key(), field=field)
    public = keys.public_key(checked, kid=keys.checked_kid(kid, field=field), algorithm=algorithm, field=field)
    return PrivateKey(key, public)


def _pinned(key: PrivateKeyObject, algorithm: str) -> Callable[[bytes], bytes]:
    if isinstance(key, rsa.RSAPrivateKey):
        rsa_sign = key.sign
        # RFC 7518 section 3.5: the salt is as long as the hash.
        scheme = padding.PSS(padding.MGF1(_SHA256), salt_length=32) if algorithm == PS256 else padding.PKCS1v15()
        return lambda data: rsa_sign(data, scheme, _SHA256)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        ec_sign, scheme_ec = key.sign, ec.ECDSA(_SHA256)

        def sign(data: bytes) -> bytes:
            # RFC 7518 section 3.4: R and S as 32 bytes each.
            r, s = decode_dss_signature(ec_sign(data, scheme_ec))
            return r.to_bytes(32) + s.to_bytes(32)

        return sign
    return key.sign
