"""Whose objects an installation acts on: its own namespace's, those of a list, or all but what belongs to other installations."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from keyturn_dev.errors import DevError
from keyturn_dev.installation import Installation
from keyturn_dev.kubeconfig import run_kubectl
from keyturn_dev.rights import EVERY, SIGNING_KEY, rbac_objects
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import Client, World, needs, route, world_of
from tests.cluster.conftest import StartWorld, signing_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn_dev.cluster import Cluster

PAYMENTS = "tenancy-payments"
BARE = "tenancy-bare"
UNWATCHED = "tenancy-unwatched"
GRANTS = [
    {
        "namespace": PAYMENTS,
        "permissions": ["pay.*"],
        "audiences": ["payments"],
        "hosts": ["pay.example.com"],
        "paths": ["/pay"],
    }
]
LATER_SECONDS = 15.0
OTHERS_SECONDS = 40.0
"""The Leases of other installations are looked at every 15 s, and what was found is acted upon by a sweep."""
TRIED_AGAIN_SECONDS = 45.0
"""A watch that is refused is tried again after 10 s at most, a sweep after 30."""


def condition(world: World, name: str, reason: str, *, plural: str = "clientcredentials", seconds: float = 15.0) -> str:
    """The message with which an object is refused, once it is."""
    found = world.objects.wait_for(plural, name, "False", reason=reason, seconds=seconds)
    return str(found["message"])


def untouched(world: World, plural: str, name: str) -> bool:
    return "status" not in world.objects.get(plural, name)


def can(world: World, account: str, verb: str, resource: str, namespace: str) -> bool:
    """What the API server says that a ServiceAccount may do. `resource`: `plural.group`, then `/subresource` or `=name`."""
    who = f"system:serviceaccount:{world.installation.namespace}:{account}"
    kind, _, name = resource.partition("=")
    kind, _, subresource = kind.partition("/")
    plural, _, group = kind.partition(".")
    wanted = {"namespace": namespace, "verb": verb, "group": group, "resource": plural}
    wanted |= {"subresource": subresource, "name": name}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": who, "resourceAttributes": {key: value for key, value in wanted.items() if value}},
    }
    answer = world.objects.create_at("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def token_of(client: Client) -> str:
    """A token of a client whose status tells nothing of when the replicas know it."""
    wait_until(lambda: client.request().status_code == 200, f"a token of {client.name}", seconds=5)
    return client.token()


@pytest.fixture(scope="module")
def several(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An installation for its own namespace and two more: one that was granted something, one that was not."""
    state = tmp_path_factory.mktemp("several") / "state"
    own = Installation(crds, "tenancy-home", state, watched=(PAYMENTS, BARE), grants=GRANTS)
    try:
        own.start()
        own.apply([signing_key(own.namespace)])
        own.kubectl("create", "namespace", UNWATCHED)
        own.wait_ready()
        with world_of(own, replicas=1) as one:
            yield one
    finally:
        own.stop()


@pytest.fixture
def payments(several: World) -> Iterator[World]:
    with several.within(PAYMENTS) as one:
        yield one


@pytest.fixture
def bare(several: World) -> Iterator[World]:
    with several.within(BARE) as one:
        yield one


def test_a_namespace_of_the_list_uses_what_it_was_granted(payments: World) -> None:
    client = payments.client("granted").apply(permissions=["pay.read", "pay.write"], audiences=["payments"])
    token = client.token()
    told = payments.replicas[0].token_info(token).json()
    assert sorted(told["permissions"]) == ["pay.read", "pay.write"]
    payments.rule("granted", route("/pay/orders", "GET", **needs("pay.read")), hosts=["pay.example.com"])


def test_what_was_not_granted_is_named_and_not_given(payments: World) -> None:
    client = payments.client("greedy").apply(ready=False, permissions=["pay.read", "admin"], audiences=["payments"])
    message = condition(payments, "greedy", "NotGranted")
    assert "admin" in message
    assert "pay.read" not in message
    assert payments.replicas[0].token_info(token_of(client)).json()["permissions"] == ["pay.read"]

    only = payments.client("only-others").apply(ready=False, permissions=["pay.read"], audiences=["orders"])
    assert "orders" in condition(payments, "only-others", "NotGranted")
    assert only.request().status_code == 401


def test_a_namespace_without_a_grant_gets_nothing(bare: World) -> None:
    client = bare.client("nothing").apply(ready=False, permissions=["read"])
    assert "read" in condition(bare, "nothing", "NotGranted")
    assert bare.replicas[0].token_info(token_of(client)).json()["permissions"] == []


def test_a_rule_decides_no_host_and_no_path_that_its_namespace_was_not_granted(several: World, payments: World) -> None:
    several.rule("home", route("/home", "GET", **needs("home")))
    token = several.client("home").apply(permissions=["home"]).token()
    assert several.replicas[0].auth("/home", token).status_code == 200
    assert several.replicas[0].auth("/home").status_code == 401

    rules: tuple[tuple[str, str, str, list[str]], ...] = (
        ("every-host", "every host", "/pay", []),
        ("another-host", "shop.example.com", "/pay", ["shop.example.com"]),
        ("another-path", "/home", "/home", ["pay.example.com"]),
    )
    for name, message, path, hosts in rules:
        payments.rule(name, route(path), ready=False, hosts=hosts)
        assert message in condition(payments, name, "NotGranted", plural="accessrules")
    assert several.replicas[0].auth("/home").status_code == 401
    assert several.replicas[0].auth("/home", token).status_code == 200


def test_no_namespace_takes_a_client_id_of_another_watched_one(several: World, payments: World) -> None:
    several.client("taken").apply()
    thief = payments.client("thief", client_id=f"{several.namespace}.taken").apply(ready=False)
    assert several.namespace in condition(payments, "thief", "ClientIdReserved")
    assert thief.request().status_code == 401


def test_signing_keys_count_in_the_release_s_namespace_only(payments: World) -> None:
    before = payments.replicas[0]._http.get("/.well-known/jwks.json").json()
    payments.apply(signing_key(PAYMENTS))
    wait_until(
        lambda: (payments.objects.condition("signingkeys", SIGNING_KEY) or {}).get("status") == "False",
        "the SigningKey of another namespace to be refused",
        seconds=15,
    )
    assert payments.replicas[0]._http.get("/.well-known/jwks.json").json() == before
    assert SIGNING_KEY not in [one["metadata"]["name"] for one in payments.objects.all("secrets")]


def test_namespaces_that_are_not_watched_stay_as_they_are(several: World) -> None:
    with several.within(UNWATCHED) as elsewhere:
        client = elsewhere.client("elsewhere").apply(ready=False, generateKey={"secretName": "made"}, publicKeys=None)
        elsewhere.rule("elsewhere", route("/elsewhere"), ready=False)
        # What comes after it in a watched one is done: then the operator had its time.
        several.client("after-elsewhere").apply().token()
        assert untouched(elsewhere, "clientcredentials", "elsewhere")
        assert untouched(elsewhere, "accessrules", "elsewhere")
        assert elsewhere.objects.all("secrets") == []
        assert elsewhere.objects.all("events") == []
        assert client.request().status_code == 401
        assert several.replicas[0].auth("/elsewhere").status_code != 200


OPERATOR_RIGHTS = {
    # By verb and resource: in the release's namespace, in one of the list, in another.
    ("list", "clientcredentials.keyturn.dev"): (True, True, False),
    ("watch", "signingkeys.keyturn.dev"): (True, True, False),
    ("patch", "clientcredentials.keyturn.dev/status"): (True, True, False),
    ("patch", "clientcredentials.keyturn.dev"): (False, False, False),
    ("delete", "clientcredentials.keyturn.dev"): (False, False, False),
    ("get", "secrets"): (True, True, False),
    ("create", "secrets"): (True, True, False),
    ("delete", "secrets"): (True, False, False),
    ("update", "leases.coordination.k8s.io=keyturn-operator"): (True, False, False),
    ("get", "leases.coordination.k8s.io=keyturn-operator"): (True, False, False),
    ("update", "leases.coordination.k8s.io=another"): (False, False, False),
    ("get", "leases.coordination.k8s.io"): (False, False, False),
    ("create", "events"): (True, True, False),
    ("get", "pods"): (False, False, False),
    ("get", "configmaps"): (False, False, False),
    ("create", "serviceaccounts/token"): (False, False, False),
    ("list", "namespaces"): (False, False, False),
    ("get", "customresourcedefinitions.apiextensions.k8s.io"): (False, False, False),
    ("create", "tokenreviews.authentication.k8s.io"): (False, False, False),
}


def test_the_operator_of_a_list_may_do_nothing_elsewhere(several: World) -> None:
    places = (several.namespace, PAYMENTS, UNWATCHED)
    told = {
        (verb, resource): tuple(can(several, "keyturn-operator", verb, resource, place) for place in places)
        for verb, resource in OPERATOR_RIGHTS
    }
    assert told == OPERATOR_RIGHTS


def test_the_api_may_do_nothing_outside_the_release_s_namespace_but_ask_for_reviews(several: World) -> None:
    for verb, resource in (
        ("create", "clientcredentials.keyturn.dev"),
        ("create", "secrets"),
        ("get", "secrets"),
        ("list", "clientcredentials.keyturn.dev"),
    ):
        assert not can(several, "keyturn-api", verb, resource, PAYMENTS), (verb, resource)
    assert can(several, "keyturn-api", "create", "tokenreviews.authentication.k8s.io", PAYMENTS)
    assert not can(several, "keyturn-api", "get", "secrets", several.namespace)


@pytest.mark.timeout(240)
def test_one_namespace_whose_rights_are_gone_takes_nothing_from_the_others(several: World, payments: World) -> None:
    kept = several.client("kept").apply()
    role = f"{several.namespace}-keyturn-operator"
    before = payments.client("lost").apply(permissions=["pay.read"], audiences=["payments"])
    payments.kubectl("delete", "rolebinding", role)
    several.installation.restart_operator()
    late = payments.client("late").apply(ready=False, permissions=["pay.read"], audiences=["payments"])
    try:
        several.client("meanwhile").apply().token()
        assert untouched(payments, "clientcredentials", "late")
        # What was in force stays: a 403 removes nothing.
        assert before.request().status_code == kept.request().status_code == 200
    finally:
        several.installation.apply(rbac_objects(several.namespace, (PAYMENTS, BARE)))
    late.wait(seconds=TRIED_AGAIN_SECONDS)
    late.token()
    assert [one.name for one in several.installation.records()].count("operator-0") == 1
    several.installation.check_alive()


@pytest.mark.timeout(300)
def test_all_namespaces_but_those_of_other_installations_which_are_taken_over_when_these_have_gone(
    start_world: StartWorld,
) -> None:
    theirs = start_world()
    their_client = theirs.client("theirs").apply(permissions=["theirs"])
    later, taken = f"{theirs.namespace}-later", theirs.namespace
    grants: list[dict[str, Any]] = [
        {"namespace": name, "permissions": ["*"], "audiences": ["*"], "hosts": ["*"], "paths": ["/"]}
        for name in (later, taken)
    ]
    wide = start_world(watched=(EVERY,), grants=grants)

    # One that exists already, with an installation of its own: nothing of it is known here.
    home = wide.client("home").apply()
    home.token()
    stranger = wide.replicas[0].grant(their_client.assertion(aud=wide.replicas[0].url))
    assert (stranger.status_code, stranger.json()["error"]) == (401, "invalid_client")
    their_client.token()

    # One that is created later.
    wide.kubectl("create", "namespace", later)
    with wide.within(later) as new:
        client = new.client("new").apply(ready=False, permissions=["new"])
        client.wait(seconds=LATER_SECONDS)
        assert new.replicas[0].token_info(client.token()).json()["permissions"] == ["new"]
        new.rule("new", route("/new", "GET", **needs("new")))
        assert wide.replicas[0].auth("/new", client.token()).status_code == 200
        new.kubectl("delete", "clientcredential", "new")
        wait_until(lambda: client.request().status_code == 401, "the deletion to count", seconds=5)

    for verb, resource, allowed in (
        ("list", "clientcredentials.keyturn.dev", True),
        ("get", "secrets", True),
        ("get", "leases.coordination.k8s.io=keyturn-operator", True),
        ("get", "leases.coordination.k8s.io=another", False),
        ("list", "leases.coordination.k8s.io", False),
        ("update", "leases.coordination.k8s.io=keyturn-operator", False),
        ("patch", "clientcredentials.keyturn.dev", False),
        ("list", "namespaces", False),
        ("get", "pods", False),
    ):
        assert can(wide, "keyturn-operator", verb, resource, later) == allowed, (verb, resource)

    # The other installation goes: its objects are this one's now.
    theirs.installation.stop_process("operator-0")
    adopted = their_client.assertion(aud=wide.replicas[0].url)

    def taken_over() -> bool:
        answer = wide.replicas[0].grant(their_client.assertion(aud=wide.replicas[0].url))
        return answer.status_code == 200

    wait_until(
        taken_over, "the namespace without an installation to be taken over", seconds=OTHERS_SECONDS, interval=0.5
    )
    assert wide.replicas[0].grant(adopted).status_code == 200

    # And comes back: they are left to it again.
    theirs.installation.start_operator()

    def left_again() -> bool:
        answer = wide.replicas[0].grant(their_client.assertion(aud=wide.replicas[0].url))
        return answer.status_code == 401

    wait_until(left_again, "the namespace to be left to its own installation", seconds=OTHERS_SECONDS, interval=0.5)
    their_client.wait()
    their_client.token()


def test_two_installations_with_clients_of_one_name_share_nothing(start_world: StartWorld) -> None:
    blue, green = start_world(), start_world()
    ours, others = (one.client("billing").apply(permissions=["p"]) for one in (blue, green))
    token = ours.token()
    assert ours.client_id != others.client_id
    assert blue.replicas[0].token_info(token).status_code == 200
    assert green.replicas[0].token_info(token).status_code == 401
    assert green.replicas[0].grant(ours.assertion(aud=green.replicas[0].url)).status_code == 401
    green.installation.stop()
    with contextlib.suppress(DevError):
        run_kubectl(
            green.installation.target.kubectl,
            green.installation.target.kubeconfig,
            *("delete", "namespace", green.namespace, "--wait=false"),
        )
    assert blue.replicas[0].token_info(token).status_code == 200
    blue.client("afterwards").apply().token()
