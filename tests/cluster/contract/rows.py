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

_HERE = "cluster/contract/test_token_service.py"
_API = "api/test_settings.py"
_IMPORT = (
    "cluster/test_signing_key_rotation.py",
    "test_an_encrypted_key_of_the_service_before_is_adopted_and_then_rotated",
)
# Each setting of the reference by where a running process shows ours: the module, and in it a test, or what `@shows` names.
SETTINGS = {
    "SERVICE_PREFIX": (_HERE, "test_service_prefix_stands_in_front_of_every_endpoint"),
    "MIA_JWT_EXPIRES_IN": (_HERE, "test_jwt_expires_in_says_how_long_a_token_lives"),
    "REQUIRED_AUDIENCE_IN_TOKEN_REQUEST": (
        _HERE,
        "test_the_audience_is_required_where_required_audience_in_token_request_is_set",
    ),
    "ACCEPTED_AUDIENCES": (_HERE, "test_tokeninfo_checks_aud_against_accepted_audiences"),
    "OPENID_CONFIG_PATH": (_HERE, "test_a_file_adds_to_them_and_breaks_nothing_required"),
    "CLOCK_SKEW_SECONDS": (_HERE, "test_clock_skew_seconds_counts_for"),
    "MIA_JWT_ISSUER": (_API, "ISSUER"),
    "LOG_LEVEL": (_API, "LOG_LEVEL"),
    "HTTP_PORT": (_API, "HTTP_PORT"),
    "DELAY_SHUTDOWN_SECONDS": (_API, "SHUTDOWN_DELAY"),
    "CLIENT_SECRET_HASH_COST": (_API, "BCRYPT_COST"),
    # The two stores' settings become one URL.
    "CRUD_CLIENT_BASE_URL": (_API, "STORE_URL"),
    "REDIS_*": (_API, "STORE_URL"),
    # A key of the service before is imported.
    "PRIVATE_RSA_KEY_FILE_PATH": _IMPORT,
    "PRIVATE_KEY_PASSWORD": _IMPORT,
    "PRIVATE_RSA_KEY_ID": _IMPORT,
}


def row(name: str) -> pytest.MarkDecorator:
    """Marks a test with the row that it walks."""
    assert name in TOKEN_SERVICE + AUTHORIZATION_SERVICE, name
    return pytest.mark.contract(name)
