"""Backup, a lost namespace and the restore, by the commands of docs/install.md; and removal with the namespace first."""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import httpx2
import pytest

from keyturn_dev.waiting import wait_until
from tests.node.conftest import SMALL, client, make_caller, volume_for
from tests.node.kubectl import Kubectl
from tests.node.load import Caller
from tests.node.page import Shell

ISSUER = "https://tokens.vault.example"


@pytest.fixture(scope="module")
def vault(make_project: Callable[..., AbstractContextManager[Kubectl]]) -> Iterator[Kubectl]:
    # Whoever was registered before a restore goes on, whatever the values say then of those who come.
    with make_project("vault", {"api": {"gatewayProfile": "nginx"}, "registration": {"mode": "open"}}) as kubectl:
        yield kubectl


@pytest.fixture(scope="module")
def shell(vault: Kubectl, make_shell: Callable[..., Shell]) -> Shell:
    own = make_shell("vault", SMALL)
    assert own.save_values() == ISSUER
    return own


def key_id(vault: Kubectl, secret: str) -> str:
    return base64.b64decode(vault.get(f"secret/{secret}")["data"]["key_id"]).decode()


def active(vault: Kubectl) -> str:
    (kid,) = [one["kid"] for one in vault.get("signingkey/keyturn")["status"]["keys"] if one["state"] == "Active"]
    return str(kid)


class Registered:
    """A client that has registered itself, and knows its secret and its registration token."""

    def __init__(self, url: str) -> None:
        self.url = url
        answer = httpx2.post(f"{url}/register", json={"client_name": "Portal's"}, timeout=20, trust_env=False)
        assert answer.status_code == 201, answer.text
        self._told = answer.json()
        self.name = self._told["client_id"].partition(".")[2]

    def token_status(self) -> int:
        form = {"grant_type": "client_credentials"}
        known = (self._told["client_id"], self._told["client_secret"])
        return httpx2.post(f"{self.url}/oauth/token", data=form, auth=known, timeout=10, trust_env=False).status_code

    def read_status(self) -> int:
        bearer = {"Authorization": f"Bearer {self._told['registration_access_token']}"}
        path = f"/register/{self._told['client_id']}"
        return httpx2.get(f"{self.url}{path}", headers=bearer, timeout=10, trust_env=False).status_code

    def secrets(self, vault: Kubectl) -> list[dict[str, Any]]:
        found = vault.get("secret", "--field-selector=type=keyturn.dev/registration")["items"]
        return [one for one in found if one["metadata"]["name"].startswith(self.name)]


def post(caller: Caller, form: dict[str, str]) -> int:
    return httpx2.post(f"{caller.url}/oauth/token", data=form, timeout=10, trust_env=False).status_code


def test_a_lost_namespace_is_restored_with_ids_keys_and_used_assertions(vault: Kubectl, shell: Shell) -> None:
    before = make_caller(vault, "caller", ISSUER)
    vault.apply(
        client("kept", {"generateKey": {"secretName": "kept-key"}, "deletionPolicy": "Retain"}),
        client("renewed", {"generateKey": {"secretName": "renewed-key"}}),
    )
    for name in ("kept", "renewed"):
        vault.wait_ready(f"clientcredential/{name}")
    registered = Registered(before.url)
    assert registered.token_status() == 200
    keys = {name: key_id(vault, f"{name}-key") for name in ("kept", "renewed")}
    kid = active(vault)
    # Long enough to outlive the restore.
    now = int(time.time())
    used = before.form(iat=now, exp=now + 900)
    assert post(before, used) == 200
    shell.section("Backup")

    # The namespace first: nobody waits for an operator that is gone.
    began = time.monotonic()
    delete, the_rest = shell.scripts("Removal")[2].splitlines()
    shell(delete, seconds=70)
    assert time.monotonic() - began < 60
    shell(the_rest)
    vault("delete", "persistentvolume", "keyturn-vault", "--wait=false")
    vault.wait_gone("persistentvolume/keyturn-vault")

    with ExitStack() as stack:
        stack.enter_context(volume_for(vault))
        for script in shell.scripts("A project")[:2]:
            shell(script)
        shell.section("Restore")
        after = make_caller(vault, "caller", ISSUER)
        assert key_id(vault, "kept-key") == keys["kept"]
        assert key_id(vault, "renewed-key") != keys["renewed"]
        assert active(vault) == kid
        assert post(after, used) == 401, "the store knows which assertions were used"
        assert after.token_info(after.token()) == 200
        # The registered client goes on with what only it knows; its Secret goes with it and not before.
        registered.url = after.url
        vault.wait_ready(f"clientcredential/{registered.name}")
        assert registered.token_status() == 200
        assert registered.read_status() == 200
        hashes = registered.secrets(vault)
        owners = [one["metadata"]["ownerReferences"][0]["uid"] for one in hashes]
        assert owners == [vault.get(f"clientcredential/{registered.name}")["metadata"]["uid"]]

        # PostgreSQL's next major version, though to the same one: this machine has no other.
        leave, enter = shell.scripts("PostgreSQL's next major version")
        shell(leave)
        stack.enter_context(volume_for(vault))
        shell(enter)
        wait_until(lambda: post(after, after.form()) == 200, "tokens to be had again", seconds=60, interval=0.5)
        assert post(after, used) == 401, "the dump knows which assertions were used"
        assert registered.token_status() == 200

        # Clients first, then the release, then the namespace.
        vault("delete", "cc", "--all", "--timeout=60s")
        wait_until(
            lambda: not vault("get", "secret", "renewed-key", "--ignore-not-found"),
            "the Secret to follow its client",
            seconds=60,
            interval=0.5,
        )
        wait_until(lambda: not registered.secrets(vault), "the hashes to follow their client", seconds=60, interval=0.5)
        assert key_id(vault, "kept-key") == keys["kept"]
        shell(shell.scripts("Removal")[0], seconds=90)
        vault("delete", "namespace", "vault", "--timeout=60s", seconds=70)
