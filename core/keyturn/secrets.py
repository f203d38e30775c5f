"""Hashes of client secrets: bcrypt for those that people chose, a fast salted hash for those that we made of 256 random bits.

Nothing here keeps or shows a secret: errors say what is wrong with it, never what it is.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import Final

import bcrypt

# bcrypt reads 72 bytes and no more: a longer secret would be cut, and two different ones taken for the same.
MAX_SECRET_BYTES: Final = 72
DEFAULT_COST: Final = 10
MIN_COST: Final = 4

_GENERATED: Final = "$keyturn-sha256$"
_SALT_BYTES: Final = 16
_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}", re.ASCII)
_ANY_BCRYPT: Final = re.compile(r"\$2[aby]\$([0-3][0-9])\$[./A-Za-z0-9]{53}", re.ASCII)


class UnusableSecret(ValueError):
    """A secret that cannot be hashed safely; the text says why, without the secret."""


def hash_secret(secret: bytes, cost: int = DEFAULT_COST) -> str:
    """The bcrypt hash of a secret that a person chose. Takes about 50 ms at cost 10: never on an event loop. Raises UnusableSecret."""
    _check(secret)
    return bcrypt.hashpw(secret, bcrypt.gensalt(rounds=cost)).decode("ascii")


def hash_generated(secret: bytes) -> str:
    """The salted SHA-256 of a secret with at least 256 bits of randomness, where slow hashing adds nothing. Raises UnusableSecret."""
    _check(secret)
    salt = os.urandom(_SALT_BYTES)
    return f"{_GENERATED}{_encode(salt)}${_encode(hashlib.sha256(salt + secret).digest())}"


def verify(secret: bytes, hashed: str) -> bool:
    """Whether the secret is the one that was hashed, in time that does not depend on where they differ. False for a damaged hash."""
    if not secret or len(secret) > MAX_SECRET_BYTES:
        return False
    if hashed.startswith(_GENERATED):
        salt, _, digest = hashed.removeprefix(_GENERATED).partition("$")
        try:
            return hmac.compare_digest(hashlib.sha256(_decode(salt) + secret).digest(), _decode(digest))
        except binascii.Error:
            return False
    try:
        return bcrypt.checkpw(secret, hashed.encode("ascii"))
    except ValueError:
        return False


def is_generated_hash(text: str) -> bool:
    """Whether this is a whole hash of `hash_generated`."""
    salt, dollar, digest = text.removeprefix(_GENERATED).partition("$")
    try:
        sizes = (len(_decode(salt)), len(_decode(digest)))
    except binascii.Error:
        return False
    return text.startswith(_GENERATED) and bool(dollar) and sizes == (_SALT_BYTES, hashlib.sha256().digest_size)


def is_foreign_hash(text: str) -> bool:
    """Whether this is a whole bcrypt hash that another system made: of a cost that is neither idle nor a burden (4 to 14)."""
    return _BCRYPT.fullmatch(text) is not None


def is_slow(hashed: str) -> bool:
    """Whether verifying takes long enough to need the bounded pool."""
    return not hashed.startswith(_GENERATED)


def bcrypt_cost(hashed: str) -> int:
    """The cost of a bcrypt hash: with each step hashing takes twice the time. 0 where this is no whole bcrypt hash."""
    whole = _ANY_BCRYPT.fullmatch(hashed)
    return 0 if whole is None else int(whole[1])


def _check(secret: bytes) -> None:
    if not secret:
        raise UnusableSecret("is empty")
    if len(secret) > MAX_SECRET_BYTES:
        raise UnusableSecret(f"has more than {MAX_SECRET_BYTES} bytes")


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii", "replace") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
