"""What the operator makes good: what happened while it was away, what was changed behind its back, what was lost."""

import sqlite3
import time

import httpx2
import pytest

from keyturn_dev import process
from keyturn_dev.loopback import free_ports
from keyturn_dev.rights import SIGNING_KEY
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import World, is_ready, signing_kids
from tests.cluster.conftest import StartWorld
from tests.manifests import manifest

QUICK = {"KEYTURN_OPERATOR_SWEEP_INTERVAL": "5"}


def database(world: World) -> sqlite3.Connection:
    return sqlite3.connect(world.installation.state / "store.sqlite", timeout=10, isolation_level=None)


def test_restarts_change_no_secret_and_what_was_deleted_meanwhile_is_revoked(start_world: StartWorld) -> None:
    world = start_world()
    client = world.client("gone").apply(permissions=["p"])
    kept = world.client("kept").apply()
    token = client.token()
    before = world.objects.get("secrets", SIGNING_KEY)["metadata"]["resourceVersion"]
    version = world.objects.get("clientcredentials", kept.name)["metadata"]["resourceVersion"]
    assert world.replicas[0].token_info(token).status_code == 200

    (record,) = [one for one in world.installation.records() if one.name == "operator-0"]
    began = time.monotonic()
    assert world.installation.stop_process("operator-0")
    assert time.monotonic() - began < 5, "SIGTERM ends it quickly"
    assert not process.is_alive(record)
    client.delete()
    assert world.replicas[0].token_info(token).status_code == 200
    world.installation.start_operator()
    # The Lease was released: no wait for its end.
    wait_until(lambda: world.replicas[0].token_info(token).status_code == 401, "the revocation", seconds=10)

    for _ in range(2):
        world.installation.restart_operator()
        time.sleep(1)
    world.objects.wait_for("signingkeys", SIGNING_KEY)
    assert world.objects.get("secrets", SIGNING_KEY)["metadata"]["resourceVersion"] == before
    assert world.objects.get("clientcredentials", kept.name)["metadata"]["resourceVersion"] == version


def test_rows_changed_behind_the_operator_s_back_are_put_right_with_an_event(start_world: StartWorld) -> None:
    world = start_world(settings=QUICK)
    client = world.client("drifting").apply(permissions=["p"])
    with database(world) as rows:
        done = rows.execute(
            "UPDATE keyturn_records SET body = json_set(body, '$.permissions', json('[\"admin\"]')) WHERE name = 'drifting'"
        )
        assert done.rowcount == 1
    event = world.objects.wait_event("drifting", "DriftRepaired", seconds=15)
    assert "permissions" in event["message"]
    assert "admin" not in event["message"]
    client.wait()
    with database(world) as rows:
        ((body,),) = rows.execute(
            "SELECT json_extract(body, '$.permissions') FROM keyturn_records WHERE name = 'drifting'"
        )
    assert body == '["p"]'


def test_an_emptied_store_is_rebuilt_with_the_same_ids_and_keys(start_world: StartWorld) -> None:
    world = start_world(settings=QUICK)
    clients = [world.client(f"many-{number}") for number in range(20)]
    world.apply(*(one.manifest() for one in clients))
    world.objects.wait_all_ready("clientcredentials", [one.name for one in clients], seconds=20)
    kids = signing_kids(world)
    versions = {
        one["metadata"]["name"]: one["metadata"]["generation"] for one in world.objects.all("clientcredentials")
    }
    with database(world) as rows:
        rows.execute("DELETE FROM keyturn_records")

    def rebuilt() -> bool:
        with database(world) as rows:
            ((count,),) = rows.execute("SELECT count(*) FROM keyturn_records WHERE deleted_at IS NULL")
        return bool(count == 21)

    wait_until(rebuilt, "the store to be rebuilt", seconds=20, interval=0.2)
    assert signing_kids(world) == kids
    with database(world) as rows:
        ids = {row[0] for row in rows.execute("SELECT client_id FROM keyturn_records WHERE client_id IS NOT NULL")}
    assert ids == {one.client_id for one in clients}
    after = {one["metadata"]["name"]: one["metadata"]["generation"] for one in world.objects.all("clientcredentials")}
    assert after == versions, "no object was touched"


TAKEOVER_SECONDS = 20.0
"""With the settings as they come."""


@pytest.mark.timeout(180)
def test_one_of_two_operators_acts_and_the_other_takes_over_when_it_is_killed(start_world: StartWorld) -> None:
    world = start_world()
    (standby_port,) = free_ports(1)
    world.installation.start_operator(1, port=standby_port)
    wait_until(lambda: _probe(standby_port, "/readyz") == 200, "the standby to be ready", seconds=15)
    assert _metric(standby_port, "keyturn_operator_leader") == 0
    changed, deleted = (world.client(name).apply(permissions=["p"]) for name in ("changed", "deleted"))
    tokens = {one.name: one.token() for one in (changed, deleted)}
    holder = world.objects.get("leases", "keyturn-operator")["spec"]["holderIdentity"]

    world.kill_operator("operator-0")
    began = time.monotonic()
    # What comes while nobody acts.
    changed.patch(permissions=[])
    deleted.delete()
    late = world.client("after-the-kill").apply(ready=False)
    wait_until(
        lambda: world.objects.get("leases", "keyturn-operator")["spec"]["holderIdentity"] != holder,
        "the standby to hold the Lease",
        seconds=TAKEOVER_SECONDS - (time.monotonic() - began),
        interval=0.2,
    )
    late.wait(seconds=10)
    changed.wait(seconds=10)
    wait_until(lambda: world.replicas[0].token_info(tokens["deleted"]).status_code == 401, "the deletion", seconds=5)
    assert world.replicas[0].token_info(tokens["changed"]).json()["permissions"] == []
    assert world.objects.get("leases", "keyturn-operator")["spec"]["leaseTransitions"] == 1
    assert _metric(standby_port, "keyturn_operator_leader") == 1


def test_a_deleted_secret_of_the_signing_keys_is_made_anew(start_world: StartWorld) -> None:
    world = start_world()
    before = signing_kids(world)
    world.kubectl("delete", "secret", SIGNING_KEY)
    world.objects.wait_event(SIGNING_KEY, "SigningKeysLost", seconds=15)
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=15)
    assert not set(signing_kids(world)) & set(before)
    world.client("afterwards").apply().token()


def test_a_retained_secret_is_adopted_by_the_signing_key_made_anew(start_world: StartWorld) -> None:
    world = start_world()
    before = signing_kids(world)
    world.kubectl("delete", "signingkey", SIGNING_KEY)
    world.objects.wait_event(SIGNING_KEY, "Deleted")
    world.apply(manifest("SigningKey", SIGNING_KEY, {}))
    world.objects.wait_for("signingkeys", SIGNING_KEY)
    assert signing_kids(world) == before


def test_a_namespace_with_everything_in_it_is_deleted_in_time(start_world: StartWorld) -> None:
    world = start_world()
    clients = [world.client(f"many-{number}") for number in range(20)]
    world.apply(*(one.manifest() for one in clients))
    world.objects.wait_all_ready("clientcredentials", [one.name for one in clients], seconds=20)
    assert all(is_ready(one) for one in world.objects.all("clientcredentials"))
    world.kubectl("delete", "namespace", world.namespace, "--timeout=60s", seconds=70)
    log = world.installation.log("operator-0").read_text()
    assert "Traceback" not in log


def test_the_process_ends_with_a_failure_when_it_loses_the_lease(start_world: StartWorld) -> None:
    world = start_world()
    (record,) = [one for one in world.installation.records() if one.name == "operator-0"]
    world.kubectl("patch", "lease", "keyturn-operator", "--type=merge", "-p", '{"spec":{"holderIdentity":"usurper"}}')
    wait_until(lambda: not process.is_alive(record), "the operator to end", seconds=20)
    assert "the Lease is another process's now" in world.installation.log("operator-0").read_text()
    process.stop(record)


def _probe(port: int, path: str) -> int | None:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=2, trust_env=False).status_code
    except httpx2.HTTPError:
        return None


def _metric(port: int, name: str) -> float:
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=5, trust_env=False).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))
