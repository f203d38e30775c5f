"""Introspection and revocation: by people whom RBAC allows, and by clients as their ClientCredentials say."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
import pytest

from keyturn_dev.waiting import wait_until
from tests.cluster.clients import ASSERTION_TYPE, PROMISE_SECONDS, Client, World, as_object, needs, route
from tests.cluster.portal import Portal, audit_lines, bearer
from tests.manifests import Manifest, manifest

INACTIVE: dict[str, Any] = {"active": False}
# Also what form-encoding changes.
SECRET = "chosen+by% a:person/é"


def ask(world: World, endpoint: str, token: str, *, by: str | Client, replica: int = 0) -> httpx2.Response:
    """By a Kubernetes token, or by a client's assertion."""
    fields = {"token": token}
    headers = {}
    if isinstance(by, str):
        headers = bearer(by)
    else:
        fields |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": by.assertion()}
    url = f"{world.replicas[replica].url}/oauth/{endpoint}"
    return httpx2.post(url, data=fields, headers=headers, timeout=20, trust_env=False)


def refused_everywhere(world: World, token: str, support: str) -> bool:
    introspected = [
        ask(world, "introspect", token, by=support, replica=number) for number in range(len(world.replicas))
    ]
    return (
        world.everywhere(lambda replica: replica.token_info(token).status_code) == [401] * len(world.replicas)
        and world.everywhere(lambda replica: replica.auth("/asked", token).status_code) == [401] * len(world.replicas)
        and all(answer.json() == INACTIVE for answer in introspected)
    )


def test_who_may_by_rbac_looks_at_any_clients_token_and_takes_it_back(world: World) -> None:
    portal = Portal(world)
    support = portal.caller("support", "introspect", "revoke")
    client = world.client("asked").apply(permissions=["asked:read"])
    world.rule("asked", route("/asked", **needs("asked:read")))
    token, kept = client.token(), client.token()
    for number in range(len(world.replicas)):
        told = as_object(ask(world, "introspect", token, by=support, replica=number))
        assert (told["active"], told["client_id"], told["permissions"]) == (True, client.client_id, ["asked:read"])
    assert ask(world, "revoke", token, by=support).status_code == 200
    assert world.replicas[0].token_info(token).status_code == 401, "where it was revoked it is refused at once"
    seconds = world.seconds_until(lambda: refused_everywhere(world, token, support), "the token to be refused")
    assert seconds < PROMISE_SECONDS + 0.5, "asking all takes a moment too"
    assert world.everywhere(lambda replica: replica.auth("/asked", kept).status_code) == [200] * len(world.replicas)
    (record,) = [one for one in audit_lines(world, "token_revoked") if one["client_id"] == client.client_id]
    assert record["who"] == f"system:serviceaccount:{world.namespace}:support"
    assert record["uid"] == world.objects.get("clientcredentials", client.name)["metadata"]["uid"]


def test_each_right_is_one_of_its_own_and_a_refusal_is_recorded(world: World) -> None:
    portal = Portal(world)
    client = world.client("asked-too").apply(permissions=["asked:read"])
    token = client.token()
    looker, taker = portal.caller("looker", "introspect"), portal.caller("taker", "revoke")
    nobody = portal.caller("nobody-special")
    assert ask(world, "introspect", token, by=looker).json()["active"] is True
    for endpoint, who in (("revoke", looker), ("introspect", taker), ("introspect", nobody), ("revoke", nobody)):
        answer = ask(world, endpoint, token, by=who)
        assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    denied = [(one["verb"], one["who"].rpartition(":")[2]) for one in audit_lines(world, "administration_denied")]
    assert {("revoke", "looker"), ("introspect", "taker"), ("introspect", "nobody-special")} <= set(denied)
    # A token for the API server, or of ours, is of no use here.
    for other in (portal.caller("looker", "introspect", audience=""), token):
        assert ask(world, "introspect", token, by=other).status_code == 401
    assert world.replicas[0].token_info(token).status_code == 200


def test_a_client_sees_others_tokens_as_long_as_its_object_says_any(world: World) -> None:
    gate = world.client("gate").apply()
    token = world.client("caller").apply(permissions=["asked:read"]).token()
    assert ask(world, "introspect", token, by=gate).json() == INACTIVE

    def sees(so: bool) -> bool:
        return bool(ask(world, "introspect", token, by=gate).json()["active"] is so)

    gate.patch(introspection="any")
    wait_until(lambda: sees(True), "the client to see others' tokens", seconds=10)
    # Seeing is not revoking.
    assert ask(world, "revoke", token, by=gate).status_code == 200
    assert sees(True)
    gate.patch(introspection="own")
    wait_until(lambda: sees(False), "the client to see its own tokens only", seconds=10)


def secret_of(value: str) -> Manifest:
    data = {"client_secret": base64.b64encode(value.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "chosen"}, "data": data}


@pytest.mark.parametrize(
    ("method", "in_body", "in_basic"),
    [("client_secret_post", 200, 401), ("client_secret_basic", 401, 200)],
)
def test_a_secret_that_a_person_chose_counts_in_the_way_that_the_object_names(
    world: World, method: str, in_body: int, in_basic: int
) -> None:
    name = method.replace("_", "-")
    world.apply(secret_of(SECRET))
    spec = {"authMethod": method, "clientSecret": {"secretName": "chosen", "generate": False}, "permissions": ["p"]}
    world.apply(manifest("ClientCredential", name, spec))
    world.objects.wait_for("clientcredentials", name)
    client_id = f"{world.namespace}.{name}"
    fields = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": SECRET}
    url = f"{world.replicas[0].url}/oauth/token"
    assert httpx2.post(url, data=fields, timeout=20, trust_env=False).status_code == in_body
    assert world.replicas[0].grant_basic(client_id, SECRET).status_code == in_basic


def test_an_access_token_manages_no_registration_be_it_good_or_stopped(world: World) -> None:
    registered = Portal(world).with_key()
    access = registered.access_token()
    support = Portal(world).caller("support", "introspect", "revoke")
    for stopped in (False, True):
        if stopped:
            assert ask(world, "revoke", access, by=support).status_code == 200
        assert registered.read(access).status_code == 401
        assert registered.put(access, client_name="other").status_code == 401
        assert registered.delete(access).status_code == 401
    assert registered.read().status_code == 200
