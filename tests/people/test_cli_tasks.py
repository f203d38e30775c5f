"""The command line on a running installation: whoever approves, is on call, or moves clients here gets it done with nothing else."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from pathlib import Path

import bcrypt
import pytest
import yaml

from keyturn_cli import change
from keyturn_cli.kube import open_kube
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import World, needs, route
from tests.cluster.portal import Portal
from tests.people.command_line import keyturn, kubeconfig, metrics
from tests.sample_keys import sample_key


@pytest.fixture(scope="module")
def accounts(world: World) -> None:
    """The ServiceAccount whose token the command shows to the service."""
    for verb in ("explain", "revoke"):
        Portal(world).caller(f"keyturn-{verb}", verb)


def test_a_registration_is_found_approved_and_gets_a_token(world: World) -> None:
    registered = Portal(world).with_key(client_name="Orders report", scope="orders:read")
    listed = keyturn(world, "clients", "pending")
    assert listed.returncode == 0, listed.stderr
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith(registered.name)]
    assert "Orders report" in line
    assert "orders:read" in line

    approved = keyturn(world, "clients", "approve", registered.name, "--as-requested", "--yes")
    assert approved.returncode == 0, approved.stderr
    assert "+    - orders:read" in approved.stderr
    world.objects.wait_for("clientcredentials", registered.name)
    told = world.replicas[0].token_info(registered.access_token()).json()
    assert told["permissions"] == ["orders:read"]
    assert registered.name not in keyturn(world, "clients", "pending").stdout
    shown = keyturn(world, "clients", "show", registered.name).stdout
    assert ["permission", "orders:read", "yes", "yes"] in [row.split() for row in shown.splitlines()]


def test_an_edit_made_meanwhile_is_refused_by_the_api_server_and_shown(world: World) -> None:
    client = world.client("cli-conflict").apply(permissions=["a"])
    read = json.loads(keyturn(world, "clients", "show", client.name, "-o", "json").stdout)
    made = change.approve(read, permissions=["mine"], audiences=[])
    client.patch(permissions=["theirs"])
    with open_kube(kubeconfig=str(kubeconfig(world))) as kube, pytest.raises(change.Conflict) as caught:
        change.apply(kube, made)
    assert "+    - theirs" in caught.value.difference
    assert world.objects.get("clientcredentials", client.name)["spec"]["permissions"] == ["theirs"]


def test_a_client_is_suspended_at_every_replica_and_goes_on(world: World) -> None:
    client = world.client("cli-stopped").apply()
    token = client.token()
    assert keyturn(world, "clients", "suspend", client.name, "--yes").returncode == 0
    wait_until(
        lambda: world.everywhere(lambda one: one.token_info(token).status_code) == [401, 401], "the stop", seconds=15
    )
    assert client.name in keyturn(world, "clients", "list", "--suspended", "-o", "name").stdout
    assert keyturn(world, "clients", "resume", client.name, "--yes").returncode == 0
    wait_until(
        lambda: world.everywhere(lambda one: one.token_info(token).status_code) == [200, 200], "the end", seconds=15
    )


def test_one_token_is_revoked_and_another_counts_on(world: World, accounts: None) -> None:
    client = world.client("cli-revoked").apply()
    gone, kept = client.token(), client.token()
    done = keyturn(world, "revoke", "--token", "-", stdin=gone)
    assert done.returncode == 0, done.stderr
    assert gone not in done.stderr
    wait_until(
        lambda: world.everywhere(lambda one: one.token_info(gone).status_code) == [401, 401], "it to go", seconds=15
    )
    assert world.replicas[0].token_info(kept).status_code == 200


def test_all_old_tokens_of_a_client_are_revoked_and_new_ones_count(world: World) -> None:
    client = world.client("cli-renewed").apply()
    old = client.token()
    assert keyturn(world, "revoke", client.name, "--yes").returncode == 0
    wait_until(
        lambda: world.everywhere(lambda one: one.token_info(old).status_code) == [401, 401], "it to go", seconds=15
    )

    def new_one_counts() -> bool:
        time.sleep(0.3)
        return world.replicas[0].token_info(client.token()).status_code == 200

    wait_until(new_one_counts, "new tokens to count", seconds=15)


def test_a_generated_credential_is_rotated(world: World) -> None:
    name = "cli-generated"
    spec = {"authMethod": "client_secret_basic", "clientSecret": {"secretName": name}}
    world.apply(
        {"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientCredential", "metadata": {"name": name}, "spec": spec}
    )
    world.objects.wait_for("clientcredentials", name)
    done = keyturn(world, "rotate", "client", name, "--wait", "--timeout", "60s")
    assert done.returncode == 0, done.stderr
    secrets = world.objects.get("clientcredentials", name)["status"]["secrets"]
    assert done.stdout.strip() in [one["id"] for one in secrets]
    assert len(secrets) == 2


def test_doctor_finds_nothing_wrong_with_a_running_installation(world: World) -> None:
    world.rule("cli-doctor", route("/cli-doctor", **needs("doctor:read")))
    done = keyturn(world, "doctor", *metrics(world), "-o", "json")
    found = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, found
    fine = {check for check, one in found.items() if one["outcome"] in ("ok", "warning")}
    # Outside pods there are no Deployments, and nothing is published.
    assert set(found) - fine == {"replicas", "public paths"}
    for check in ("CRDs", "versions", "RBAC", "service", "store", "revisions", "clocks", "signing key", "keys mounted"):
        assert found[check]["outcome"] == "ok", found[check]
    assert found["gateway headers"]["outcome"] == "ok", found["gateway headers"]


def test_doctor_says_what_is_wrong_and_what_to_do(world: World) -> None:
    done = keyturn(world, "doctor", "--public-url", world.replicas[0].url)
    assert done.returncode == 1
    assert re.search(r"^public paths +wrong +Reached from outside: /auth", done.stdout, re.MULTILINE)
    assert "Publish the public paths only" in done.stderr


def test_the_support_archive_has_the_logs_and_no_secret(world: World, tmp_path: Path) -> None:
    world.client("cli-bundled").apply()
    log = tmp_path / "api.log"
    log.write_bytes(world.installation.log("api-0").read_bytes()[-200_000:])
    done = keyturn(
        world, "bundle", "--out", "s.tar.gz", "--log", str(log), "--compare-secrets", *metrics(world), folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "s.tar.gz") as tar:
        files = {one.name.partition("/")[2]: (tar.extractfile(one) or io.BytesIO()).read().decode() for one in tar}
    assert "cli-bundled" in files["objects/clientcredentials.yaml"]
    assert "keyturn_api_applied_revision" in files["metrics/replica-0.txt"]
    assert files["logs/api.log"]
    secrets = list(yaml.safe_load_all(files["objects/secrets.yaml"]))
    assert "keyturn" in [one["metadata"]["name"] for one in secrets]
    assert all(set(one) == {"apiVersion", "kind", "metadata"} for one in secrets)


def test_nothing_is_written_while_a_key_stands_in_a_log(world: World, tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_bytes(b"a line\n" + sample_key("ES256", 7).to_pem())
    done = keyturn(world, "bundle", "--out", "s.tar.gz", "--log", str(log), folder=tmp_path)
    assert done.returncode == 1
    assert "a private key in PEM in logs/api.log, line 2" in done.stderr
    assert not (tmp_path / "s.tar.gz").exists()


def test_imported_clients_get_tokens_with_what_they_had(world: World, tmp_path: Path) -> None:
    key = sample_key("ES256", 900)
    hashed = bcrypt.hashpw(b"the secret of old", bcrypt.gensalt(4)).decode()
    records = [
        {
            "client_id": "5f0c2a9e-key",
            "token_endpoint_auth_method": "private_key_jwt",
            "public_key": dict(key.public.jwk),
        },
        {"client_id": "5f0c2a9e-secret", "client_secret": hashed, "permissions": ["orders:read"]},
    ]
    (tmp_path / "clients.json").write_text(json.dumps(records), "utf-8")
    arguments = ("import", "clients.json", "-o", "clients.yaml", "--secrets", "secrets.yaml")
    done = keyturn(world, *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for file in ("secrets.yaml", "clients.yaml"):
        world.kubectl("apply", "--validate=strict", "-f", str(tmp_path / file))
    for name in ("5f0c2a9e-key", "5f0c2a9e-secret"):
        world.objects.wait_for("clientcredentials", name)
    assert world.client("5f0c2a9e-key", key=key, client_id="5f0c2a9e-key").request().status_code == 200
    assert world.replicas[0].grant_basic("5f0c2a9e-secret", "the secret of old").status_code == 200
    assert world.replicas[0].grant_basic("5f0c2a9e-secret", "another").status_code == 401
    assert world.replicas[0].grant_basic("5f0c2a9e-secret", hashed[:72]).status_code == 401
