"""The metadata of a running service: each thing that it lists works, and what it does not list is refused."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

import httpx2
import jwt
import pytest

from keyturn.jose.algorithms import SYNONYMS
from keyturn.jose.signing import PrivateKey
from tests.api.conftest import APP, OTHER_KEYS, SECRET, Running
from tests.api.installation import ASSERTION_TYPE, ISSUER, assertion
from tests.api.test_token import basic
from tests.unit.tokens.worlds import encode

pytestmark = pytest.mark.asyncio(loop_scope="session")

OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
ENDPOINTS = ("token", "introspection", "revocation")
METHODS = {"private_key_jwt", "client_secret_basic", "client_secret_post"}
KEYS: Mapping[str, tuple[str, PrivateKey]] = {
    "RS256": ("team.app", APP),
    **{algorithm: (f"team.{algorithm.lower()}", key) for algorithm, key in OTHER_KEYS.items()},
}
# Every member, and the test below that holds it against the service.
EXAMINED = {
    "issuer": "test_its_issuer_is_that_of_its_tokens",
    "jwks_uri": "test_its_issuer_is_that_of_its_tokens",
    "id_token_signing_alg_values_supported": "test_its_issuer_is_that_of_its_tokens",
    "grant_types_supported": "test_a_grant_type_that_is_not_listed_is_refused",
    "response_types_supported": "test_an_endpoint_that_is_not_listed_is_not_there",
    "subject_types_supported": "test_its_issuer_is_that_of_its_tokens",
    **{
        f"{endpoint}_endpoint{more}": "test_every_listed_way_to_authenticate_works_at_every_endpoint"
        for endpoint in ENDPOINTS
        for more in ("", "_auth_methods_supported", "_auth_signing_alg_values_supported")
    },
}


async def read(shared: Running, path: str = OPENID) -> dict[str, Any]:
    answer = await shared.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document: dict[str, Any] = answer.json()
    return document


def place(url: str) -> str:
    """Where the test reaches what the metadata places under the public URL."""
    assert url.startswith(f"{ISSUER}/")
    return url.removeprefix(ISSUER)


def credentials(method: str, algorithm: str = "RS256") -> tuple[dict[str, str], dict[str, str]]:
    """Headers and fields of a client that authenticates in this way."""
    if method == "client_secret_basic":
        return basic("team.secret", SECRET), {}
    if method == "client_secret_post":
        return {}, {"client_id": "team.post", "client_secret": SECRET.decode()}
    if algorithm in SYNONYMS:
        client_id, key = KEYS[SYNONYMS[algorithm]]
        signed_by_hand = encode(key, {"alg": algorithm, "kid": key.kid}, claims_of(client_id)).decode()
        return {}, {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed_by_hand}
    client_id, key = KEYS[algorithm]
    return {}, {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion(key, client_id)}


def claims_of(client_id: str) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": client_id, "sub": client_id, "aud": ISSUER, "jti": str(uuid.uuid4()), "iat": now, "exp": now + 60}


async def ask(shared: Running, path: str, headers: dict[str, str], fields: dict[str, str]) -> httpx2.Response:
    """The endpoint's smallest request."""
    own = {"grant_type": "client_credentials"} if path.endswith("/token") else {"token": "none"}
    return await shared.http.post(path, headers=headers, data=own | fields)


async def test_both_documents_hold_nothing_that_is_not_examined_here(shared: Running) -> None:
    server, openid = await read(shared, OAUTH), await read(shared)
    assert set(openid) == set(EXAMINED)
    assert server.items() <= openid.items()
    assert set(EXAMINED.values()) <= set(globals())


async def test_every_listed_way_to_authenticate_works_at_every_endpoint(shared: Running) -> None:
    document = await read(shared)
    for endpoint in ENDPOINTS:
        path = place(document[f"{endpoint}_endpoint"])
        methods = document[f"{endpoint}_endpoint_auth_methods_supported"]
        algorithms = document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert (set(methods), set(algorithms)) == (METHODS, {*KEYS, *SYNONYMS})
        ways = [credentials(method) for method in methods if method != "private_key_jwt"]
        ways += [credentials("private_key_jwt", algorithm) for algorithm in algorithms]
        for headers, fields in ways:
            answer = await ask(shared, path, headers, fields)
            assert answer.status_code == 200, (path, headers, answer.text)
        assert (await ask(shared, path, {}, {})).status_code == 401


def signed(header: dict[str, Any], secret: bytes) -> str:
    """An assertion under HMAC, or without a signature."""

    def part(value: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    data = part(header) + b"." + part(claims_of("team.app"))
    digest = base64.urlsafe_b64encode(hmac.digest(secret, data, hashlib.sha256)).rstrip(b"=") if secret else b""
    return (data + b"." + digest).decode()


def unlisted_credentials() -> dict[str, dict[str, str]]:
    pem = APP.to_pem().decode()
    assertions = {
        "no signature": signed({"alg": "none", "kid": APP.kid}, b""),
        "client_secret_jwt": signed({"alg": "HS256"}, SECRET),
        "HMAC under the public key": signed({"alg": "HS256", "kid": APP.kid}, json.dumps(APP.public.jwk).encode()),
        **{
            f"the right key under {algorithm}": jwt.encode(claims_of("team.app"), pem, algorithm, {"kid": APP.kid})
            for algorithm in ("RS384", "RS512", "PS256", "PS384", "PS512")
        },
    }
    fields = {
        name: {"client_assertion_type": ASSERTION_TYPE, "client_assertion": value} for name, value in assertions.items()
    }
    saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
    fields["a SAML assertion"] = {"client_assertion_type": saml, "client_assertion": "PHNhbWw+"}
    fields["the client's name alone"] = {"client_id": "team.app"}
    fields["the name of a client with a secret alone"] = {"client_id": "team.secret"}
    return fields


@pytest.mark.parametrize("name", list(unlisted_credentials()))
async def test_a_way_to_authenticate_that_is_not_listed_is_refused_at_every_endpoint(
    shared: Running, name: str
) -> None:
    document = await read(shared)
    for endpoint in ENDPOINTS:
        answer = await ask(shared, place(document[f"{endpoint}_endpoint"]), {}, unlisted_credentials()[name])
        assert answer.status_code in (400, 401)
        assert answer.json()["error"] in ("invalid_client", "invalid_request")


@pytest.mark.parametrize(
    "grant_type",
    [
        *("authorization_code", "refresh_token", "password", "implicit", "CLIENT_CREDENTIALS"),
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:saml2-bearer",
    ],
)
async def test_a_grant_type_that_is_not_listed_is_refused(shared: Running, grant_type: str) -> None:
    assert (await read(shared))["grant_types_supported"] == ["client_credentials"]
    headers, fields = credentials("client_secret_basic")
    answer = await shared.http.post("/oauth/token", headers=headers, data={**fields, "grant_type": grant_type})
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")


@pytest.mark.parametrize(
    "path",
    [
        *("/authorize", "/oauth/authorize", "/userinfo", "/oauth/userinfo", "/oauth/device_authorization"),
        *("/oauth/par", "/oauth/logout", "/oauth/introspection", "/oauth/token/", "/oauth/revoke/x", "/session/end"),
    ],
)
async def test_an_endpoint_that_is_not_listed_is_not_there(shared: Running, path: str) -> None:
    assert (await read(shared))["response_types_supported"] == []
    for method in ("GET", "POST"):
        assert (await shared.http.request(method, path)).status_code == 404


async def test_its_issuer_is_that_of_its_tokens(shared: Running) -> None:
    document = await read(shared)
    headers, fields = credentials("client_secret_basic")
    token = (await ask(shared, place(document["token_endpoint"]), headers, fields)).json()["access_token"]
    keys = jwt.PyJWKSet.from_dict((await shared.http.get(place(document["jwks_uri"]))).json())
    header = jwt.get_unverified_header(token)
    algorithms = document["id_token_signing_alg_values_supported"]
    assert header["alg"] in algorithms
    claims = jwt.decode(token, keys[header["kid"]], algorithms, audience="orders", issuer=document["issuer"])
    # One and the same subject for everybody who reads a token.
    assert document["subject_types_supported"] == ["public"]
    assert claims["sub"] == "team.secret"
