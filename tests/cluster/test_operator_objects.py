"""What the operator makes of objects on a real API server, under the rights that the chart grants."""

import base64
import json

from keyturn_dev.installation import SIGNING_KEY
from tests.cluster.clients import World, needs, route, signing_kids
from tests.manifests import manifest

NO_KEY = "-----BEGIN PUBLIC KEY-----\nTm8ga2V5IGF0IGFsbC4=\n-----END PUBLIC KEY-----\n"
MANAGED_BY = "app.kubernetes.io/managed-by"


def basic(world: World, name: str, secret: str, **spec: object) -> None:
    reference = {"secretName": secret, "generate": False}
    members = {"authMethod": "client_secret_basic", "clientSecret": reference, "permissions": ["p"], **spec}
    world.apply(manifest("ClientCredential", name, members))


def secret(world: World, name: str, value: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"client_secret": value}}
    world.apply(body)


def test_the_signing_key_s_secret_status_and_jwks_agree(world: World) -> None:
    world.objects.wait_for("signingkeys", SIGNING_KEY)
    shown = {one["state"]: one["kid"] for one in world.objects.get("signingkeys", SIGNING_KEY)["status"]["keys"]}
    assert set(shown) == {"Active", "Next"}
    held = world.objects.get("secrets", SIGNING_KEY)
    assert held["type"] == "Opaque"
    assert held["metadata"]["labels"][MANAGED_BY] == "keyturn"
    assert "ownerReferences" not in held["metadata"], "signing keys outlive their object"
    ring = json.loads(base64.b64decode(held["data"]["keyring.json"]))
    assert {one["phase"]: one["kid"] for one in ring["keys"]} == shown


def test_neither_kopf_nor_we_leave_anything_in_an_object_s_metadata(world: World) -> None:
    world.client("untouched").apply()
    metadata = world.objects.get("clientcredentials", "untouched")["metadata"]
    assert set(metadata["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}
    assert "finalizers" not in metadata


def test_a_client_waits_for_its_secret_and_an_edit_of_it_takes_effect_for_that_client_alone(world: World) -> None:
    basic(world, "late-secret", "late")
    bystander = world.client("bystander").apply()
    world.objects.wait_for("clientcredentials", "late-secret", "False", reason="SecretNotFound")
    secret(world, "late", "first")
    world.objects.wait_for("clientcredentials", "late-secret", seconds=5)
    client_id = f"{world.namespace}.late-secret"
    assert world.replicas[0].grant_basic(client_id, "first").status_code == 200
    untouched = world.objects.get("clientcredentials", bystander.name)["metadata"]["resourceVersion"]

    secret(world, "late", "second")
    world.seconds_until(
        lambda: all(
            code == 200 for code in world.everywhere(lambda one: one.grant_basic(client_id, "second").status_code)
        ),
        "the new secret to count",
        limit=5,
    )
    assert world.replicas[0].grant_basic(client_id, "first").status_code == 401
    assert world.objects.get("clientcredentials", bystander.name)["metadata"]["resourceVersion"] == untouched


def test_the_owner_of_a_client_id_keeps_it_until_it_goes(world: World) -> None:
    world.client("contend-a", client_id="contended").apply()
    latecomer = world.client("contend-b", client_id="contended").apply(ready=False)
    refused = latecomer.wait("False", "ClientIdTaken")
    assert f"{world.namespace}/contend-a" in refused["message"]
    world.kubectl("delete", "clientcredential", "contend-a")
    latecomer.wait()


def test_a_mistake_is_named_and_one_event_tells_of_it(world: World) -> None:
    client = world.client("mistaken").apply(permissions=["a", "b"])
    # What the API server cannot see: that this is no key.
    keys = [{"jwk": dict(client.key.public.jwk)}, {"kid": "no-key", "pem": NO_KEY}]
    world.apply(client.manifest(permissions=["a", "c"], publicKeys=keys))
    refused = client.wait("False", "InvalidKey")
    assert "spec.publicKeys[1]" in refused["message"]
    event = world.objects.wait_event("mistaken", "InvalidKey")
    assert event["type"] == "Warning"
    assert len([one for one in world.objects.events("mistaken") if one["reason"] == "InvalidKey"]) == 1


def test_conditions_move_their_transition_time_with_the_status_only(world: World) -> None:
    client = world.client("steady").apply()
    before = client.wait()
    client.patch(description="another text")
    after = client.wait()
    assert after["observedGeneration"] == before["observedGeneration"] + 1
    assert after["lastTransitionTime"] == before["lastTransitionTime"]


def test_a_deletion_leaves_one_event_one_log_line_and_one_audit_record(world: World) -> None:
    client = world.client("traced").apply()
    uid = world.objects.get("clientcredentials", "traced")["metadata"]["uid"]
    client.delete()
    world.objects.wait_event("traced", "Deleted")
    assert len([one for one in world.objects.events("traced") if one["reason"] == "Deleted"]) == 1
    lines = [json.loads(line) for line in world.installation.log("operator-0").read_text().splitlines() if uid in line]
    withdrawn = [line for line in lines if line["event"] == "withdrawn"]
    assert sorted(line["logger"] for line in withdrawn) == ["keyturn.audit", "keyturn.operator.reconcile"]
    audit = next(line for line in withdrawn if line["logger"] == "keyturn.audit")
    assert audit["object"] == f"ClientCredential/{world.namespace}/traced"


def test_the_audit_record_of_an_edit_says_old_and_new(world: World) -> None:
    client = world.client("audited").apply(permissions=["old:one", "kept"])
    client.apply(permissions=["kept", "new:one"])
    changes = [
        line["change"]
        for line in map(json.loads, world.installation.log("operator-0").read_text().splitlines())
        if line["event"] == "grant_changed" and line["object"].endswith("/audited")
    ]
    assert changes[-1] == {"permissions": {"old": ["old:one", "kept"], "new": ["kept", "new:one"]}}


def test_rules_that_contradict_are_both_marked_until_one_goes(world: World) -> None:
    world.rule("contradict-a", route("/contradict", "GET", **needs("x")))
    world.rule("contradict-b", route("/contradict", "GET", **needs("y")))
    for name in ("contradict-a", "contradict-b"):
        marked = world.objects.wait_for("accessrules", name, kind="Conflicting")
        assert "GET /contradict" in marked["message"]
    world.kubectl("delete", "accessrule", "contradict-b")
    world.objects.wait_for("accessrules", "contradict-a", "False", kind="Conflicting")


def test_another_signing_key_is_told_that_it_does_not_count(world: World) -> None:
    world.apply(manifest("SigningKey", "second", {}))
    world.objects.wait_for("signingkeys", "second", "False", reason="NotUsed")
    assert [one for one in world.objects.all("secrets") if one["metadata"]["name"] == "second"] == []


def test_a_paused_client_gains_nothing_and_loses_what_is_taken(world: World) -> None:
    client = world.client("paused").apply(permissions=["one", "two"])
    world.kubectl("annotate", "clientcredential", "paused", "keyturn.dev/paused=true")
    client.patch(permissions=["two", "three"])
    client.wait("False", "Paused")
    token = client.token()
    world.seconds_until(
        lambda: world.replicas[0].token_info(token).json()["permissions"] == ["two"], "the restriction", limit=2
    )
    world.kubectl("annotate", "clientcredential", "paused", "keyturn.dev/paused-")
    client.wait()
    assert signing_kids(world)
