"""What becomes of objects and what they refer to: made again, taken, filled late, changed beside, out of order."""

import base64
import json
import re
import time

import httpx2
import jwt
import pytest

from keyturn_dev import process
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import PROMISE_SECONDS, Client, World, needs, route
from tests.manifests import Manifest, manifest

EDIT_SECONDS = 5.0
"""An edit of a Secret that a client refers to takes effect within this."""


def secret(name: str, **members: str) -> Manifest:
    data = {member: base64.b64encode(value.encode()).decode() for member, value in members.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}


def basic_client(name: str, secret_name: str, **spec: object) -> Manifest:
    reference = {"secretName": secret_name, "generate": False}
    return manifest("ClientCredential", name, {"authMethod": "client_secret_basic", "clientSecret": reference, **spec})


def grants(world: World, name: str, value: str) -> list[int]:
    return world.everywhere(lambda one: one.grant_basic(f"{world.namespace}.{name}", value).status_code)


def test_the_same_manifest_again_is_the_same_client_but_revives_no_token(world: World) -> None:
    client = world.client("again").apply(permissions=["again"])
    world.rule("again", route("/again", **needs("again")))
    old = client.token()
    assert world.everywhere(lambda one: one.auth("/again", old).status_code) == [200, 200]
    client.delete()
    # `iat` and creationTimestamp have whole seconds: the old token must be of an earlier one.
    time.sleep(1.1)
    client.apply(permissions=["again"])
    assert world.objects.get("clientcredentials", "again")["status"]["clientId"] == client.client_id
    assert world.everywhere(lambda one: one.auth("/again", old).status_code) == [401, 401]
    new = client.token(1)
    assert jwt.decode(new, options={"verify_signature": False})["client_id"] == client.client_id
    assert world.everywhere(lambda one: one.auth("/again", new).status_code) == [200, 200]


def test_a_client_without_permissions_is_deleted_like_any_other_and_leaves_one_event(world: World) -> None:
    client = world.client("bare").apply(audiences=["bare"])
    token = client.token()
    client.delete()
    took = world.seconds_until(
        lambda: world.everywhere(lambda one: one.token_info(token).status_code) == [401, 401], "the token to be refused"
    )
    assert took < PROMISE_SECONDS
    assert [client.request(one).status_code for one in range(2)] == [401, 401]
    world.objects.wait_event("bare", "Deleted")
    assert len([one for one in world.objects.events("bare") if one["reason"] == "Deleted"]) == 1
    log = world.installation.log("operator-0").read_text(encoding="utf-8")
    audited = [
        line for line in log.splitlines() if '"withdrawn"' in line and "/bare" in line and "keyturn.audit" in line
    ]
    assert len(audited) == 1, audited


def test_a_deleted_rule_allows_nothing_within_a_second(world: World) -> None:
    world.rule("leaving", route("/leaving"))
    assert world.everywhere(lambda one: one.auth("/leaving").status_code) == [200, 200]
    world.kubectl("delete", "accessrule", "leaving")
    took = world.seconds_until(
        lambda: world.everywhere(lambda one: one.auth("/leaving").status_code) == [403, 403], "the route to be unknown"
    )
    assert took < PROMISE_SECONDS


def test_a_client_with_keys_makes_no_secret_and_basic_is_refused_for_it(world: World) -> None:
    before = {one["metadata"]["name"] for one in world.objects.all("secrets")}
    world.client("keys-only").apply()
    assert {one["metadata"]["name"] for one in world.objects.all("secrets")} == before
    answer = world.replicas[0].grant_basic(f"{world.namespace}.keys-only", "anything")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert "Basic" in answer.headers["www-authenticate"]


def test_a_client_waits_for_its_secret_and_becomes_ready_by_itself(world: World) -> None:
    world.apply(basic_client("late", "late-secret"))
    waiting = world.objects.wait_for("clientcredentials", "late", "False", reason="SecretNotFound")
    assert "spec.clientSecret.secretName" in waiting["message"]
    assert "late-secret" in waiting["message"]
    assert not any(one["metadata"]["name"] == "late-secret" for one in world.objects.all("secrets"))
    assert grants(world, "late", "") == [401, 401]
    world.apply(secret("late-secret", client_secret="here-at-last"))
    world.objects.wait_for("clientcredentials", "late", seconds=EDIT_SECONDS)
    assert grants(world, "late", "here-at-last") == [200, 200]


@pytest.mark.parametrize("secret_first", [True, False], ids=["the secret first", "the client first"])
def test_client_and_secret_arrive_in_one_apply_in_either_order(world: World, secret_first: bool) -> None:
    name = "first" if secret_first else "second"
    both = [secret(f"{name}-s", client_secret=f"{name}-value"), basic_client(name, f"{name}-s")]
    world.apply(*(both if secret_first else reversed(both)))
    world.objects.wait_for("clientcredentials", name, seconds=10)
    assert grants(world, name, f"{name}-value") == [200, 200]


def reconciles(world: World) -> int:
    text = httpx2.get(f"http://127.0.0.1:{world.installation.operator_port}/metrics", trust_env=False).text
    counts = re.findall(r'^keyturn_operator\w*_count\{[^}]*kind="ClientCredential"[^}]*\} (\S+)$', text, re.MULTILINE)
    assert counts, text[:2000]
    return int(sum(float(one) for one in counts))


def test_an_edit_of_the_secret_takes_effect_in_time_and_concerns_only_the_client_that_names_it(world: World) -> None:
    others = [f"bystander-{number}" for number in range(12)]
    world.apply(*(basic_client(name, "bystanders") for name in others), secret("bystanders", client_secret="same"))
    world.apply(secret("edited-s", client_secret="old-value"), basic_client("edited", "edited-s"))
    world.objects.wait_all_ready("clientcredentials", [*others, "edited"], seconds=30)
    version = world.objects.get("clientcredentials", "edited")["metadata"]["generation"]
    assert grants(world, "edited", "old-value") == [200, 200]
    time.sleep(1.0)
    before = reconciles(world)
    world.apply(secret("edited-s", client_secret="new-value"))
    took = world.seconds_until(lambda: grants(world, "edited", "new-value") == [200, 200], "the new secret to count")
    assert took < EDIT_SECONDS
    assert grants(world, "edited", "old-value") == [401, 401]
    # That one's uses are looked at, too; the bystanders are not.
    assert reconciles(world) - before < len(others)
    assert world.objects.get("clientcredentials", "edited")["metadata"]["generation"] == version


def test_a_secret_without_the_member_is_told_by_the_names_of_what_is_there(world: World) -> None:
    world.apply(secret("odd-s", password="not-to-be-shown"), basic_client("odd", "odd-s"))
    told = world.objects.wait_for("clientcredentials", "odd", "False", reason="SecretInvalid")["message"]
    assert "client_secret" in told
    assert "password" in told
    assert "not-to-be-shown" not in told


def test_a_deleted_secret_is_a_withdrawn_one(world: World) -> None:
    world.apply(secret("gone-s", client_secret="gone-value"), basic_client("gone", "gone-s"))
    world.objects.wait_for("clientcredentials", "gone")
    assert grants(world, "gone", "gone-value") == [200, 200]
    world.objects.delete("secrets", "gone-s")
    world.objects.wait_for("clientcredentials", "gone", "False", reason="SecretNotFound", seconds=EDIT_SECONDS)
    # What is no longer ready is told at once; each replica acts on it within its second.
    took = world.seconds_until(lambda: grants(world, "gone", "gone-value") == [401, 401], "the secret to be refused")
    assert took < PROMISE_SECONDS


def test_a_secret_of_another_namespace_does_not_count(world: World) -> None:
    elsewhere = secret("elsewhere-s", client_secret="of-another-namespace")
    elsewhere["metadata"]["namespace"] = "default"
    path = world.installation.state / "elsewhere.json"
    path.write_text(json.dumps(elsewhere), encoding="utf-8")
    world.kubectl("--namespace=default", "apply", "-f", str(path))
    world.apply(basic_client("elsewhere", "elsewhere-s"))
    world.objects.wait_for("clientcredentials", "elsewhere", "False", reason="SecretNotFound")
    assert grants(world, "elsewhere", "of-another-namespace") == [401, 401]
    world.kubectl("--namespace=default", "delete", "secret", "elsewhere-s")


def test_a_signing_key_of_another_name_is_not_used(world: World) -> None:
    world.apply(manifest("SigningKey", "another", {}))
    told = world.objects.wait_for("signingkeys", "another", "False", reason="NotUsed")
    assert "keyturn" in told["message"]
    assert not any(one["metadata"]["name"] == "another" for one in world.objects.all("secrets"))


def contenders(world: World, name: str) -> tuple[Client, Client]:
    """Two clients of one id; the first is a second older, since creationTimestamp counts whole seconds."""
    shared = f"shared-{name}"
    elder = world.client(f"{name}-elder", client_id=shared).apply(permissions=["owned"])
    time.sleep(1.1)
    # By name it would come first, were it not for the age.
    younger = world.client(f"{name}-a-younger", client_id=shared).apply(ready=False)
    return elder, younger


def test_a_taken_client_id_is_refused_and_its_owner_untouched_over_restarts(world: World) -> None:
    elder, younger = contenders(world, "taken")
    told = younger.wait("False", "ClientIdTaken")["message"]
    assert f"{world.namespace}/{elder.name}" in told
    token = elder.token()
    assert world.replicas[1].token_info(token).json()["permissions"] == ["owned"]
    assert younger.request().status_code == 401
    for _ in range(2):
        world.installation.restart_operator()
        younger.patch(description=f"after a restart, {time.time()}")
        younger.wait("False", "ClientIdTaken")
        elder.patch(description=f"after a restart, {time.time()}")
        elder.wait()
        assert world.everywhere(lambda one: one.token_info(token).status_code) == [200, 200]
        assert [elder.request(one).status_code for one in range(2)] == [200, 200]


def test_whoever_waits_for_a_client_id_has_it_once_its_owner_is_deleted(world: World) -> None:
    elder, younger = contenders(world, "freed")
    younger.wait("False", "ClientIdTaken")
    token = elder.token()
    elder.delete()
    younger.wait(seconds=10)
    assert [younger.request(one).status_code for one in range(2)] == [200, 200]
    assert [elder.request(one).status_code for one in range(2)] == [401, 401]
    # The owner's token had a permission that the new owner of the id does not have.
    wait_until(
        lambda: all("owned" not in one.token_info(token).text for one in world.replicas),
        "the former owner's permission to be gone",
        seconds=5,
    )


def test_many_clients_at_once_while_their_secrets_are_edited_lose_no_edit(world: World) -> None:
    with_keys = [world.client(f"crowd-{number}") for number in range(100)]
    with_secrets = [f"crowd-basic-{number}" for number in range(4)]
    (before,) = [one for one in world.installation.records() if one.name == "operator-0"]
    world.apply(
        *(one.manifest() for one in with_keys),
        *(basic_client(name, f"{name}-s") for name in with_secrets),
        *(secret(f"{name}-s", client_secret="edit-0") for name in with_secrets),
    )
    for edit in range(1, 4):
        for name in with_secrets:
            world.objects.patch("secrets", f"{name}-s", {"stringData": {"client_secret": f"edit-{edit}"}})
    names = [*(one.name for one in with_keys), *with_secrets]
    world.objects.wait_all_ready("clientcredentials", names, seconds=60)
    for name in with_secrets:
        wait_until(lambda name=name: grants(world, name, "edit-3") == [200, 200], "the last edit", seconds=EDIT_SECONDS)  # type: ignore[misc]
        assert grants(world, name, "edit-2") == [401, 401]
    assert all(one.request(number % 2).status_code == 200 for number, one in enumerate(with_keys[::10]))
    (after,) = [one for one in world.installation.records() if one.name == "operator-0"]
    assert after == before
    assert process.is_alive(after)
    for one in with_keys:
        world.objects.delete("clientcredentials", one.name)
