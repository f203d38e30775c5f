"""The rows of the reference's contract, and which test walks which."""

from __future__ import annotations

import pytest

TOKEN_SERVICE = (
    "POST /register",
    "the JWK's alg",
    "POST /clients",
    "POST /oauth/token with a secret",
    "POST /oauth/token with private_key_jwt",
    "the assertion",
    "clock skew",
    "failures",
    "answer",
    "the access token",
    "lastLogin",
    "jwks.json and openid-configuration",
    "GET /tokeninfo",
    "settings",
)
AUTHORIZATION_SERVICE = (
    "endpoint",
    "input",
    "rules",
    "match",
    "expression",
    "who is asking",
    "answers, strict",
    "answers, not strict",
    "headers to the upstream",
    "trusted headers mode",
)


def row(name: str) -> pytest.MarkDecorator:
    """Marks a test with the row that it walks."""
    assert name in TOKEN_SERVICE + AUTHORIZATION_SERVICE, name
    return pytest.mark.contract(name)
