"""The runbooks of docs/keys.md: their commands, read out of the page and run as they stand, with kubectl and keyturn."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from keyturn.jose.signing import load_pem
from keyturn_dev.installation import Installation
from keyturn_dev.rights import SIGNING_KEY
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import PROMISE_SECONDS, World, as_object, signing_kids, world_of
from tests.cluster.conftest import signing_key
from tests.documents import PROJECT, RUN_BY, blocks, shown_objects
from tests.manifests import Manifest, manifest, rsa_key

PAGE = PROJECT / "docs" / "keys.md"
HEADING = re.compile(r"^### (.+)$", re.MULTILINE)
PASSPHRASE = "of the reference"


def runbook(title: str) -> list[str]:
    """The commands of a runbook, block by block."""
    text = PAGE.read_text(encoding="utf-8")
    begins = {found[1]: found.end() for found in HEADING.finditer(text)}
    ends = [found.start() for found in HEADING.finditer(text) if found.start() > begins[title]]
    part = text[begins[title] : min(ends, default=len(text))]
    return [block.text for block in blocks(PAGE) if RUN_BY.fullmatch(block.mark) and f"```sh\n{block.text}```" in part]


class Shell:
    """A person's shell: kubectl and keyturn on the PATH, and a kubeconfig whose context names the installation's namespace."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        cluster = world.installation.target
        document = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
        for context in document["contexts"]:
            context["context"]["namespace"] = world.namespace
        (folder / "kubeconfig").write_text(yaml.safe_dump(document), encoding="utf-8")
        programs = folder / "bin"
        programs.mkdir()
        (programs / "kubectl").symlink_to(cluster.kubectl)
        (programs / "keyturn").symlink_to(Path(sys.executable).parent / "keyturn")

    def run(self, script: str) -> str:
        """What the commands print; fails with all of it when one of them does."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KEYTURN_", "KUBE"))}
        environ = {
            **kept,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "PRIVATE_KEY_PASSWORD": PASSPHRASE,
        }
        done = subprocess.run(
            ["/bin/sh", "-eu"],
            input=script,
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def world(crds: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An installation for all runbooks, whose next key may sign soon after it was made."""
    own = Installation(crds, "runbooks", tmp_path_factory.mktemp("installation") / "state", replicas=2)  # type: ignore[arg-type]
    with ExitStack() as stack:
        stack.callback(own.stop)
        own.start()
        own.apply([signing_key(own.namespace, publishBefore="2s")])
        own.wait_ready()
        yield stack.enter_context(world_of(own, replicas=2))


@pytest.fixture
def shell(world: World, tmp_path: Path) -> Shell:
    return Shell(world, tmp_path)


class Reports:
    """The client `reports` of the page, whose key the operator makes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = world.client("reports")

    def secret(self) -> dict[str, str]:
        data = self.world.objects.get("secrets", "reports-key")["data"]
        return {name: base64.b64decode(value).decode() for name, value in data.items()}

    def answer(self, secret: dict[str, str]) -> httpx2.Response:
        key = load_pem(secret["private_key.pem"].encode(), kid=secret["key_id"], algorithm="RS256")
        return self.client.request(key=key)

    def status(self, secret: dict[str, str]) -> int:
        return self.answer(secret).status_code

    def token(self, secret: dict[str, str]) -> str:
        return str(as_object(self.answer(secret))["access_token"])


@pytest.fixture(scope="module")
def reports(world: World) -> Reports:
    (shown,) = [one for place, one in shown_objects() if place == "docs/keys.md: ClientCredential reports"]
    world.apply(shown)
    world.objects.wait_for("clientcredentials", "reports")
    return Reports(world)


def states(world: World) -> dict[str, str]:
    return {key["kid"]: key["state"] for key in world.objects.get("signingkeys", SIGNING_KEY)["status"]["keys"]}


def active(world: World) -> str:
    (kid,) = [kid for kid, state in states(world).items() if state == "Active"]
    return kid


def accepted(world: World, token: str) -> list[int]:
    """What each replica makes of an access token."""
    return world.everywhere(lambda one: one.token_info(token).status_code)


def start_on_an_empty_store(world: World) -> None:
    own = world.installation
    for name in ("operator-0", "api-0", "api-1"):
        assert own.stop_process(name)
    for path in own.state.glob("store.sqlite*"):
        path.unlink()
    own.start_operator()
    for number in range(2):
        own.start_api(number)
    own.wait_ready()


def test_each_runbook_has_its_commands() -> None:
    text = PAGE.read_text(encoding="utf-8")
    titles = [found[1] for found in HEADING.finditer(text[text.index("\n## Runbooks") :])]
    assert titles == [
        "Planned rotation",
        "A compromised signing key",
        "A compromised client",
        "Restore from a backup",
        "A lost store",
        "The move from the reference",
    ]
    assert [bool(runbook(title)) for title in titles] == [True] * 6


def test_a_planned_rotation_leaves_every_token_valid(world: World, shell: Shell) -> None:
    client = world.client("planned").apply()
    before, token = active(world), client.token()
    printed = shell.run(runbook("Planned rotation")[0])
    assert active(world) != before
    assert active(world) in printed
    assert states(world)[before] == "Retired"
    assert accepted(world, token) == [200, 200]
    assert accepted(world, client.token(1)) == [200, 200]


def test_a_generated_key_is_replaced_with_an_overlap(reports: Reports, shell: Shell) -> None:
    before = reports.secret()
    _, ask, look = runbook("Planned rotation")
    shell.run(ask)
    wait_until(lambda: reports.secret()["key_id"] != before["key_id"], "another key", seconds=15)
    after = reports.secret()
    wait_until(lambda: f"{before['key_id']}  until 20" in shell.run(look), "the end of the one before", seconds=10)
    assert [reports.status(one) for one in (before, after)] == [200, 200]


def test_a_compromised_client_is_stopped_and_comes_back_with_another_key(reports: Reports, shell: Shell) -> None:
    stop, replace, resume = runbook("A compromised client")
    world = reports.world
    before = reports.secret()
    token = reports.token(before)
    shell.run(stop)
    wait_until(lambda: accepted(world, token) == [401, 401], "the stop to count", seconds=PROMISE_SECONDS)
    assert reports.status(before) == 401
    # Times are whole seconds: a token of the second in which they are revoked counts as one of after it.
    time.sleep(1.1)
    shell.run(replace)
    wait_until(lambda: reports.secret()["key_id"] != before["key_id"], "another key", seconds=15)
    after = reports.secret()
    shell.run(resume)
    assert (reports.status(before), reports.status(after)) == (401, 200)
    assert accepted(world, token) == [401, 401]


@pytest.mark.parametrize(("block", "only_active"), [(0, False), (1, True)], ids=["all keys", "the active key alone"])
def test_withdrawn_signing_keys_are_refused_and_never_come_back(
    world: World, shell: Shell, block: int, only_active: bool
) -> None:
    client = world.client(f"withdrawn-{block}").apply()
    token = client.token()
    before = {
        kid for kid, state in states(world).items() if state in (("Active",) if only_active else ("Active", "Next"))
    }
    shell.run(runbook("A compromised signing key")[block])
    assert {states(world)[kid] for kid in before} == {"Compromised"}
    assert accepted(world, token) == [401, 401]
    assert accepted(world, client.token(1)) == [200, 200]


def test_a_restored_secret_with_older_keys_is_noticed(world: World, shell: Shell) -> None:
    client = world.client("restored").apply()
    backup = world.objects.get("secrets", SIGNING_KEY)
    old = active(world)
    shell.run(runbook("Planned rotation")[0])
    token = client.token()
    metadata = {"name": SIGNING_KEY, "labels": backup["metadata"].get("labels") or {}}
    world.apply({**backup, "metadata": {**metadata, "namespace": world.namespace}})
    world.objects.wait_for("signingkeys", SIGNING_KEY, kind="SecretRestored")
    world.objects.wait_for("signingkeys", SIGNING_KEY)
    (script,) = runbook("Restore from a backup")
    assert "SecretRestored: " in shell.run(script)
    assert active(world) != old
    assert accepted(world, token) == [200, 200]
    wait_until(lambda: client.request(1).status_code == 200, "tokens to be had again", seconds=30)


def test_after_a_lost_store_all_is_there_again_and_tokens_of_before_are_refused(world: World, shell: Shell) -> None:
    client = world.client("lost").apply()
    token = client.token()
    start_on_an_empty_store(world)
    (script,) = runbook("A lost store")
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=30)
    printed = shell.run(script)
    assert "clientcredential.keyturn.dev/lost" in printed
    wait_until(lambda: accepted(world, token) == [401, 401], "the old token to be refused", seconds=10)
    wait_until(lambda: client.request().status_code == 200, "the client to get tokens again", seconds=30)


def reference_pem() -> bytes:
    encryption = BestAvailableEncryption(PASSPHRASE.encode())
    return rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def shown_import() -> Manifest:
    """The object that the page shows, with a lead time that a test can wait for."""
    (shown,) = [
        document
        for block in blocks(PAGE)
        if block.language == "yaml"
        for document in yaml.safe_load_all(block.text)
        if "importFrom" in document.get("spec", {})
    ]
    spec = {**shown["spec"], "publishBefore": "2s"}
    return manifest(shown["kind"], shown["metadata"]["name"], spec)


def test_the_reference_s_key_is_taken_over_and_followed_later(world: World, shell: Shell) -> None:
    world.kubectl("delete", "signingkey", SIGNING_KEY)
    world.kubectl("delete", "secret", SIGNING_KEY)
    (shell.folder / "private.pem").write_bytes(reference_pem())
    (shell.folder / "signing-key.yaml").write_text(json.dumps(shown_import()), encoding="utf-8")
    adopt, follow = runbook("The move from the reference")
    shell.run(adopt)
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=30)
    assert active(world) == "reference-2024"
    client = world.client("moved").apply()
    token = client.token()
    shell.run(follow)
    assert active(world) != "reference-2024"
    assert "reference-2024" in signing_kids(world)
    assert accepted(world, token) == [200, 200]
    assert as_object(client.request())["token_type"] == "Bearer"
