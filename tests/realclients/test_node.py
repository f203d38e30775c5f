"""openid-client and jose on Node.js: discovery, the grant with a secret and with a key, and a resource server's verification."""

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
from tests.sample_keys import ALGORITHMS


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [
        pytest.param("team.post", SECRET, id="as we make it"),
        pytest.param("team.chosen-post", CHOSEN_SECRET, id="as people choose it"),
    ],
)
def test_with_a_secret_by_default_openid_client_gets_and_uses_a_token(
    node: Program, service: Service, client_id: str, secret: str
) -> None:
    result = node.run("grant", issuer=service.issuer, client_id=client_id, client_secret=secret)
    assert (result["status"], result["token_type"]) == (200, "bearer")
    claims_are_whole(result["info"], service, client_id)


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [
        pytest.param("team.basic", SECRET, id="as we make it"),
        pytest.param("team.chosen", CHOSEN_SECRET, id="as people choose it"),
    ],
)
def test_with_a_secret_in_basic_openid_client_gets_and_uses_a_token(
    node: Program, service: Service, client_id: str, secret: str
) -> None:
    result = node.run("grantByBasic", issuer=service.issuer, client_id=client_id, client_secret=secret)
    assert result["status"] == 200
    claims_are_whole(result["info"], service, client_id)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_with_a_key_by_default_openid_client_gets_and_uses_a_token(
    node: Program, service: Service, algorithm: str
) -> None:
    result = node.run(
        "grant",
        issuer=service.issuer,
        client_id=key_client(algorithm),
        key=private_jwk(algorithm),
        algorithm=algorithm,
    )
    assert result["status"] == 200
    claims_are_whole(result["info"], service, key_client(algorithm))


def test_the_older_name_of_ed25519_works_in_openid_client_too(node: Program, service: Service) -> None:
    key = {"key": private_jwk("EdDSA"), "algorithm": "EdDSA", "rename_ed25519": True}
    result = node.run("grant", issuer=service.issuer, client_id=key_client("EdDSA"), **key)
    assert result["status"] == 200


def test_openid_client_narrows_scope_and_names_a_resource(node: Program, service: Service) -> None:
    wanted = {"scope": "orders:read", "resource": AUDIENCE}
    result = node.run("grant", issuer=service.issuer, client_id="team.post", client_secret=SECRET, parameters=wanted)
    assert result["scope"] == "orders:read"
    assert (result["info"]["permissions"], result["info"]["aud"]) == (["orders:read"], [AUDIENCE])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param(
            {"client_secret": "wrong"},
            # It looks at the challenge first, and makes an error of it.
            {"kind": "WWWAuthenticateChallengeError", "status": 401, "challenges": 1},
            id="a wrong secret",
        ),
        pytest.param(
            {"client_secret": SECRET, "parameters": {"scope": "admin"}},
            {"kind": "ResponseBodyError", "status": 400, "error": "invalid_scope"},
            id="a permission not held",
        ),
    ],
)
def test_openid_client_understands_a_refusal(
    node: Program, service: Service, given: dict[str, object], told: dict[str, object]
) -> None:
    assert node.run("refusal", issuer=service.issuer, client_id="team.post", **given) == told


def test_with_the_token_endpoint_as_audience_openid_client_is_refused_unless_the_setting_is_on(
    node: Program, service: Service, lenient: Service
) -> None:
    def given(place: Service) -> dict[str, object]:
        key = {"key": private_jwk("ES256"), "algorithm": "ES256", "audience_claim": place.token_endpoint}
        return {"issuer": place.issuer, "client_id": key_client("ES256"), **key}

    assert node.run("refusal", **given(service))["status"] == 401
    assert node.run("grant", **given(lenient))["status"] == 200


def test_jose_verifies_a_token_from_metadata_and_jwks_alone(node: Program, service: Service) -> None:
    token = node.run("grant", issuer=service.issuer, client_id="team.post", client_secret=SECRET)["access_token"]
    result = node.run("verify", issuer=service.issuer, token=token, audience=AUDIENCE)
    claims_are_whole(result["payload"], service, "team.post")
    assert result["protectedHeader"]["typ"] == "at+jwt"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"client_id": "team.post", "client_secret": SECRET}, id="with a secret"),
        pytest.param(
            {"client_id": key_client("ES256"), "key": private_jwk("ES256"), "algorithm": "ES256"}, id="with a key"
        ),
    ],
)
def test_openid_client_introspects_and_revokes_its_token(
    node: Program, service: Service, given: dict[str, object]
) -> None:
    result = node.run("introspectAndRevoke", issuer=service.issuer, **given)
    assert result["before"]["active"] is True
    claims_are_whole(result["before"], service, str(given["client_id"]))
    assert result["after"] == {"active": False}
