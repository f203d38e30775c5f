"""The reference's token service, row by row."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx2
import jwt
import pytest

from keyturn_dev.waiting import wait_until
from tests.cluster.contract.conftest import AUDIENCES, PERMISSIONS, SECRET, Contract, claims_of
from tests.cluster.contract.rows import row

BASIC = {"grant_type": "client_credentials"}


def basic(contract: Contract, secret: str = SECRET) -> Any:
    return (quote_plus(f"{contract.world.namespace}.contract-secret"), quote_plus(secret))


@row("the JWK's alg")
def test_a_key_whose_alg_is_written_rsa256_counts_as_rs256_and_is_never_written_so(contract: Contract) -> None:
    assert contract.post(contract.form()).status_code == 200
    status = contract.world.objects.get("clientcredentials", "contract")["status"]
    assert [key["algorithm"] for key in status["keys"]] == ["RS256"]
    for path in ("/.well-known/jwks.json", "/.well-known/openid-configuration"):
        assert "RSA256" not in contract.get(path).text


@row("POST /oauth/token with a secret")
def test_a_form_with_grant_type_and_audience_and_the_secret_in_basic_gets_a_token(contract: Contract) -> None:
    answer = contract.post({**BASIC, "audience": AUDIENCES[0]}, auth=basic(contract))
    assert answer.status_code == 200
    assert claims_of(answer.json()["access_token"])["aud"] == [AUDIENCES[0]]


@row("POST /oauth/token with a secret")
def test_the_audience_is_required_where_required_audience_in_token_request_is_set(contract: Contract) -> None:
    url = contract.at(require_audience="true")
    refused = contract.post(BASIC, auth=basic(contract), url=url)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
    assert contract.post({**BASIC, "audience": AUDIENCES[0]}, auth=basic(contract), url=url).status_code == 200
    assert contract.post(BASIC, auth=basic(contract)).status_code == 200


@row("POST /oauth/token with a secret")
@pytest.mark.parametrize(
    ("fields", "audience", "permissions"),
    [
        pytest.param({"audience": AUDIENCES}, AUDIENCES, PERMISSIONS, id="audience may repeat"),
        pytest.param({"resource": AUDIENCES[1]}, [AUDIENCES[1]], PERMISSIONS, id="also RFC 8707 resource"),
        pytest.param({"scope": PERMISSIONS[0]}, AUDIENCES, [PERMISSIONS[0]], id="scope narrows the permissions"),
    ],
)
def test_beyond_the_reference(
    contract: Contract, fields: dict[str, Any], audience: list[str], permissions: list[str]
) -> None:
    answer = contract.post({**BASIC, **fields}, auth=basic(contract))
    assert answer.status_code == 200
    claims = claims_of(answer.json()["access_token"])
    assert (claims["aud"], claims["permissions"]) == (audience, permissions)


@row("POST /oauth/token with private_key_jwt")
@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param((), id="with everything that the reference asks for"),
        pytest.param(("token_endpoint_auth_method",), id="without token_endpoint_auth_method"),
        pytest.param(
            ("client_id", "token_endpoint_auth_method"), id="without client_id and token_endpoint_auth_method"
        ),
    ],
)
def test_client_assertion_type_and_client_assertion_get_a_token(contract: Contract, left_out: tuple[str, ...]) -> None:
    fields = {"client_id": contract.client.client_id, "token_endpoint_auth_method": "private_key_jwt"}
    form = contract.form(**{name: value for name, value in fields.items() if name not in left_out})
    assert contract.post(form).status_code == 200


@row("the assertion")
def test_the_assertion_with_every_claim_of_the_reference_counts_once(contract: Contract) -> None:
    client = contract.client
    now = int(time.time())
    claims = {
        "iss": client.client_id,
        "sub": client.client_id,
        "aud": contract.issuer,
        "jti": "c7f1b8a2",
        "exp": now + 60,
        "iat": now,
        "requested_audiences": [AUDIENCES[0]],
    }
    header = {"kid": client.key.kid, "typ": "JWT"}
    signed = jwt.encode(claims, client.key.to_pem().decode(), "RS256", header)
    assert claims_of(contract.token(signed=signed))["aud"] == [AUDIENCES[0]]
    replayed = contract.post(contract.form(signed))
    assert (replayed.status_code, replayed.json()["error"]) == (401, "invalid_client")


@row("the assertion")
@pytest.mark.parametrize(
    ("claims", "told"),
    [
        pytest.param({"sub": "another"}, "sub", id="iss is not sub"),
        pytest.param({"aud": "https://another.example"}, "aud", id="aud is another issuer"),
        pytest.param({"aud": ["ISSUER", "https://another.example"]}, "aud", id="the issuer is not the only aud"),
        pytest.param({"aud": "ISSUER/oauth/token"}, "aud", id="aud is the token endpoint's URL"),
        pytest.param({"jti": ""}, "jti", id="no jti"),
        pytest.param({"exp": 1}, "expired", id="it has expired"),
    ],
)
def test_an_assertion_is_refused_where(contract: Contract, claims: dict[str, Any], told: str) -> None:
    filled = json.loads(json.dumps(claims).replace("ISSUER", contract.issuer))
    answer = contract.post(contract.form(contract.client.assertion(**filled)))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert told in answer.json()["error_description"]


@row("the assertion")
def test_the_token_endpoints_url_is_accepted_by_a_setting(contract: Contract) -> None:
    url = contract.at(token_endpoint_as_audience="true")
    signed = contract.client.assertion(aud=f"{contract.issuer}/oauth/token")
    assert contract.post(contract.form(signed), url=url).status_code == 200


@row("the assertion")
def test_other_claims_are_copied_only_if_listed_and_override_nothing(contract: Contract) -> None:
    given: dict[str, Any] = {
        "tenant": "t7",
        "colour": "red",
        "permissions": ["admin"],
        "client_id": "another",
        "scope": "admin",
    }
    claims = claims_of(contract.token(signed=contract.client.assertion(**given)))
    assert claims["tenant"] == "t7"
    assert "colour" not in claims
    assert (claims["permissions"], claims["client_id"]) == (PERMISSIONS, contract.client.client_id)


@row("clock skew")
@pytest.mark.parametrize(
    ("claims", "status"),
    [
        pytest.param({"iat": 40}, 200, id="iat ahead within it"),
        pytest.param({"nbf": 40}, 200, id="nbf ahead within it"),
        pytest.param({"exp": -40}, 200, id="exp past within it"),
        pytest.param({"iat": 90}, 401, id="iat ahead beyond it"),
        pytest.param({"nbf": 90}, 401, id="nbf ahead beyond it"),
        pytest.param({"exp": -90}, 401, id="exp past beyond it"),
    ],
)
def test_clock_skew_seconds_counts_for(contract: Contract, claims: dict[str, Any], status: int) -> None:
    url = contract.at(clock_skew_seconds="60")
    now = int(time.time())
    signed = contract.client.assertion(**{name: now + ahead for name, ahead in claims.items()})
    assert contract.post(contract.form(signed), url=url).status_code == status


@row("failures")
@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        pytest.param({}, 400, "invalid_request", id="no grant_type"),
        pytest.param({"grant_type": "password"}, 400, "unsupported_grant_type", id="another grant"),
        pytest.param({"grant_type": "client_credentials"}, 401, "invalid_client", id="no authentication"),
        pytest.param({"assert": True, "scope": "admin"}, 400, "invalid_scope", id="a permission not held"),
        pytest.param({"assert": True, "audience": "foreign"}, 400, "invalid_target", id="an audience not held"),
        pytest.param({"assert": True, "client_secret": "x"}, 400, "invalid_request", id="two ways at once"),
    ],
)
def test_a_failure_is_answered_by_rfc_6749(contract: Contract, form: dict[str, Any], status: int, error: str) -> None:
    given = dict(form)
    answer = contract.post(contract.form(**given) if given.pop("assert", False) else given)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["error_description"]
    assert ("www-authenticate" in answer.headers) == (status == 401)


@row("failures")
def test_a_wrong_pair_of_id_and_secret_is_401(contract: Contract) -> None:
    answer = contract.post(BASIC, auth=basic(contract, "wrong"))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic ")


@row("answer")
@pytest.mark.parametrize("scope", [None, "orders:read"])
def test_the_answer_is_access_token_token_type_bearer_and_expires_in(contract: Contract, scope: str | None) -> None:
    answer = contract.post(contract.form() if scope is None else contract.form(scope=scope))
    body = answer.json()
    assert (answer.status_code, body["token_type"], body["expires_in"]) == (200, "Bearer", 900)
    assert body.get("scope") == scope
    assert set(body) == {"access_token", "token_type", "expires_in"} | ({"scope"} if scope else set())
    assert answer.headers["cache-control"] == "no-store"


@row("the access token")
@pytest.mark.parametrize(("setting", "typ"), [({}, "at+jwt"), ({"token_typ": "JWT"}, "JWT")])
def test_the_access_token_has_alg_typ_kid_and_the_references_claims_and_those_of_rfc_9068(
    contract: Contract, setting: dict[str, str], typ: str
) -> None:
    token = contract.token(url=contract.at(**setting))
    header, claims = jwt.get_unverified_header(token), claims_of(token)
    assert (header["alg"], header["typ"]) == ("RS256", typ)
    kids = [key["kid"] for key in contract.get("/.well-known/jwks.json").json()["keys"]]
    assert header["kid"] in kids
    client_id = contract.client.client_id
    assert (claims["iss"], claims["sub"], claims["client_id"]) == (contract.issuer, client_id, client_id)
    assert (claims["permissions"], claims["aud"], claims["scope"]) == (PERMISSIONS, AUDIENCES, " ".join(PERMISSIONS))
    assert claims["exp"] - claims["iat"] == 900
    assert claims["jti"]


@row("the access token")
def test_a_token_without_kid_is_invalid(contract: Contract) -> None:
    ring = contract.world.objects.get("secrets", "keyturn")["data"]
    keyring = json.loads(base64.b64decode(ring["keyring.json"]))
    active = next(key for key in keyring["keys"] if key["phase"] == "Active")
    pem = base64.b64decode(ring[active["file"]]).decode()
    claims = claims_of(contract.token())
    with_kid = jwt.encode(claims, pem, "RS256", {"kid": active["kid"], "typ": "at+jwt"})
    without = jwt.encode(claims, pem, "RS256", {"typ": "at+jwt"})
    assert contract.get("/tokeninfo", token=with_kid).status_code == 200
    assert contract.get("/tokeninfo", token=without).status_code == 401


@row("lastLogin")
def test_the_last_token_shows_in_the_objects_status_and_200_tokens_write_nothing(contract: Contract) -> None:
    objects = contract.world.objects

    def versions() -> dict[str, str]:
        """Of everything in the namespace that the installation may write, but for the Lease, which tells that the operator lives."""
        return {
            f"{plural}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
            for plural in ("clientcredentials", "signingkeys", "accessrules", "secrets", "events")
            for one in objects.all(plural)
        }

    contract.token()

    def told() -> Any:
        return objects.get("clientcredentials", "contract")["status"].get("lastTokenIssuedAt")

    wait_until(lambda: told() is not None, "the status to tell of a token", seconds=30)
    seen = [versions()]

    def is_quiet() -> bool:
        """Nothing is left to write of what other tests have done."""
        time.sleep(2)
        seen.append(versions())
        return seen[-1] == seen[-2]

    wait_until(is_quiet, "the installation to have nothing to write", seconds=60)
    first, before = told(), seen[-1]
    assert any(name.startswith("clientcredentials/") for name in before)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: contract.token(), range(200)))) == 200
    time.sleep(2)
    assert told() == first
    assert versions() == before


@row("jwks.json and openid-configuration")
def test_the_documents_are_generated_and_name_what_is_there(contract: Contract) -> None:
    document = contract.get("/.well-known/openid-configuration").json()
    assert (document["issuer"], document["token_endpoint"]) == (contract.issuer, f"{contract.issuer}/oauth/token")
    keys = httpx2.get(document["jwks_uri"], trust_env=False).json()["keys"]
    assert {"kid", "kty", "alg", "use", "n", "e"} <= set(keys[0])
    assert not {"d", "p", "q"} & set(keys[0])


@row("jwks.json and openid-configuration")
def test_a_file_adds_to_them_and_breaks_nothing_required(contract: Contract, tmp_path: Path) -> None:
    added = {"op_policy_uri": "https://example.com/policy", "issuer": "https://another.example", "jwks_uri": 7}
    (tmp_path / "openid.json").write_text(json.dumps(added), encoding="utf-8")
    url = contract.at(openid_config_path=str(tmp_path / "openid.json"))
    document = contract.get("/.well-known/openid-configuration", url=url).json()
    assert document["op_policy_uri"] == "https://example.com/policy"
    assert (document["issuer"], document["jwks_uri"]) == (contract.issuer, f"{contract.issuer}/.well-known/jwks.json")


@row("GET /tokeninfo")
def test_tokeninfo_answers_200_with_the_claims_and_401_otherwise(contract: Contract) -> None:
    token = contract.token()
    assert contract.get("/tokeninfo", token=token).json() == claims_of(token)
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {token[:-3]}AAA"}):
        assert contract.get("/tokeninfo", headers=headers).status_code == 401


@row("GET /tokeninfo")
def test_tokeninfo_checks_aud_against_accepted_audiences(contract: Contract) -> None:
    url = contract.at(accepted_audiences=AUDIENCES[0])
    assert contract.get("/tokeninfo", url=url, token=contract.token(audience=AUDIENCES[0])).status_code == 200
    assert contract.get("/tokeninfo", url=url, token=contract.token(audience=AUDIENCES[1])).status_code == 401


@row("GET /tokeninfo")
@pytest.mark.parametrize("change", ["deleted", "suspended", "expired"])
def test_the_token_of_a_client_is_refused_once_that_is(contract: Contract, change: str) -> None:
    client = contract.world.client(f"contract-{change}").apply(permissions=PERMISSIONS)
    token = client.token()
    assert contract.get("/tokeninfo", token=token).status_code == 200
    if change == "deleted":
        client.delete()
    else:
        client.patch(**({"suspended": True} if change == "suspended" else {"expiresAt": "2026-01-01T00:00:00Z"}))
    wait_until(
        lambda: contract.get("/tokeninfo", token=token).status_code == 401, f"a {change} client's token", seconds=5
    )
    assert client.request().status_code == 401


@row("GET /tokeninfo")
def test_permissions_taken_from_the_client_since_issuance_are_gone_from_the_answer(contract: Contract) -> None:
    client = contract.world.client("contract-narrowed").apply(permissions=PERMISSIONS)
    token = client.token()
    client.patch(permissions=PERMISSIONS[:1])
    wait_until(
        lambda: contract.get("/tokeninfo", token=token).json()["permissions"] == PERMISSIONS[:1],
        "the permission to be gone",
        seconds=5,
    )
    assert claims_of(token)["permissions"] == PERMISSIONS


@row("settings")
def test_service_prefix_stands_in_front_of_every_endpoint(contract: Contract) -> None:
    url = contract.at(service_prefix="/oauth2")
    token = contract.token(url=f"{url}/oauth2")
    assert contract.get("/oauth2/tokeninfo", url=url, token=token).status_code == 200
    assert contract.get("/oauth2/.well-known/jwks.json", url=url).status_code == 200
    assert contract.auth("/contract/orders", url=f"{url}/oauth2", token=token).status_code == 200
    assert contract.get("/tokeninfo", url=url, token=token).status_code == 404


@row("settings")
def test_jwt_expires_in_says_how_long_a_token_lives(contract: Contract) -> None:
    answer = contract.post(contract.form(), url=contract.at(token_lifetime="120"))
    assert answer.json()["expires_in"] == 120
