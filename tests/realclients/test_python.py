"""Authlib and requests-oauthlib get tokens; PyJWT verifies them as a resource server does."""

from typing import Any

import jwt
import pytest
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from oauthlib.oauth2 import BackendApplicationClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as RequestsOAuth2Session

from tests.realclients.service import (
    AUDIENCE,
    PERMISSIONS,
    SECRET,
    Service,
    claims_are_whole,
    joserfc_key,
    key_client,
    key_of,
)
from tests.sample_keys import ALGORITHMS

# Authlib, too, writes the name of RFC 9864.
NAMES = {"EdDSA": "Ed25519"}


def authlib_session(place: Service, *arguments: Any, **options: Any) -> Any:
    return trusting(OAuth2Session(*arguments, **options), place)


def trusting(session: Any, place: Service) -> Any:
    session.verify = str(place.trust.authority)
    # What the machine's environment says of certificates and proxies would win.
    session.trust_env = False
    return session


def tokeninfo(session: Any, place: Service) -> dict[str, Any]:
    answer = session.get(f"{place.issuer}/tokeninfo")
    assert answer.status_code == 200, answer.text
    info = answer.json()
    assert isinstance(info, dict)
    return info


@pytest.mark.parametrize(
    ("client_id", "options"),
    [
        pytest.param("team.basic", {}, id="by default"),
        pytest.param("team.basic", {"token_endpoint_auth_method": "client_secret_basic"}, id="in Basic"),
        pytest.param("team.post", {"token_endpoint_auth_method": "client_secret_post"}, id="in the body"),
    ],
)
def test_with_a_secret_authlib_gets_and_uses_a_token(service: Service, client_id: str, options: dict[str, str]) -> None:
    with authlib_session(service, client_id, SECRET, **options) as session:
        token = session.fetch_token(service.token_endpoint, grant_type="client_credentials")
        assert (token["token_type"], token["expires_in"]) == ("Bearer", 900)
        claims_are_whole(tokeninfo(session, service), service, client_id)


def by_key(place: Service, algorithm: str, method: PrivateKeyJWT) -> Any:
    key = key_of(algorithm).to_pem().decode() if algorithm == "RS256" else joserfc_key(algorithm)
    options = {"token_endpoint_auth_method": "private_key_jwt"}
    session = authlib_session(place, key_client(algorithm), key, **options)
    session.register_client_auth_method(method)
    return session


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_with_a_key_and_the_issuer_as_audience_authlib_gets_and_uses_tokens(service: Service, algorithm: str) -> None:
    with by_key(service, algorithm, PrivateKeyJWT(service.issuer, alg=NAMES.get(algorithm, algorithm))) as session:
        session.fetch_token(service.token_endpoint, grant_type="client_credentials")
        claims_are_whole(tokeninfo(session, service), service, key_client(algorithm))
        # A new assertion each time.
        assert session.fetch_token(service.token_endpoint, grant_type="client_credentials")["access_token"]


def test_authlibs_claims_give_the_audience_too_for_one_token(service: Service) -> None:
    """They stay as they are from one token to the next, the jti that Authlib puts into them included."""
    method = PrivateKeyJWT(service.token_endpoint, claims={"aud": service.issuer})
    with by_key(service, "RS256", method) as session:
        session.fetch_token(service.token_endpoint, grant_type="client_credentials")
        claims_are_whole(tokeninfo(session, service), service, key_client("RS256"))


def test_with_a_key_by_default_authlib_gets_a_token_where_the_token_endpoint_counts_as_audience(
    lenient: Service,
) -> None:
    with by_key(lenient, "RS256", PrivateKeyJWT(lenient.token_endpoint)) as session:
        session.fetch_token(lenient.token_endpoint, grant_type="client_credentials")
        claims_are_whole(tokeninfo(session, lenient), lenient, key_client("RS256"))


def test_with_a_key_by_default_authlib_is_refused_where_only_the_issuer_counts(service: Service) -> None:
    session = by_key(service, "RS256", PrivateKeyJWT(service.token_endpoint))
    with session, pytest.raises(OAuthError, match="invalid_client"):
        session.fetch_token(service.token_endpoint, grant_type="client_credentials")


def test_authlib_narrows_the_scope(service: Service) -> None:
    with authlib_session(service, "team.basic", SECRET, scope="orders:read") as session:
        token = session.fetch_token(service.token_endpoint, grant_type="client_credentials")
        assert token["scope"] == "orders:read"
        assert tokeninfo(session, service)["permissions"] == ["orders:read"]


@pytest.mark.parametrize(
    ("client_id", "how"),
    [
        pytest.param("team.basic", {"auth": HTTPBasicAuth("team.basic", SECRET)}, id="in Basic"),
        pytest.param("team.basic", {"client_id": "team.basic", "client_secret": SECRET}, id="by default"),
        pytest.param("team.post", {"client_secret": SECRET, "include_client_id": True}, id="in the body"),
    ],
)
def test_requests_oauthlib_gets_and_uses_a_token(service: Service, client_id: str, how: dict[str, Any]) -> None:
    with RequestsOAuth2Session(client=BackendApplicationClient(client_id=client_id)) as session:
        trusting(session, service)
        token = session.fetch_token(token_url=service.token_endpoint, **how)
        assert token["token_type"] == "Bearer"
        claims_are_whole(tokeninfo(session, service), service, client_id)


def test_requests_oauthlib_names_an_audience(service: Service) -> None:
    with RequestsOAuth2Session(client=BackendApplicationClient(client_id="team.basic")) as session:
        trusting(session, service)
        auth = HTTPBasicAuth("team.basic", SECRET)
        session.fetch_token(token_url=service.token_endpoint, auth=auth, audience=AUDIENCE)
        assert tokeninfo(session, service)["aud"] == [AUDIENCE]


@pytest.mark.parametrize("document", ["oauth-authorization-server", "openid-configuration"])
def test_pyjwt_verifies_a_token_from_metadata_and_jwks_alone(service: Service, document: str) -> None:
    with authlib_session(service, "team.basic", SECRET) as session:
        token = session.fetch_token(service.token_endpoint, grant_type="client_credentials")["access_token"]
    place = f"{service.issuer}/.well-known/{document}"
    metadata = requests.get(place, verify=str(service.trust.authority), timeout=10).json()
    keys = jwt.PyJWKClient(metadata["jwks_uri"], ssl_context=service.client_context())
    key = keys.get_signing_key_from_jwt(token)
    claims = jwt.decode_complete(token, key, audience=AUDIENCE, issuer=metadata["issuer"], algorithms=["RS256"])
    assert claims["header"]["typ"] == "at+jwt"
    assert claims["payload"]["permissions"] == PERMISSIONS


@pytest.mark.parametrize("how", ["client_secret_basic", "private_key_jwt"])
def test_authlib_introspects_and_revokes_its_token(service: Service, how: str) -> None:
    if how == "private_key_jwt":
        session, client_id = by_key(service, "RS256", PrivateKeyJWT(service.issuer)), key_client("RS256")
        # Its documented way for the endpoints besides the token endpoint.
        session.revocation_endpoint_auth_method = how
    else:
        session, client_id = authlib_session(service, "team.basic", SECRET), "team.basic"
    with session:
        token = session.fetch_token(service.token_endpoint, grant_type="client_credentials")["access_token"]
        place = f"{service.issuer}/oauth/introspect"
        before = session.introspect_token(place, token=token, token_type_hint="access_token").json()
        assert before["active"] is True
        claims_are_whole(before, service, client_id)
        revoked = session.revoke_token(f"{service.issuer}/oauth/revoke", token=token, token_type_hint="access_token")
        assert revoked.status_code == 200
        assert session.introspect_token(place, token=token).json() == {"active": False}
