"""What the operator makes of objects on a real API server, under the rights that the chart grants."""

import base64
import json

from keyturn_dev.rights import SIGNING_KEY
from tests.cluster.clients import World, needs, route, signing_kids

NO_KEY = "-----BEGIN PUBLIC KEY-----\nTm8ga2V5IGF0IGFsbC4=\n-----END PUBLIC KEY-----\n"
MANAGED_BY = "app.kubernetes.io/managed-by"


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
