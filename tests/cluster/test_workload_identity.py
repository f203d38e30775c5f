"""Pods as clients: tokens of the real API server, bound to real Pod objects, at the real token endpoint.

No node runs here: a Pod object stays Pending, which is all that a token is bound to. What the kubelet would mount is asked for by
TokenRequest, as the kubelet does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import jwt
import pytest

from keyturn_dev.waiting import wait_until
from tests.cluster.clients import PROMISE_SECONDS, World, as_object
from tests.cluster.conftest import StartWorld
from tests.manifests import Manifest, manifest


class Pods:
    """ServiceAccounts, pods and their tokens, in the namespace of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects = world.objects

    def account(self, name: str) -> str:
        """Makes a ServiceAccount; its uid."""
        made = self.objects.create("serviceaccounts", {"metadata": {"name": name}})
        return str(made["metadata"]["uid"])

    def pod(self, name: str, account: str) -> Manifest:
        spec = {"serviceAccountName": account, "containers": [{"name": "main", "image": "example.com/none"}]}
        return self.objects.create("pods", {"metadata": {"name": name}, "spec": spec})

    def token(self, account: str, pod: Manifest | None, *, audience: str | None = None, seconds: int = 3600) -> str:
        """A token as the kubelet would mount it; without a pod one that is bound to nothing."""
        spec: dict[str, Any] = {
            "audiences": [audience or self.world.installation.url],
            "expirationSeconds": seconds,
        }
        if pod is not None:
            metadata = pod["metadata"]
            reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
            spec["boundObjectRef"] = reference
        made = self.objects.create(f"serviceaccounts/{account}/token", {"spec": spec})
        return str(made["status"]["token"])

    def client(self, name: str, account: str) -> str:
        """Applies a client that is this account, without waiting; its client id."""
        spec = {"serviceAccount": {"name": account}, "permissions": ["orders:read"]}
        self.world.apply(manifest("ClientCredential", name, spec))
        return f"{self.world.namespace}.{name}"

    def ready_client(self, name: str, account: str) -> str:
        client_id = self.client(name, account)
        self.objects.wait_for("clientcredentials", name)
        return client_id

    def answers(self, token: str, client_id: str) -> list[int]:
        """What each replica answers to the token as the client's assertion."""
        return self.world.everywhere(lambda one: one.grant(token, client_id=client_id).status_code)


@pytest.fixture(scope="module")
def pods(world: World) -> Iterator[Pods]:
    one = Pods(world)
    yield one
    for pod in world.objects.all("pods"):
        world.objects.delete("pods", pod["metadata"]["name"])


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, str(as_object(answer)["error"])


def test_a_pod_gets_tokens_with_nothing_but_its_own_projected_token(pods: Pods, world: World) -> None:
    pods.account("shop")
    client_id = pods.ready_client("shop", "shop")
    token = pods.token("shop", pods.pod("shop-1", "shop"))
    assert pods.answers(token, client_id) == [200, 200]
    # The kubelet hands the same token out until it renews it.
    answer = world.replicas[1].grant(token, client_id=client_id)
    access = as_object(answer)["access_token"]
    claims = jwt.decode(access, options={"verify_signature": False})
    assert (claims["sub"], claims["permissions"]) == (client_id, ["orders:read"])
    assert world.replicas[0].token_info(access).status_code == 200
    assert "keys" not in world.objects.get("clientcredentials", "shop")["status"]


def test_a_pod_s_token_is_of_no_use_elsewhere(pods: Pods, world: World) -> None:
    pods.account("elsewhere")
    client_id = pods.ready_client("elsewhere", "elsewhere")
    token = pods.token("elsewhere", pods.pod("elsewhere-1", "elsewhere"))
    replica = world.replicas[0]
    assert replica.grant(token, client_id=client_id).status_code == 200
    assert replica.token_info(token).status_code == 401
    world.rule("elsewhere", {"path": "/elsewhere", "permissions": {"anyOf": ["orders:read"]}})
    assert replica.auth("/elsewhere", token).status_code == 401
    form = {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": token,
        "client_id": client_id,
        "token": token,
    }
    for path in ("/oauth/introspect", "/oauth/revoke"):
        answer = httpx2.post(f"{replica.url}{path}", data=form, trust_env=False)
        assert answer.status_code in (401, 404), path


def test_what_is_not_the_client_s_own_is_refused(pods: Pods, world: World) -> None:
    for name in ("mine", "theirs"):
        pods.account(name)
    client_id = pods.ready_client("mine", "mine")
    theirs = pods.ready_client("theirs", "theirs")
    mine, other = pods.pod("mine-1", "mine"), pods.pod("theirs-1", "theirs")
    right = pods.token("mine", mine)
    assert pods.answers(right, client_id) == [200, 200]
    refused = {
        "another audience": (pods.token("mine", mine, audience="https://kubernetes.default.svc"), client_id),
        "a pod of another account": (pods.token("theirs", other), client_id),
        "another client": (right, theirs),
        "no such client": (right, f"{world.namespace}.nobody"),
        "a token that is bound to no pod": (pods.token("mine", None), client_id),
        "more than an hour": (pods.token("mine", mine, seconds=7200), client_id),
    }
    for case, (token, named) in refused.items():
        answer = world.replicas[0].grant(token, client_id=named)
        assert error_of(answer) == (401, "invalid_client"), case
    assert error_of(world.replicas[0].grant(right)) == (400, "invalid_request")


def test_the_same_name_in_another_namespace_is_another_account(pods: Pods, world: World) -> None:
    pods.account("twin")
    client_id = pods.ready_client("twin", "twin")
    elsewhere = f"{world.namespace}-elsewhere"
    admin = pods.objects
    admin.create_at("/api/v1/namespaces", {"metadata": {"name": elsewhere}})
    try:
        admin.create_at(f"/api/v1/namespaces/{elsewhere}/serviceaccounts", {"metadata": {"name": "twin"}})
        spec = {"serviceAccountName": "twin", "containers": [{"name": "main", "image": "example.com/none"}]}
        made = admin.create_at(f"/api/v1/namespaces/{elsewhere}/pods", {"metadata": {"name": "twin-1"}, "spec": spec})[
            "metadata"
        ]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": "twin-1", "uid": made["uid"]}
        request = {"spec": {"audiences": [world.installation.url], "boundObjectRef": bound}}
        path = f"/api/v1/namespaces/{elsewhere}/serviceaccounts/twin/token"
        token = str(admin.create_at(path, request)["status"]["token"])
        assert pods.answers(token, client_id) == [401, 401]
    finally:
        world.kubectl("delete", "namespace", elsewhere, "--wait=false")


def test_an_account_made_anew_is_another_within_seconds(pods: Pods, world: World) -> None:
    pods.account("anew")
    client_id = pods.ready_client("anew", "anew")
    old = pods.token("anew", pods.pod("anew-1", "anew"))
    assert pods.answers(old, client_id) == [200, 200]
    world.objects.delete("serviceaccounts", "anew")
    world.objects.wait_for("clientcredentials", "anew", "False", reason="ServiceAccountNotFound", seconds=10)
    wait_until(lambda: pods.answers(old, client_id) == [401, 401], "every replica to know", seconds=PROMISE_SECONDS)
    pods.account("anew")
    world.objects.wait_for("clientcredentials", "anew", seconds=10)
    new = pods.token("anew", pods.pod("anew-2", "anew"))
    assert pods.answers(new, client_id) == [200, 200]
    assert pods.answers(old, client_id) == [401, 401]


def test_a_client_waits_for_its_account(pods: Pods, world: World) -> None:
    pods.client("waits", "waits")
    told = world.objects.wait_for("clientcredentials", "waits", "False", reason="ServiceAccountNotFound")
    assert "ServiceAccount waits" in told["message"]
    pods.account("waits")
    world.objects.wait_for("clientcredentials", "waits", seconds=10)


def test_of_two_clients_of_one_account_the_older_has_it(pods: Pods, world: World) -> None:
    pods.account("shared")
    first = pods.ready_client("first", "shared")
    time.sleep(1.1)  # creationTimestamps are whole seconds
    second = pods.client("second", "shared")
    told = world.objects.wait_for("clientcredentials", "second", "False", reason="ServiceAccountTaken")
    assert "ClientCredential first" in told["message"]
    token = pods.token("shared", pods.pod("shared-1", "shared"))
    assert (pods.answers(token, first), pods.answers(token, second)) == ([200, 200], [401, 401])
    world.objects.delete("clientcredentials", "first")
    world.objects.wait_for("clientcredentials", "second", seconds=10)
    wait_until(lambda: pods.answers(token, first) == [401, 401], "the first to be gone", seconds=5)
    assert pods.answers(token, second) == [200, 200]


def test_a_deleted_pod_s_token_no_longer_counts(pods: Pods, world: World) -> None:
    pods.account("brief")
    client_id = pods.ready_client("brief", "brief")
    used, unused = (pods.token("brief", pods.pod(f"brief-{number}", "brief")) for number in range(2))
    assert pods.answers(used, client_id) == [200, 200]
    for number in range(2):
        world.kubectl("delete", "pod", f"brief-{number}", "--grace-period=0", "--force")
    assert pods.answers(unused, client_id) == [401, 401]
    # Ten seconds of the API server's own cache, and ten of ours.
    wait_until(lambda: pods.answers(used, client_id) == [401, 401], "the pod's token to count no longer", seconds=25)


def test_without_token_reviews_it_counts_until_it_expires(start_world: StartWorld) -> None:
    world = start_world(settings={"KEYTURN_WORKLOAD_TOKEN_REVIEW": "false"})
    pods = Pods(world)
    pods.account("brief")
    client_id = pods.ready_client("brief", "brief")
    token = pods.token("brief", pods.pod("brief-1", "brief"))
    world.kubectl("delete", "pod", "brief-1", "--grace-period=0", "--force")
    assert pods.answers(token, client_id) == [200]
    world.objects.patch("clientcredentials", "brief", {"spec": {"suspended": True}})
    wait_until(lambda: pods.answers(token, client_id) == [401], "the suspension to count", seconds=5)
