"""The Nimbus OAuth 2.0 SDK and its JOSE library: metadata, the grant with secrets and keys, and a resource server's verification."""

import pytest

from tests.realclients.service import (
    AUDIENCE,
    CHOSEN_SECRET,
    SECRET,
    Service,
    claims_are_whole,
    key_client,
    private_jwk,
)
from tests.realclients.toolchains import Program

# EdDSA needs a library beside the SDK there.
ALGORITHMS = ("RS256", "PS256", "ES256")


@pytest.mark.parametrize(
    ("method", "client_id", "secret"),
    [
        pytest.param("client_secret_basic", "team.basic", SECRET, id="Basic"),
        pytest.param(
            "client_secret_basic", "team.chosen", CHOSEN_SECRET, id="Basic, with a secret that needs encoding"
        ),
        pytest.param("client_secret_post", "team.post", SECRET, id="the body"),
    ],
)
def test_with_a_secret_nimbus_gets_and_uses_a_token(
    java: Program, service: Service, method: str, client_id: str, secret: str
) -> None:
    result = java.run("grant", issuer=service.issuer, method=method, client_id=client_id, client_secret=secret)
    assert (result.get("status"), result.get("token_type"), result.get("expires_in")) == (200, "Bearer", 900), result
    claims_are_whole(result["info"], service, client_id)


def by_key(place: Service, algorithm: str, **more: str) -> dict[str, object]:
    key = {"method": "private_key_jwt", "key": private_jwk(algorithm), "algorithm": algorithm}
    return {"issuer": place.issuer, "client_id": key_client(algorithm), **key, **more}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_with_a_key_and_the_issuer_as_audience_nimbus_gets_and_uses_a_token(
    java: Program, service: Service, algorithm: str
) -> None:
    result = java.run("grant", **by_key(service, algorithm, audience_claim=service.issuer))
    assert result.get("status") == 200, result
    claims_are_whole(result["info"], service, key_client(algorithm))


def test_with_a_key_by_default_nimbus_gets_a_token_where_the_token_endpoint_counts_as_audience(
    java: Program, lenient: Service
) -> None:
    result = java.run("grant", **by_key(lenient, "RS256"))
    assert result.get("status") == 200, result
    claims_are_whole(result["info"], lenient, key_client("RS256"))


def test_with_a_key_by_default_nimbus_is_refused_where_only_the_issuer_counts(java: Program, service: Service) -> None:
    assert java.run("grant", **by_key(service, "RS256")) == {"error": "invalid_client", "status": 401}


def test_nimbus_narrows_the_scope(java: Program, service: Service) -> None:
    given = {"method": "client_secret_basic", "client_id": "team.basic", "client_secret": SECRET}
    result = java.run("grant", issuer=service.issuer, scope="orders:read", **given)
    assert (result["scope"], result["info"]["permissions"]) == ("orders:read", ["orders:read"])


def test_nimbus_verifies_a_token_from_metadata_and_jwks_alone(java: Program, service: Service) -> None:
    given = {"method": "client_secret_basic", "client_id": "team.basic", "client_secret": SECRET}
    token = java.run("grant", issuer=service.issuer, **given)["access_token"]
    result = java.run("verify", issuer=service.issuer, token=token, audience=AUDIENCE)
    claims_are_whole({**result["payload"], "aud": [AUDIENCE]}, service, "team.basic")


@pytest.mark.parametrize("method", ["client_secret_basic", "private_key_jwt"])
def test_nimbus_introspects_and_revokes_its_token(java: Program, service: Service, method: str) -> None:
    given = by_key(service, "ES256", audience_claim=service.issuer)
    if method == "client_secret_basic":
        given = {"issuer": service.issuer, "method": method, "client_id": "team.basic", "client_secret": SECRET}
    result = java.run("introspectAndRevoke", **given)
    assert (result["before"]["active"], result["revoked"]) == (True, 200)
    claims_are_whole(result["before"], service, str(given["client_id"]))
    assert result["after"] == {"active": False}
