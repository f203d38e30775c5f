"""Public keys: read strictly from a JWK (RFC 7517) or PEM, held prepared, the algorithm pinned to the key."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keyturn.jose import base64url, material
from keyturn.jose.algorithms import PS256, RS256, SYNONYMS
from keyturn.jose.rejection import KeyRejected, invalid, private

__all__ = ["KeyRejected", "PublicKey", "checked_kid", "load", "parse_jwk", "parse_pem", "public_key", "thumbprint"]

MAX_PEM_LENGTH: Final = 16 * 1024
MAX_KID_LENGTH: Final = 256
_MAX_MEMBERS: Final = 32

_KID: Final = re.compile(rf"[\x20-\x7e]{{1,{MAX_KID_LENGTH}}}")
# RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1, RFC 8037 section 2.
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# RFC 7517 sections 4.6 and 4.7, RFC 7515 section 4.1.2: references and certificates would bring in a key that nobody registered.
_REFERENCE_MEMBERS: Final = ("x5u", "x5c", "jku")
_PEM_LABEL: Final = re.compile(r"-----BEGIN ([^\r\n]*?)-----")
_PEM_BLOCK: Final = re.compile(
    r"\s*-----BEGIN ((?:RSA )?PUBLIC KEY)-----[ \t]*\r?\n[A-Za-z0-9+/=\s]+-----END \1-----\s*"
)

_SHA256: Final = SHA256()
_PKCS1: Final = padding.PKCS1v15()
# RFC 7518 section 3.5: the salt is as long as the hash.
_PSS: Final = padding.PSS(mgf=padding.MGF1(_SHA256), salt_length=32)
_ECDSA: Final = ec.ECDSA(_SHA256)

_Check = Callable[[bytes, bytes], None]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key ready to verify.

    `thumbprint`: RFC 7638 with SHA-256, base64url. `size`: bits. `jwk`: normal form, public members with kty, kid, alg, use.
    """

    kid: str
    thumbprint: str
    algorithm: str
    size: int
    jwk: dict[str, str] = field(repr=False, compare=False)
    _check: _Check = field(repr=False, compare=False)

    def verify(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `signing_input`, under this key's own algorithm."""
        try:
            self._check(signature, signing_input)
        except InvalidSignature:
            return False
        return True


def parse_jwk(value: object, *, kid: str | None = None, field: str) -> PublicKey:
    """The key of a JWK that came from outside. `kid` beside the JWK must not contradict the JWK's own; default: the thumbprint.

    Raises KeyRejected, whose `field` begins with the given one.
    """
    if not isinstance(value, Mapping):
        raise invalid("must be a JSON object with one public key (RFC 7517)", field=field)
    # First of all, so that a secret is called one, whatever else is wrong with the object.
    if not _PRIVATE_MEMBERS.isdisjoint(value):
        raise private(
            "contains private key material, which never leaves its owner: register the public part only, and replace this key",
            field=field,
        )
    if len(value) > _MAX_MEMBERS or not all(isinstance(member, str) for member in value):
        raise invalid(f"must have at most {_MAX_MEMBERS} members, named by strings", field=field)
    for member in _REFERENCE_MEMBERS:
        if member in value:
            raise invalid(f"{member} is not supported: give the key itself", field=f"{field}.{member}")
    _check_use(value, field=field)
    own_kid = value.get("kid")
    if own_kid is not None and kid is not None and own_kid != kid:
        raise invalid("kid contradicts the one beside the key: leave one of them out", field=f"{field}.kid")
    key = material.from_members(value, field=field)
    return public_key(
        key,
        kid=checked_kid(own_kid if kid is None else kid, field=f"{field}.kid"),
        algorithm=value.get("alg"),
        field=field,
    )


def parse_pem(text: str, *, kid: str | None = None, field: str) -> PublicKey:
    """The key of one PEM block: SubjectPublicKeyInfo, or a PKCS #1 RSA public key. `kid` defaults to the thumbprint.

    Raises KeyRejected.
    """
    if len(text) > MAX_PEM_LENGTH:
        raise invalid(f"must not exceed {MAX_PEM_LENGTH} characters", field=field)
    if "PRIVATE KEY" in text:
        raise private(
            "contains private key material, which never leaves its owner: register the public part only, and replace this key",
            field=field,
        )
    labels = _PEM_LABEL.findall(text)
    if any("CERTIFICATE" in label for label in labels):
        raise invalid(
            "is a certificate: extract its public key with `openssl x509 -pubkey -noout` and register that", field=field
        )
    if len(labels) > 1:
        raise invalid("must hold exactly one PEM block", field=field)
    if not _PEM_BLOCK.fullmatch(text):
        raise invalid("must be one PEM block of type PUBLIC KEY or RSA PUBLIC KEY, and nothing else", field=field)
    try:
        loaded = load_pem_public_key(text.strip().encode("ascii"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise invalid("the PEM block holds no public key of a supported kind", field=field) from None
    return public_key(material.check(loaded, field=field), kid=checked_kid(kid, field=field), field=field)


def load(jwk: Mapping[str, Any]) -> PublicKey:
    """The key of our own normal form (`PublicKey.jwk`). Checked like any other: raises KeyRejected."""
    return parse_jwk(jwk, field="jwk")


def public_key(
    key: material.PublicKeyObject, *, kid: str | None = None, algorithm: object = None, field: str
) -> PublicKey:
    """A checked key object with its algorithm (default: by kind of key) pinned. Raises KeyRejected."""
    fitting = material.algorithms_for(key)
    # The system that Keyturn replaces writes RSA256 in its examples, which is no name of RFC 7518.
    chosen = fitting[0] if algorithm is None else algorithm
    if isinstance(chosen, str):
        chosen = {"RSA256": RS256, **SYNONYMS}.get(chosen, chosen)
    if not isinstance(chosen, str) or chosen not in fitting:
        raise invalid(f"alg does not fit the key: use {' or '.join(fitting)}", field=f"{field}.alg")
    members = material.members_of(key)
    digest = thumbprint(members)
    name = digest if kid is None else kid
    jwk = {"kty": members["kty"], "kid": name, "alg": chosen, "use": "sig", **members}
    return PublicKey(name, digest, chosen, material.size_of(key), jwk, _pinned(key, chosen))


def thumbprint(members: Mapping[str, str]) -> str:
    """RFC 7638 section 3: SHA-256 over the required members in lexicographic order, without whitespace."""
    required = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}[members["kty"]]
    # Only base64url and fixed names stand here, so nothing needs escaping.
    text = "{" + ",".join(f'"{member}":"{members[member]}"' for member in required) + "}"
    return base64url.encode(hashlib.sha256(text.encode("ascii")).digest()).decode("ascii")


def _check_use(jwk: Mapping[str, Any], *, field: str) -> None:
    # RFC 7517 section 4.2
    if jwk.get("use") not in (None, "sig"):
        raise invalid("use must be sig", field=f"{field}.use")
    # RFC 7517 section 4.3: no operation twice
    operations = jwk.get("key_ops")
    if operations is not None:
        if not isinstance(operations, list) or not all(isinstance(operation, str) for operation in operations):
            raise invalid("key_ops must be a list of strings", field=f"{field}.key_ops")
        if len(set(operations)) != len(operations) or "verify" not in operations:
            raise invalid("key_ops must contain verify, and nothing twice", field=f"{field}.key_ops")


def checked_kid(kid: object, *, field: str) -> str | None:
    """The key id if it is a possible one, or None. Raises KeyRejected."""
    if kid is None:
        return None
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise invalid(f"kid must be a string of 1 to {MAX_KID_LENGTH} printable ASCII characters", field=field)
    return kid


def _pinned(key: material.PublicKeyObject, algorithm: str) -> _Check:
    if isinstance(key, rsa.RSAPublicKey):
        rsa_verify = key.verify
        scheme = _PSS if algorithm == PS256 else _PKCS1
        return lambda signature, data: rsa_verify(signature, data, scheme, _SHA256)
    if isinstance(key, ec.EllipticCurvePublicKey):
        ec_verify = key.verify

        def check(signature: bytes, data: bytes) -> None:
            # RFC 7518 section 3.4: R and S as 32 bytes each.
            if len(signature) != 64:
                raise InvalidSignature
            r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
            ec_verify(encode_dss_signature(r, s), data, _ECDSA)

        return check
    return key.verify
