"""Signing keys on a real API server: rotated, withdrawn, imported, lost and restored, with two API replicas and clients that look on."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from keyturn_dev.cluster import Cluster
from keyturn_dev.errors import DevError
from keyturn_dev.installation import Installation
from keyturn_dev.rights import SIGNING_KEY
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import PROMISE_SECONDS, Client, Replica, World, world_of
from tests.manifests import Manifest, manifest

ROTATE, COMPROMISED = "keyturn.dev/rotate", "keyturn.dev/compromised"
QUICK = {"algorithm": "ES256", "publishBefore": "2s", "rotateEvery": "0s"}
# Everything but the promise itself may take its time on a busy machine.
PATIENCE = 40.0


@pytest.fixture(scope="module")
def rotating(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An installation whose keys are made quickly and published for two seconds; each test leaves it working."""
    own = Installation(crds, "keyturn-rotating", tmp_path_factory.mktemp("rotating") / "state", replicas=2)
    try:
        own.start()
        own.apply([manifest("SigningKey", SIGNING_KEY, QUICK)])
        own.wait_ready()
        with world_of(own, replicas=2) as world:
            world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
            yield world
    finally:
        own.stop()


@pytest.fixture
def client(rotating: World) -> Client:
    return rotating.client(f"client-{next(rotating.key_numbers)}").apply(permissions=["p"])


def states(world: World) -> dict[str, str]:
    status = world.objects.get("signingkeys", SIGNING_KEY)["status"]
    return {key["kid"]: key["state"] for key in status.get("keys") or ()}


def kid_in(world: World, state: str) -> str:
    return next(kid for kid, one in states(world).items() if one == state)


def jwks(replica: Replica) -> list[str]:
    return [key["kid"] for key in httpx2.get(f"{replica.url}/.well-known/jwks.json").json()["keys"]]


def cache_control(replica: Replica) -> str:
    return httpx2.get(f"{replica.url}/.well-known/jwks.json").headers["cache-control"]


def kid_of(token: str) -> str:
    kid = jwt.get_unverified_header(token)["kid"]
    assert isinstance(kid, str)
    return kid


def infos(world: World, token: str) -> list[int]:
    """What each replica says to the token."""
    return world.everywhere(lambda one: one.token_info(token).status_code)


def await_another(world: World, before: set[str], what: str) -> None:
    """Until a key signs that is none of those. Between an older Secret and new keys there is none at all."""

    def another() -> bool:
        active = {kid for kid, state in states(world).items() if state == "Active"}
        return bool(active - before)

    wait_until(another, what, seconds=PATIENCE, interval=0.2)


def annotate(world: World, name: str, value: str | None) -> None:
    world.objects.patch("signingkeys", SIGNING_KEY, {"metadata": {"annotations": {name: value}}})


def rotate(world: World, value: str) -> str:
    """Asks for a rotation, and returns the kid that signs after it."""
    before = kid_in(world, "Active")
    annotate(world, ROTATE, value)
    await_another(world, {before}, f"the rotation {value}")
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
    return kid_in(world, "Active")


def private_members(world: World) -> set[str]:
    return {name for name in world.objects.get("secrets", SIGNING_KEY)["data"] if name.endswith(".pem")}


def command(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "KUBECONFIG": str(world.installation.target.kubeconfig),
    }
    program = Path(sys.executable).parent / "keyturn"
    return subprocess.run(
        [str(program), "rotate", "signing-key", SIGNING_KEY, "-n", world.namespace, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_an_annotation_promotes_the_next_key_which_everybody_knows_already(rotating: World, client: Client) -> None:
    world = rotating
    active, following = kid_in(world, "Active"), kid_in(world, "Next")
    old = client.token()
    assert kid_of(old) == active
    assert all(set(jwks(replica)) >= {active, following} for replica in world.replicas)
    assert rotate(world, "by annotation") == following
    assert [kid_of(client.token(number)) for number in range(2)] == [following, following]
    assert world.everywhere(lambda one: one.token_info(old).status_code) == [200, 200], "what it signed counts on"
    assert states(world)[active] == "Retired"

    # Nobody signs with the old one any more, so its private half goes, and the day of its removal is known.
    wait_until(
        lambda: private_members(world) == {f"{kid}.pem" for kid in (following, kid_in(world, "Next"))},
        "the old private half to leave the Secret",
        seconds=PATIENCE,
    )

    def removal() -> Any:
        keys = world.objects.get("signingkeys", SIGNING_KEY)["status"]["keys"]
        return next(key for key in keys if key["kid"] == active).get("removeAt")

    wait_until(lambda: removal() is not None, "the time of the old key's removal", seconds=PATIENCE)


def test_the_same_value_again_and_restarts_rotate_nothing(rotating: World) -> None:
    world = rotating
    rotate(world, "once")
    before = states(world)
    annotate(world, ROTATE, None)
    annotate(world, ROTATE, "once")
    world.installation.restart_operator()
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
    time.sleep(3.0)
    assert states(world) == before


def test_a_rotation_waits_until_the_next_key_is_old_enough_and_says_so(rotating: World) -> None:
    world = rotating
    rotate(world, "first of two")
    world.objects.patch("signingkeys", SIGNING_KEY, {"spec": {"publishBefore": "30s"}})
    annotate(world, ROTATE, "too early")
    pending = world.objects.wait_for("signingkeys", SIGNING_KEY, kind="RotationPending", seconds=PATIENCE)
    assert pending["reason"] == "NextKeyTooYoung"
    assert kid_in(world, "Next") in pending["message"]
    wait_until(
        lambda: all(cache_control(one) == "public, max-age=15" for one in world.replicas),
        "the JWKS to say that it may be kept for half of that",
        seconds=PATIENCE,
    )
    before = kid_in(world, "Active")
    world.objects.patch("signingkeys", SIGNING_KEY, {"spec": {"publishBefore": "2s"}})
    # Others may keep a JWKS for as long as it said before.
    wait_until(lambda: kid_in(world, "Active") != before, "the rotation that was held back", seconds=15 + PATIENCE)
    world.objects.wait_for("signingkeys", SIGNING_KEY, "False", kind="RotationPending", seconds=PATIENCE)


def test_the_command_rotates_and_waits(rotating: World, client: Client) -> None:
    following = kid_in(rotating, "Next")
    done = command(rotating, "--wait", "--timeout", "80s")
    assert (done.returncode, done.stdout.strip()) == (0, following), done.stderr
    assert kid_of(client.token(1)) == following


def test_a_compromised_active_key_is_refused_within_a_second_and_the_next_one_signs(
    rotating: World, client: Client
) -> None:
    world = rotating
    active, following = kid_in(world, "Active"), kid_in(world, "Next")
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
    token = client.token()
    assert kid_of(token) == active
    world.rule("guarded", {"path": "/guarded", "methods": ["GET"], "permissions": {"anyOf": ["p"]}})
    assert world.everywhere(lambda one: one.auth("/guarded", token).status_code) == [200, 200]

    annotate(world, COMPROMISED, active)
    took = world.seconds_until(
        lambda: (
            infos(world, token) == [401, 401]
            and world.everywhere(lambda one: one.auth("/guarded", token).status_code) == [401, 401]
            and all(active not in jwks(one) for one in world.replicas)
        ),
        "the withdrawal everywhere",
    )
    assert took < PROMISE_SECONDS
    # Without a gap: the next one was published and loaded.
    assert [kid_of(client.token(number)) for number in range(2)] == [following, following]
    invalidated = world.objects.wait_for("signingkeys", SIGNING_KEY, kind="TokensInvalidated", seconds=PATIENCE)
    assert invalidated["reason"] == "KeysCompromised"
    assert world.objects.wait_event(SIGNING_KEY, "KeysCompromised")["type"] == "Warning"


def test_the_command_withdraws_all_keys_and_they_never_come_back(rotating: World, client: Client) -> None:
    world = rotating
    backup = world.objects.get("secrets", SIGNING_KEY)
    before = {kid for kid, state in states(world).items() if state in ("Active", "Next")}
    token = client.token()
    done = command(world, "--compromised", "--wait", "--timeout", "80s")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() not in before
    assert infos(world, token) == [401, 401]
    assert not any(before & set(jwks(one)) for one in world.replicas)
    assert kid_of(client.token(1)) == done.stdout.strip()

    annotate(world, COMPROMISED, None)
    restore_secret(world, backup)
    restored = world.objects.wait_for("signingkeys", SIGNING_KEY, kind="SecretRestored", seconds=PATIENCE)
    assert restored["reason"] == "OlderSecret"
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
    found = states(world)
    assert {found[kid] for kid in before} == {"Compromised"}
    assert not any(before & set(jwks(one)) for one in world.replicas)
    assert not {f"{kid}.pem" for kid in before} & private_members(world)
    assert infos(world, token) == [401, 401]
    assert kid_of(client.token()) not in before


def test_an_object_that_is_restored_with_an_older_secret_brings_no_withdrawn_key_back(
    rotating: World, client: Client
) -> None:
    """The object is another one then, without status and annotations; what knows of the withdrawal is the store alone."""
    world, own = rotating, rotating.installation
    backup = world.objects.get("secrets", SIGNING_KEY)
    before = {kid for kid, state in states(world).items() if state in ("Active", "Next")}
    token = client.token()
    done = command(world, "--compromised", "--wait", "--timeout", "80s")
    assert done.returncode == 0, done.stderr
    for name in ("operator-0", "api-0", "api-1"):
        assert own.stop_process(name)
    world.objects.delete("signingkeys", SIGNING_KEY)
    restore_secret(world, backup)
    own.apply([manifest("SigningKey", SIGNING_KEY, QUICK)])
    own.start_operator()
    for number in range(2):
        own.start_api(number)
    own.wait_ready()
    world.objects.wait_for("signingkeys", SIGNING_KEY, kind="SecretRestored", reason="OlderSecret", seconds=PATIENCE)
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
    assert {states(world)[kid] for kid in before} == {"Compromised"}
    assert not any(before & set(jwks(one)) for one in world.replicas)
    assert not {f"{kid}.pem" for kid in before} & private_members(world)
    assert infos(world, token) == [401, 401]
    wait_until(lambda: client.request().status_code == 200, "tokens to be had again", seconds=PATIENCE)
    assert kid_of(client.token()) not in before


def restore_secret(world: World, backup: Manifest) -> None:
    """As a backup program does: the members as they were, and none besides."""
    present = world.objects.get("secrets", SIGNING_KEY)["data"]
    world.objects.patch("secrets", SIGNING_KEY, {"data": {**dict.fromkeys(present), **backup["data"]}})


def test_an_older_secret_is_reported_and_not_signed_with(rotating: World, client: Client) -> None:
    world = rotating
    backup = world.objects.get("secrets", SIGNING_KEY)
    old = kid_in(world, "Active")
    token_of_old = client.token()
    newer = [rotate(world, "after the backup"), rotate(world, "and once more")]
    token_of_newer = client.token()
    assert kid_of(token_of_newer) == newer[-1]
    restore_secret(world, backup)
    await_another(world, {old, *newer}, "new keys")
    world.objects.wait_for("signingkeys", SIGNING_KEY, kind="SecretRestored", seconds=PATIENCE)
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
    assert kid_of(client.token()) not in (old, *newer)
    for token in (token_of_old, token_of_newer):
        assert infos(world, token) == [200, 200]


def test_a_deleted_secret_brings_new_keys_an_event_and_a_condition(rotating: World, client: Client) -> None:
    world = rotating
    token = client.token()
    before = states(world)
    world.objects.delete("secrets", SIGNING_KEY)
    world.objects.wait_for(
        "signingkeys", SIGNING_KEY, kind="TokensInvalidated", reason="SigningKeysLost", seconds=PATIENCE
    )
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
    world.objects.wait_event(SIGNING_KEY, "SigningKeysLost")
    assert kid_in(world, "Active") not in before
    assert {kid: "Compromised" for kid, state in before.items() if state == "Compromised"}.items() <= states(
        world
    ).items()
    wait_until(
        lambda: infos(world, token) == [401, 401],
        "the old keys' tokens to be refused",
        seconds=PATIENCE,
    )
    assert kid_of(client.token(1)) == kid_in(world, "Active")


def test_a_killed_operator_leaves_keys_that_work_and_the_rotation_is_brought_to_its_end(
    rotating: World, client: Client
) -> None:
    """Killed at other instants of a rotation each time: before, between and after its writes."""
    world = rotating
    tokens = [client.token()]
    for number, pause in enumerate((0.0, 0.05)):
        before = kid_in(world, "Active")
        time.sleep(2.2)  # the next key is old enough then
        annotate(world, ROTATE, f"killed-{number}")
        time.sleep(pause)
        world.kill_operator()
        for replica in range(2):
            fresh = client.token(replica)
            tokens.append(fresh)
            assert kid_of(fresh) in jwks(world.replicas[1 - replica])
        assert all(jwks(one) for one in world.replicas)
        give_up_the_lease(world)
        world.installation.start_operator()
        await_another(world, {before}, f"rotation {number}")
        world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
        assert sorted(states(world).values()).count("Active") == 1
    for token in tokens:
        assert infos(world, token) == [200, 200]


def give_up_the_lease(world: World) -> None:
    """What only time would do otherwise: the Lease of a killed process ends."""
    world.objects.patch("leases", "keyturn-operator", {"spec": {"holderIdentity": ""}})


PASSPHRASE = b"correct horse battery"


def test_an_encrypted_key_of_the_service_before_is_adopted_and_then_rotated(
    crds: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(PASSPHRASE))
    own = Installation(crds, "keyturn-import", tmp_path_factory.mktemp("import") / "state", replicas=1)
    try:
        own.start()
        source = {"secretName": "old-service", "key": "key.pem", "passphraseKey": "password", "kid": "old-kid"}
        own.apply([manifest("SigningKey", SIGNING_KEY, {**QUICK, "importFrom": source, "deletionPolicy": "Delete"})])
        with world_of(own, replicas=1) as world:
            world.objects.wait_for("signingkeys", SIGNING_KEY, "False", reason="SecretNotFound", seconds=PATIENCE)
            data = {"key.pem": base64.b64encode(pem).decode(), "password": base64.b64encode(b"wrong").decode()}
            world.objects.create("secrets", {"metadata": {"name": "old-service"}, "data": data})
            failed = world.objects.wait_for(
                "signingkeys", SIGNING_KEY, "False", reason="ImportFailed", seconds=PATIENCE
            )
            assert "key.pem" in failed["message"]
            right = {"password": base64.b64encode(PASSPHRASE).decode()}
            world.objects.patch("secrets", "old-service", {"data": right})
            world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=PATIENCE)
            own.wait_ready()
            assert states(world)["old-kid"] == "Active"
            world.objects.wait_for("signingkeys", SIGNING_KEY, kind="Imported", seconds=PATIENCE)

            client = world.client("moved").apply(permissions=["p"])
            issued = int(time.time()) - 3600
            claims = {
                "iss": own.url,
                "sub": client.client_id,
                "client_id": client.client_id,
                "aud": [own.url],
                "iat": issued,
                "exp": issued + 7200,
                "jti": "from-the-old-service",
                "permissions": ["p"],
            }
            plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            old = jwt.encode(claims, plain, "RS256", {"kid": "old-kid", "typ": "JWT"})
            assert world.replicas[0].token_info(old).status_code == 200, "it is older than its client's object"
            assert kid_of(client.token()) == "old-kid"

            # An import after the fact is refused by the API server.
            change = json.dumps({"spec": {"importFrom": {"secretName": "another"}}})
            with pytest.raises(DevError, match="importFrom"):
                world.kubectl("patch", "signingkey", SIGNING_KEY, "--type=merge", "-p", change)
            world.objects.delete("secrets", "old-service")
            assert rotate(world, "away from it") != "old-kid"
            assert states(world)["old-kid"] == "Retired"
            assert world.replicas[0].token_info(old).status_code == 200
            assert client.token()

            (owner,) = world.objects.get("secrets", SIGNING_KEY)["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["name"], owner["blockOwnerDeletion"]) == ("SigningKey", SIGNING_KEY, False)
            world.objects.delete("signingkeys", SIGNING_KEY)
            wait_until(
                lambda: all(one["metadata"]["name"] != SIGNING_KEY for one in world.objects.all("secrets")),
                "the Secret to go with its SigningKey",
                seconds=PATIENCE,
            )
    finally:
        own.stop()
