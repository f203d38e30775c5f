"""Clients that register themselves: `/register`, their own management of it, approval, and `/clients` for internal callers."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx2
import pytest

from keyturn_dev.waiting import wait_until
from tests.cluster.clients import World, as_object
from tests.cluster.portal import Portal, Registered, audit_lines, bearer, new_key
from tests.manifests import private_jwk_members, public_jwk
from tests.sample_keys import sample_key

MEMBERS: dict[str, Any] = {
    "client_name": "Orders report",
    "client_uri": "https://portal.example/apps/7",
    "contacts": ["team@shop.example"],
    "software_id": "Report Maker/7",
    "software_version": "2.0",
}


@pytest.fixture(scope="module")
def portal(world: World) -> Portal:
    return Portal(world)


def names_of(world: World, *selector: str) -> set[str]:
    listed = world.kubectl("get", "cc", "-o=name", *selector).split()
    return {one.rpartition("/")[2] for one in listed}


@pytest.mark.parametrize("replica", [0, 1])
def test_a_token_can_be_had_from_every_replica_right_after_the_201(portal: Portal, replica: int) -> None:
    registered = portal.with_key()
    assert registered.grant(replica).status_code == 200
    with_secret = portal.with_secret()
    assert with_secret.grant(replica).status_code == 200


def test_the_answer_is_the_references_with_the_members_of_the_rfcs(portal: Portal, world: World) -> None:
    key = sample_key("RS256", 1)
    jwk = {**key.public.jwk, "alg": "RSA256"}
    answer = portal.register({**MEMBERS, "token_endpoint_auth_method": "private_key_jwt", "public_key": jwk})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    told = as_object(answer)
    assert abs(told.pop("client_id_issued_at") - time.time()) < 60
    assert re.fullmatch(rf"{world.namespace}\.r-[0-9a-f]{{32}}", told["client_id"])
    assert told.pop("registration_access_token").startswith("ktr_")
    assert told == {
        "client_id": told["client_id"],
        "registration_client_uri": f"{world.installation.url}/register/{told['client_id']}",
        "token_endpoint_auth_method": "private_key_jwt",
        "grant_types": ["client_credentials"],
        "response_types": [],
        "jwks": {"keys": [dict(key.public.jwk)]},
        **MEMBERS,
    }


def test_without_a_method_a_secret_is_made_and_shown_once(portal: Portal, world: World) -> None:
    registered = portal.with_secret(client_name="Secretive")
    told = registered.told
    assert told["token_endpoint_auth_method"] == "client_secret_basic"
    assert told["client_secret_expires_at"] == 0
    assert len(told["client_secret"]) >= 43
    (kept,) = registered.secrets()
    assert (kept["type"], kept["immutable"]) == ("keyturn.dev/registration", True)
    assert set(kept["data"]) == {"client_secret_hash", "registration_token_hash"}
    assert kept["metadata"]["ownerReferences"][0]["uid"] == registered.object()["metadata"]["uid"]
    everything = world.kubectl("get", "cc,secrets,events", "-o=yaml")
    logs = "".join(path.read_text(errors="replace") for path in world.installation.state.glob("logs/*"))
    for planted in (told["client_secret"], registered.token, world.installation.registration_token):
        assert planted not in everything
        assert planted not in logs
    again = registered.read()
    assert "client_secret" not in again.json()


def test_the_object_tells_who_came_when_with_what_and_asks_for_what(portal: Portal) -> None:
    key = new_key(portal.world)
    asked = {"scope": "orders:read orders:write", "audience": ["orders"], "permissions": ["admin"]}
    registered = portal.with_key(key, **MEMBERS, **asked, client_id="chosen-by-me")
    obj = registered.object()
    labels, annotations, spec = obj["metadata"]["labels"], obj["metadata"]["annotations"], obj["spec"]
    assert {name.removeprefix("keyturn.dev/"): value for name, value in labels.items()} == {
        "registered": "true",
        "approval": "pending",
        "registered-on": time.strftime("%Y-%m-%d", time.gmtime()),
        "software-id": "Report-Maker-7",
        "software-version": "2.0",
    }
    assert annotations["keyturn.dev/created-by"] == "initial-access-token/dev"
    assert registered.name != "chosen-by-me"
    assert spec["registration"]["requested"] == {
        "permissions": ["orders:read", "orders:write", "admin"],
        "audiences": ["orders"],
    }
    assert not {"permissions", "audiences", "clientId", "allowedCustomClaims"} & set(spec)
    info = portal.world.replicas[0].token_info(registered.access_token()).json()
    assert info["permissions"] == []
    assert info["aud"] == [portal.world.installation.url]


def test_what_waits_for_approval_is_listed_until_something_is_granted(portal: Portal, world: World) -> None:
    registered = portal.with_key()
    pending = ("-l", "keyturn.dev/approval=pending")
    assert registered.name in names_of(world, *pending)
    before = registered.access_token()
    world.kubectl("patch", "cc", registered.name, "--type=merge", "-p", '{"spec":{"permissions":["orders:read"]}}')

    def granted() -> bool:
        return bool(world.replicas[1].token_info(registered.access_token(1)).json()["permissions"] == ["orders:read"])

    wait_until(granted, "the permission in new tokens", seconds=10)
    assert world.replicas[0].token_info(before).json()["permissions"] == [], "an old token gains nothing"
    wait_until(lambda: registered.name not in names_of(world, *pending), "the label to follow", seconds=15)
    assert registered.name in names_of(world, "-l", "keyturn.dev/approval=granted,keyturn.dev/registered=true")
    world.kubectl("patch", "cc", registered.name, "--type=merge", "-p", '{"spec":{"permissions":null}}')
    world.objects.wait_for("clientcredentials", registered.name)
    assert registered.object()["metadata"]["labels"]["keyturn.dev/approval"] == "granted", (
        "once approved it never expires"
    )


def test_a_client_reads_changes_and_deletes_its_registration(portal: Portal, world: World) -> None:
    old, new = new_key(world), new_key(world)
    client = portal.with_key(old, **MEMBERS)
    read = client.read()
    assert read.status_code == 200
    assert {name: one for name, one in read.json().items() if name != "scope"} == client.told

    both = {"keys": [dict(old.public.jwk), dict(new.public.jwk)]}
    first = client.put(client_name="Renamed", jwks=both)
    assert first.status_code == 200, first.text
    told = as_object(first)
    assert told["client_name"] == "Renamed"
    assert not {"contacts", "client_uri", "software_id"} & set(told), "what is not sent again is gone"
    former, client.told = client.token, told
    assert client.token != former
    assert client.read(former).status_code == 401
    assert [client.grant(key=key).status_code for key in (old, new)] == [200, 200], "both while both are sent"

    second = client.put(client_name="Renamed", jwks={"keys": [dict(new.public.jwk)]})
    assert second.status_code == 200, second.text
    client.told = as_object(second)
    assert [client.grant(replica, key=new).status_code for replica in (0, 1)] == [200, 200]
    assert client.grant(key=old).status_code == 401

    client.key = new
    token = client.access_token()
    assert client.delete().status_code == 204
    assert world.replicas[0].token_info(token).status_code == 401
    wait_until(lambda: world.replicas[1].token_info(token).status_code == 401, "the other replica to know", seconds=5)
    assert client.read().status_code == 401
    assert client.delete().status_code == 401
    assert client.name not in names_of(world)
    wait_until(lambda: client.secrets() == [], "the Secrets to follow their owner", seconds=30)


def test_a_client_with_a_secret_keeps_it_over_an_update(portal: Portal) -> None:
    client = portal.with_secret(client_name="A")
    secret = client.told["client_secret"]
    changed = client.put(client_name="B", client_secret=secret)
    assert changed.status_code == 200, changed.text
    assert "client_secret" not in changed.json()
    assert client.grant().status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        pytest.param({"client_id": "another"}, 400, "invalid_request", id="another client's id"),
        pytest.param({"client_secret": "chosen"}, 400, "invalid_request", id="a secret of its own choice"),
        pytest.param({"registration_access_token": "x"}, 400, "invalid_request", id="what the server decides"),
        pytest.param({"client_id_issued_at": 1}, 400, "invalid_request", id="its time of birth"),
        pytest.param(
            {"token_endpoint_auth_method": "client_secret_basic"}, 400, "invalid_client_metadata", id="another method"
        ),
        pytest.param({"jwks": {"keys": []}}, 400, "invalid_client_metadata", id="no key at all"),
        pytest.param({"jwks": None}, 400, "invalid_client_metadata", id="keys left out"),
        pytest.param(
            {"jwks": {"keys": [{**public_jwk("p"), **private_jwk_members()}]}},
            *(400, "invalid_client_metadata"),
            id="a private key",
        ),
    ],
)
def test_an_update_that_is_wrong_changes_nothing(
    portal: Portal, change: dict[str, Any], status: int, error: str
) -> None:
    client = portal.with_key()
    assert client.key is not None
    answer = client.put(**{"jwks": {"keys": [dict(client.key.public.jwk)]}, **change})
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert "d" not in answer.json()["error_description"].split()
    assert client.read().json() == client.told
    assert client.grant().status_code == 200


def test_an_update_grants_nothing(portal: Portal) -> None:
    client = portal.with_key()
    assert client.key is not None
    keys = {"keys": [dict(client.key.public.jwk)]}
    changed = client.put(jwks=keys, scope="admin", permissions=["admin"], audience="x", __STATE__="PUBLIC")
    assert changed.status_code == 200, changed.text
    spec = client.object()["spec"]
    assert not {"permissions", "audiences", "suspended"} & set(spec)
    assert "requested" not in spec["registration"]


def test_a_suspended_client_manages_nothing_any_more(portal: Portal, world: World) -> None:
    client = portal.with_key()
    assert client.key is not None
    world.kubectl("patch", "cc", client.name, "--type=merge", "-p", '{"spec":{"suspended":true}}')
    wait_until(lambda: client.read().status_code == 403, "the suspension to count", seconds=10)
    assert client.put(jwks={"keys": [dict(client.key.public.jwk)]}).status_code == 403
    assert client.delete().status_code == 403
    assert client.object()["spec"]["suspended"] is True


def test_nobody_manages_anothers_registration(portal: Portal) -> None:
    mine, other = portal.with_key(), portal.with_key()
    for answer in (other.read(mine.token), other.delete(mine.token), other.put(mine.token, jwks={"keys": []})):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    unknown = Registered(
        portal.world, {**mine.told, "registration_client_uri": mine.told["registration_client_uri"] + "x"}
    )
    assert unknown.read().status_code == 401
    assert httpx2.get(mine.told["registration_client_uri"]).status_code == 401
    wrong = httpx2.post(mine.told["registration_client_uri"], headers=bearer(mine.token))
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, PUT, DELETE")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(None, id="no token"),
        pytest.param("wrong", id="a wrong token"),
        pytest.param("x" * 5000, id="a token without end"),
    ],
)
def test_registering_needs_an_initial_access_token(portal: Portal, token: str | None) -> None:
    refused = portal.register({"client_name": "Stranger"}, token=token)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"public_key": {**public_jwk("p"), **private_jwk_members()}}, id="in public_key"),
        pytest.param({"jwks": {"keys": [{**public_jwk("p"), "d": private_jwk_members()["d"]}]}}, id="in jwks"),
        pytest.param({"public_key": {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}}, id="symmetric"),
    ],
)
def test_private_key_material_is_refused_and_not_repeated(portal: Portal, body: dict[str, Any]) -> None:
    before = names_of(portal.world)
    answer = portal.register({"token_endpoint_auth_method": "private_key_jwt", **body})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    planted = [private_jwk_members()["d"], "c2VjcmV0LXNlY3JldC1zZWNyZXQ"]
    logs = "".join(path.read_text(errors="replace") for path in portal.world.installation.state.glob("logs/*"))
    assert not [one for one in planted if one in answer.text or one in logs]
    assert names_of(portal.world) == before


def test_each_registration_update_and_deletion_leaves_one_audit_record(portal: Portal, world: World) -> None:
    client = portal.with_key(**MEMBERS)
    assert client.key is not None
    client.told = as_object(client.put(jwks={"keys": [dict(client.key.public.jwk)]}))
    assert client.delete().status_code == 204
    events = ("client_registered", "client_updated", "client_deleted")
    mine = [one for one in audit_lines(world, *events) if one["object"].endswith(client.name)]
    assert [one["event"] for one in mine] == list(events)
    assert all(one["uid"] and one["request_id"] for one in mine)
    assert [one["who"] for one in mine] == ["initial-access-token/dev", client.client_id, client.client_id]


INTERNAL = {
    "client_name": "Internal",
    "token_endpoint_auth_method": "private_key_jwt",
    "permissions": ["orders:read"],
    "audience": ["orders"],
    "metadata": {"team": "shop", "cost": 7},
}


def test_an_internal_caller_whom_rbac_allows_makes_clients_with_permissions(portal: Portal, world: World) -> None:
    token, key = portal.caller("portal-writer", "create"), new_key(world)
    answer = portal.clients({**INTERNAL, "public_key": dict(key.public.jwk), "__STATE__": "PUBLIC"}, token)
    assert answer.status_code == 201, answer.text
    client = Registered(world, as_object(answer), key)
    assert "registration_access_token" not in client.told
    info = world.replicas[1].token_info(client.access_token()).json()
    assert (info["permissions"], info["aud"]) == (["orders:read"], ["orders"])
    annotations = client.object()["metadata"]["annotations"]
    assert annotations["keyturn.dev/created-by"] == f"system:serviceaccount:{world.namespace}:portal-writer"
    assert annotations["metadata.keyturn.dev/team"] == "shop"
    assert annotations["metadata.keyturn.dev/cost"] == "7"
    (record,) = [one for one in audit_lines(world, "client_created") if one["object"].endswith(client.name)]
    assert record["who"].endswith(":portal-writer")


@pytest.mark.parametrize("state", ["DRAFT", "TRASH"])
def test_a_client_that_is_not_public_is_made_suspended(portal: Portal, world: World, state: str) -> None:
    answer = portal.clients({"__STATE__": state}, portal.caller("portal-writer", "create"))
    assert answer.status_code == 201, answer.text
    client = Registered(world, as_object(answer))
    assert client.object()["spec"]["suspended"] is True
    assert client.grant().status_code == 401
    world.kubectl("patch", "cc", client.name, "--type=merge", "-p", '{"spec":{"suspended":false}}')
    wait_until(lambda: client.grant().status_code == 200, "the client to be resumed", seconds=10)


def test_callers_whom_rbac_does_not_allow_are_refused_and_recorded(portal: Portal, world: World) -> None:
    before = names_of(world)
    reader = portal.caller("portal-reader", "get", "list", "introspect", "revoke", "explain")
    answer = portal.clients({}, reader)
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    (record,) = audit_lines(world, "administration_denied")[-1:]
    assert (record["verb"], record["who"]) == ("create", f"system:serviceaccount:{world.namespace}:portal-reader")
    for audience in ("", "https://other.example/admin", world.installation.url):
        token = portal.caller("portal-writer", "create", audience=audience)
        assert portal.clients({}, token).status_code == 401, audience
    assert portal.clients({}, None).status_code == 401
    assert portal.clients({}, world.installation.registration_token).status_code == 401
    assert names_of(world) == before


def test_a_deleted_client_is_not_made_at_all(portal: Portal) -> None:
    answer = portal.clients({"__STATE__": "DELETED"}, portal.caller("portal-writer", "create"))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")


def test_the_metadata_names_the_endpoint(world: World) -> None:
    url = world.installation.url
    for document in ("oauth-authorization-server", "openid-configuration"):
        assert httpx2.get(f"{url}/.well-known/{document}").json()["registration_endpoint"] == f"{url}/register"
