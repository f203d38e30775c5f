"""The reference's two ways of making clients, row by row."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx2
import pytest

from tests.cluster.contract import test_authorization_service, test_token_service
from tests.cluster.contract.conftest import AUDIENCES, PERMISSIONS, Contract, claims_of
from tests.cluster.contract.rows import AUTHORIZATION_SERVICE, SETTINGS, TOKEN_SERVICE, row
from tests.cluster.portal import Portal, Registered, bearer
from tests.documents import PROJECT
from tests.sample_keys import sample_key
from tests.unit.docs.test_migration_page import SETTINGS as REFERENCE_SETTINGS

KEY = sample_key("RS256", 502)


@pytest.fixture(scope="module")
def portal(contract: Contract) -> Portal:
    return Portal(contract.world)


def public_key() -> dict[str, Any]:
    """The JWK as the reference's documentation shows it: kid, use, kty, alg, n, e."""
    members = {name: KEY.public.jwk[name] for name in ("kid", "use", "kty", "n", "e")}
    return {**members, "alg": "RSA256"}


@row("POST /register")
def test_client_name_token_endpoint_auth_method_and_public_key_make_a_client(portal: Portal) -> None:
    body = {
        "client_name": "A portal's client",
        "token_endpoint_auth_method": "private_key_jwt",
        "public_key": public_key(),
    }
    answer = portal.register(body)
    told = answer.json()
    assert answer.status_code == 201
    assert abs(told["client_id_issued_at"] - time.time()) < 60
    assert "client_secret" not in told
    registered = Registered(portal.world, told, KEY)
    assert registered.object()["spec"]["clientName"] == "A portal's client"
    # The answer comes when the client counts.
    assert registered.grant().status_code == 200


@row("POST /register")
def test_without_a_method_it_is_client_secret_basic_and_the_secret_is_shown_once(portal: Portal) -> None:
    registered = portal.with_secret(client_name="With a secret")
    told = registered.told
    assert (told["token_endpoint_auth_method"], told["client_secret_expires_at"]) == ("client_secret_basic", 0)
    assert registered.grant().status_code == 200
    assert "client_secret" not in registered.read().json()


@row("POST /register")
def test_the_new_client_has_no_permissions_and_no_audience(portal: Portal, contract: Contract) -> None:
    registered = portal.with_key(KEY, scope="orders:read", permissions=["admin"], audience=["orders"])
    claims = claims_of(registered.access_token())
    assert (claims["permissions"], claims["aud"]) == ([], [contract.issuer])


@row("POST /register")
def test_standard_members_too_and_a_real_object_in_the_cluster(portal: Portal) -> None:
    standard = {"client_uri": "https://portal.example/7", "contacts": ["team@shop.example"], "software_id": "report"}
    registered = portal.with_key(KEY, client_name="Standard", **standard)
    assert {name: registered.told[name] for name in standard} == standard
    assert registered.object()["kind"] == "ClientCredential"


@row("the JWK's alg")
def test_rsa256_of_a_registered_key_is_answered_as_rs256(portal: Portal) -> None:
    answer = portal.register({"token_endpoint_auth_method": "private_key_jwt", "public_key": public_key()})
    assert [key["alg"] for key in answer.json()["jwks"]["keys"]] == ["RS256"]
    assert "RSA256" not in answer.text


CLIENT = {"token_endpoint_auth_method": "private_key_jwt", "permissions": PERMISSIONS, "audience": AUDIENCES}


@pytest.fixture(scope="module")
def caller(portal: Portal) -> str:
    """A Kubernetes token of an internal caller that may create ClientCredentials."""
    return portal.caller("contract-caller", "create")


@row("POST /clients")
def test_permissions_audience_state_and_metadata_are_taken_from_internal_callers(portal: Portal, caller: str) -> None:
    more = {"__STATE__": "PUBLIC", "metadata": {"ticket": "REQ-7"}, "client_name": "Internal"}
    answer = portal.clients({**CLIENT, "public_key": public_key(), **more}, caller)
    assert answer.status_code == 201, answer.text
    registered = Registered(portal.world, answer.json(), KEY)
    claims = claims_of(registered.access_token())
    assert (claims["permissions"], claims["aud"]) == (PERMISSIONS, AUDIENCES)
    assert "REQ-7" in registered.object()["metadata"]["annotations"].values()


@row("POST /clients")
@pytest.mark.parametrize("state", ["DRAFT", "TRASH"])
def test_a_client_that_is_not_public_gets_no_token(portal: Portal, caller: str, state: str) -> None:
    answer = portal.clients({**CLIENT, "public_key": public_key(), "__STATE__": state}, caller)
    assert answer.status_code == 201, answer.text
    registered = Registered(portal.world, answer.json(), KEY)
    assert registered.object()["spec"]["suspended"] is True
    assert registered.grant().status_code == 401


@row("POST /clients")
def test_a_client_with_state_deleted_is_not_made_at_all(portal: Portal, caller: str) -> None:
    def names() -> set[str]:
        return {one["metadata"]["name"] for one in portal.world.objects.all("clientcredentials")}

    before = names()
    answer = portal.clients({**CLIENT, "public_key": public_key(), "__STATE__": "DELETED"}, caller)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    assert names() == before


@row("POST /clients")
def test_a_caller_without_the_right_in_kubernetes_is_refused(portal: Portal) -> None:
    body = {**CLIENT, "public_key": public_key()}
    assert portal.clients(body, None).status_code == 401
    assert portal.clients(body, portal.caller("contract-stranger")).status_code == 403
    assert portal.post("/register", body, None).status_code == 401


@row("POST /register")
def test_the_initial_access_token_is_not_asked_for_where_registration_is_open(contract: Contract) -> None:
    """As the reference has it, by a setting."""
    installation = contract.world.installation
    state = installation.state
    url = contract.at(
        registration="open",
        namespace=installation.namespace,
        kubernetes_url=(state / "api-server.url").read_text(encoding="utf-8"),
        kubernetes_token_file=str(state / "api.token"),
        kubernetes_ca_file=str(state / "api-server.crt"),
    )
    answer = httpx2.post(f"{url}/register", json={"client_name": "Anybody"}, trust_env=False, timeout=30)
    assert answer.status_code == 201, answer.text
    assert answer.json()["client_secret"]
    read = httpx2.get(
        answer.json()["registration_client_uri"], headers=bearer(answer.json()["registration_access_token"])
    )
    assert read.status_code == 200


def test_every_row_of_both_tables_is_walked() -> None:
    marks = [
        mark.args[0]
        for members in (vars(test_authorization_service), vars(test_token_service), globals())
        for one in members.values()
        for mark in getattr(one, "pytestmark", ())
        if mark.name == "contract"
    ]
    assert set(marks) == {*TOKEN_SERVICE, *AUTHORIZATION_SERVICE}


def test_every_setting_of_the_reference_is_shown_by_a_running_process() -> None:
    assert SETTINGS.keys() == REFERENCE_SETTINGS
    for setting, (module, shown) in SETTINGS.items():
        text = (PROJECT / "tests" / module).read_text(encoding="utf-8")
        there = rf"^(async )?def {shown}\(" if shown.startswith("test_") else rf'^@shows\([^)]*"{shown}"'
        assert re.search(there, text, re.MULTILINE), f"{setting}: nothing shows {shown} in {module}"
