"""Upgrades, drains and deaths under load: nothing is lost, but for what is documented while PostgreSQL is away."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from keyturn_dev.node import NodeCluster
from keyturn_dev.node_components import NODE_NAME
from keyturn_dev.waiting import wait_until
from tests.node.conftest import client
from tests.node.kubectl import Kubectl
from tests.node.load import Caller, Load
from tests.node.page import Shell
from tests.node.processes import kill

TAKEOVER_SECONDS = 20.0


@pytest.fixture(scope="module", autouse=True)
def made_before(shop: Kubectl) -> None:
    """A client whose secret the operator has made."""
    spec = {"authMethod": "client_secret_basic", "clientSecret": {"secretName": "made-before"}}
    shop.apply(client("made-before", spec))
    shop.wait_ready("clientcredential/made-before")


@pytest.fixture(scope="module")
def load(caller: Caller) -> Iterator[Load]:
    with Load(caller) as one:
        time.sleep(1)
        yield one


def pods(shop: Kubectl, part: str) -> list[dict[str, Any]]:
    """A part's pods that are not about to go."""
    items = shop.get("pods", f"--selector=app.kubernetes.io/component={part}")["items"]
    return [one for one in items if "deletionTimestamp" not in one["metadata"]]


def all_available(shop: Kubectl) -> None:
    for part in ("api", "operator"):
        shop("rollout", "status", f"deployment/keyturn-{part}", "--timeout=120s", seconds=150)
    shop("rollout", "status", "statefulset/keyturn-postgresql", "--timeout=120s", seconds=150)


def made_secrets(shop: Kubectl) -> dict[str, Any]:
    items = shop.get("secret", "--selector=app.kubernetes.io/managed-by=keyturn")["items"]
    found = {one["metadata"]["name"]: one["data"] for one in items}
    assert found.keys() >= {"keyturn", "made-before"}
    return found


def leader(shop: Kubectl) -> dict[str, Any]:
    holder = shop.get("lease/keyturn-operator")["spec"].get("holderIdentity") or ""
    found = [one for one in pods(shop, "operator") if one["metadata"]["name"] in holder]
    assert len(found) == 1, holder
    return found[0]


def test_an_upgrade_of_image_values_and_signing_key_loses_nothing_and_so_does_the_way_back(
    shop: Kubectl, shop_shell: Shell, load: Load, node: NodeCluster
) -> None:
    for part in ("api", "operator"):
        node.images.tag(f"localhost/keyturn-{part}:node", f"localhost/keyturn-{part}:next")
    machine = shop_shell.folder / "machine.json"
    values = shop_shell.folder / "shop.yaml"
    of_machine, of_page = machine.read_text(), values.read_text()
    made = made_secrets(shop)
    password = shop.get("secret/keyturn-postgresql")["data"]
    database = running_database(shop)
    machine.write_text(of_machine.replace('"tag": "node"', '"tag": "next"'))
    changed = "    KEYTURN_TOKEN_LIFETIME: 600\nsigningKey:\n  spec: {rotateEvery: 480h, retainAfter: 2h}\n"
    values.write_text(of_page + changed)
    with shop_shell.newer_charts("99.0.0"), load.nothing_lost():
        shop_shell.section("Upgrade")
    assert shop.get("deployment/keyturn-api")["metadata"]["labels"]["helm.sh/chart"] == "keyturn-99.0.0"
    assert running_database(shop) == database, "the database is not started anew"
    images = {one["spec"]["containers"][0]["image"] for part in ("api", "operator") for one in pods(shop, part)}
    assert images == {"localhost/keyturn-api:next", "localhost/keyturn-operator:next"}
    assert shop.get("signingkey/keyturn")["spec"]["rotateEvery"] == "480h"

    values.write_text(of_page)
    machine.write_text(of_machine)
    with load.nothing_lost():
        shop_shell.section("The way back")
    all_available(shop)
    images = {one["spec"]["containers"][0]["image"] for part in ("api", "operator") for one in pods(shop, part)}
    assert images == {"localhost/keyturn-api:node", "localhost/keyturn-operator:node"}
    assert made_secrets(shop) == made, "no key and no secret changes by an upgrade"
    assert shop.get("secret/keyturn-postgresql")["data"] == password
    assert running_database(shop) == database


def running_database(shop: Kubectl) -> tuple[str, int]:
    """Which pod it is, and how often its container has started."""
    (pod,) = pods(shop, "postgresql")
    return pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]


def test_scaling_up_and_down_loses_nothing(shop: Kubectl, shop_shell: Shell, load: Load) -> None:
    with load.nothing_lost():
        shop_shell.section("Scaling")
        assert len(pods(shop, "api")) == 3
        shop("scale", "deployment/keyturn-api", "--replicas=2")
        wait_until(lambda: len(pods(shop, "api")) == 2, "one API pod to go", seconds=30, interval=0.5)
        time.sleep(6)  # it still serves, and then ends


def test_a_killed_api_pod_loses_nothing(shop: Kubectl, load: Load) -> None:
    all_available(shop)
    with load.nothing_lost():
        shop("delete", "pod", pods(shop, "api")[0]["metadata"]["name"], "--wait=true", seconds=90)
        all_available(shop)


def test_a_drain_takes_one_api_pod_at_a_time_and_loses_nothing(shop: Kubectl, load: Load) -> None:
    """There is one node: until it may be used again the budget lets no second pod go, and the drain has to wait."""
    all_available(shop)
    before = {one["metadata"]["uid"] for one in pods(shop, "api")}
    told: list[str] = []

    def drain() -> None:
        selector = "--pod-selector=app.kubernetes.io/component=api"
        told.append(shop("drain", NODE_NAME, selector, "--delete-emptydir-data", "--timeout=120s", seconds=150))

    draining = threading.Thread(target=drain, name="drain")
    with load.nothing_lost():
        draining.start()
        try:
            wait_until(lambda: len(pending(shop)) == 1, "one pod to wait for a node", seconds=60, interval=0.5)
            time.sleep(8)  # the drain tries the second one every five seconds
            assert len(pending(shop)) == 1
            assert len({one["metadata"]["uid"] for one in pods(shop, "api")} & before) == 1
        finally:
            shop("uncordon", NODE_NAME)
        draining.join(timeout=150)
        all_available(shop)
    assert told, "the drain came to its end"
    assert "drained" in told[0]
    assert not {one["metadata"]["uid"] for one in pods(shop, "api")} & before


def pending(shop: Kubectl) -> list[dict[str, Any]]:
    return [one for one in pods(shop, "api") if one["status"]["phase"] == "Pending"]


def test_a_killed_leader_is_followed_in_time_and_what_changed_meanwhile_is_handled(
    shop: Kubectl, load: Load, caller: Caller
) -> None:
    all_available(shop)
    token = caller.token()
    assert caller.ask(token) == 200
    shop.apply(rule("late", "/late"))
    first = leader(shop)
    holder = shop.get("lease/keyturn-operator")["spec"]["holderIdentity"]
    with load.nothing_lost():
        kill(first)
        began = time.monotonic()
        shop.apply(rule("later", "/later"))
        wait_until(
            lambda: caller.ask(token, "/later") == 200, "the change to be handled", seconds=TAKEOVER_SECONDS + 10
        )
        took = time.monotonic() - began
    assert took < TAKEOVER_SECONDS, took
    assert shop.get("lease/keyturn-operator")["spec"]["holderIdentity"] != holder
    shop("delete", "accessrule", "late", "later")


def rule(name: str, path: str) -> dict[str, Any]:
    routes = [{"path": path, "methods": ["GET"], "permissions": {"anyOf": ["orders:read"]}}]
    metadata = {"name": name}
    return {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "AccessRule",
        "metadata": metadata,
        "spec": {"routes": routes},
    }


def test_a_killed_postgresql_puts_off_tokens_only_and_loses_no_used_assertion(
    shop: Kubectl, load: Load, caller: Caller
) -> None:
    all_available(shop)
    form = caller.form()
    assert post(caller, form) == 200
    with load.nothing_lost(store_away=True):
        kill(pods(shop, "postgresql")[0])
        # The container starts anew in its pod; then the pod goes, and another one takes the volume. Never by force: two servers would meet.
        wait_until(lambda: restarted(shop), "the server to start anew", seconds=60, interval=0.5)
        shop("delete", "pod", "keyturn-postgresql-0", seconds=90)
        all_available(shop)
        wait_until(lambda: post(caller, caller.form()) == 200, "tokens to be had again", seconds=60, interval=0.5)
    assert post(caller, form) == 401, "the volume knows which assertions were used"
    # Everything is as before, without anybody's doing.
    with load.nothing_lost():
        shop("patch", "cc", "caller", "--type=merge", "-p", json.dumps({"spec": {"description": "after the outage"}}))
        shop.wait_ready("clientcredential/caller", 60)


def restarted(shop: Kubectl) -> bool:
    (pod,) = pods(shop, "postgresql")
    return all(
        one["ready"] and one["restartCount"] for one in pod["status"].get("containerStatuses", [{"ready": False}])
    )


def post(caller: Caller, form: dict[str, str]) -> int:
    return httpx2.post(f"{caller.url}/oauth/token", data=form, timeout=10, trust_env=False).status_code
