"""Public keys for specs, made once a run: nobody has their private halves."""

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyturn.jose.keys import public_key


@cache
def _public(name: str) -> ed25519.Ed25519PublicKey:
    return ed25519.Ed25519PrivateKey.generate().public_key()


def jwk(name: str, *, kid: str | None = None) -> dict[str, Any]:
    """The key of this name as a JWK; `kid` is the name unless given."""
    return dict(public_key(_public(name), kid=name if kid is None else kid, field="jwk").jwk)


def pem(name: str) -> str:
    """The same key as PEM."""
    return _public(name).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
