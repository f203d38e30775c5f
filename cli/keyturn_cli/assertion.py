"""The client assertion: a JWT that a client signs with its private key instead of sending a secret (RFC 7523)."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Final

from keyturn.jose.signing import TokenSigner

if TYPE_CHECKING:
    from keyturn.jose.signing import PrivateKey

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFETIME_SECONDS: Final = 60


def make_assertion(key: PrivateKey, *, client_id: str, issuer: str, now: float) -> str:
    """A compact JWS that is good for one token request until `now` + 60 s. `now`: epoch seconds."""
    issued_at = int(now)
    claims = {
        # RFC 7523 §3: for client authentication both iss and sub are the client id.
        "iss": client_id,
        "sub": client_id,
        # The issuer as the only value: with more, one server could replay the assertion at another.
        "aud": issuer,
        "jti": secrets.token_urlsafe(16),
        "iat": issued_at,
        "exp": issued_at + LIFETIME_SECONDS,
    }
    return TokenSigner(key, typ="JWT").encode(json.dumps(claims, separators=(",", ":")).encode()).decode("ascii")
