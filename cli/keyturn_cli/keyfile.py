"""Reading a client's private key from a file or from stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyturn.jose.keys import KeyRejected
from keyturn.jose.signing import PrivateKey, load_pem

from .errors import CommandError, Exit

MAX_BYTES: Final = 16 * 1024
STDIN: Final = "-"
MAKE_ONE: Final = "`keyturn keygen NAME` makes a key pair."


def read_private_key(source: str, *, kid: str | None) -> PrivateKey:
    """The key in the PEM file `source` (`-`: stdin); `kid` defaults to the RFC 7638 thumbprint, as at registration.

    Raises:
        CommandError: nothing to read, or no private key that Keyturn's servers take. The content is never shown.
    """
    pem = read_bounded(source)
    try:
        return load_pem(pem, kid=kid, algorithm=algorithm_of(pem, source))
    except KeyRejected as error:
        raise CommandError(
            f"The key in {shown(source)} can't be used: {error.description}.", MAKE_ONE, Exit.USAGE
        ) from None


def read_bounded(source: str) -> bytes:
    try:
        if source == STDIN:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(source).open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise CommandError(
            f"{shown(source)} can't be read: {error.strerror or 'unknown cause'}.",
            f"Check --key; {MAKE_ONE}",
            Exit.USAGE,
        ) from None
    if len(content) > MAX_BYTES:
        raise CommandError(f"{shown(source)} is too long for a private key.", f"Check --key; {MAKE_ONE}", Exit.USAGE)
    return content


def algorithm_of(pem: bytes, source: str) -> str:
    """The JWA name that the key signs with (RFC 7518 §3.1, RFC 8037 §3.1)."""
    # `from None` throughout: what a parser says of a key may quote it.
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise CommandError(
            f"The key in {shown(source)} is protected by a passphrase.",
            "Pipe it in unprotected: `openssl pkey -in FILE | keyturn token --key - …`.",
            Exit.USAGE,
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CommandError(
            f"{shown(source)} holds no private key in PEM.", f"Check --key; {MAKE_ONE}", Exit.USAGE
        ) from None
    match key:
        case RSAPrivateKey():
            return "RS256"
        case EllipticCurvePrivateKey(curve=SECP256R1()):
            return "ES256"
        case Ed25519PrivateKey():
            return "EdDSA"
        case _:
            raise CommandError(
                f"The key in {shown(source)} is of a kind that the server takes no assertions from.",
                f"RSA, P-256 and Ed25519 keys are taken; {MAKE_ONE}",
                Exit.USAGE,
            )


def shown(source: str) -> str:
    return "stdin" if source == STDIN else source
