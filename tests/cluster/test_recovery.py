"""What clients and gateways notice when parts fail, and what they find when these are back."""

import sqlite3
import time
from collections.abc import Iterator

import pytest

from keyturn_dev.rights import SIGNING_KEY
from keyturn_dev.tcp_proxy import Outage
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import PROMISE_SECONDS, World, needs, route, signing_kids
from tests.cluster.conftest import StartWorld
from tests.cluster.outage import database_that_may_fail
from tests.cluster.test_life_of_objects import basic_client, grants, secret

TAKEOVER_SECONDS = 20.0
"""A Lease that nobody released ends by itself; then the next process acts."""


def stop_everything(world: World) -> None:
    for name in ("operator-0", "mirror", "api-0"):
        assert world.installation.stop_process(name)


def start_everything(world: World) -> None:
    world.installation.start_operator()
    world.installation.start_mirror()
    world.installation.start_api(0)
    world.installation.wait_ready()


def without_status(obj: dict[str, object]) -> dict[str, object]:
    """What a person wrote, and what would betray that someone else touched it."""
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    kept = ("name", "uid", "generation", "labels", "annotations", "finalizers", "ownerReferences")
    return {"spec": obj["spec"], "metadata": {name: metadata.get(name) for name in kept}}


def test_a_lost_store_file_comes_back_with_the_same_clients_and_keys_and_no_object_touched(
    start_world: StartWorld,
) -> None:
    world = start_world()
    clients = [world.client(f"lost-{number}") for number in range(30)]
    world.apply(*(one.manifest(permissions=["lost"]) for one in clients))
    world.rule("lost", route("/lost", **needs("lost")))
    names = [one.name for one in clients]
    world.objects.wait_all_ready("clientcredentials", names, seconds=30)
    token = clients[0].token()
    plurals = ("clientcredentials", "accessrules", "signingkeys")
    before = {plural: [without_status(one) for one in world.objects.all(plural)] for plural in plurals}
    ids = {one["metadata"]["name"]: one["status"]["clientId"] for one in world.objects.all("clientcredentials")}
    kids = signing_kids(world)
    pem = world.objects.get("secrets", SIGNING_KEY)["data"]

    stop_everything(world)
    used_before = clients[1].assertion()
    for path in world.installation.state.glob("store.sqlite*"):
        path.unlink()
    start_everything(world)

    world.objects.wait_all_ready("clientcredentials", names, seconds=30)
    # `iat` has whole seconds: one of the second in which the store was born may be from before its birth, so it is refused.
    time.sleep(1.1)
    wait_until(lambda: world.replicas[0].auth("/lost", token).status_code == 200, "the old token to count", seconds=10)
    assert all(one.request().status_code == 200 for one in clients)
    refused = world.replicas[0].grant(used_before)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    after = {plural: [without_status(one) for one in world.objects.all(plural)] for plural in plurals}
    assert after == before
    assert {one["metadata"]["name"]: one["status"]["clientId"] for one in world.objects.all("clientcredentials")} == ids
    assert signing_kids(world) == kids
    assert world.objects.get("secrets", SIGNING_KEY)["data"] == pem


def test_an_operator_killed_while_100_clients_are_made_loses_none_and_the_api_serves_on(
    start_world: StartWorld,
) -> None:
    world = start_world()
    first = world.client("first").apply()
    token = first.token()
    pem = world.objects.get("secrets", SIGNING_KEY)["data"]
    clients = [world.client(f"hundred-{number}") for number in range(100)]
    world.apply(*(one.manifest() for one in clients[:50]))
    world.kill_operator()
    world.apply(*(one.manifest() for one in clients[50:]))
    assert world.replicas[0].token_info(token).status_code == 200
    assert first.request().status_code == 200
    world.installation.start_operator()
    world.objects.wait_all_ready("clientcredentials", [one.name for one in clients], seconds=TAKEOVER_SECONDS + 40)
    assert all(one.request().status_code == 200 for one in clients[::10])
    assert world.objects.get("secrets", SIGNING_KEY)["data"] == pem
    assert signing_kids(world)


def test_after_the_signing_keys_are_lost_tokens_are_refused_and_issued_anew(start_world: StartWorld) -> None:
    world = start_world()
    client = world.client("resigned").apply()
    old = client.token()
    kids = signing_kids(world)
    world.objects.delete("secrets", SIGNING_KEY)
    world.objects.wait_event(SIGNING_KEY, "SigningKeysLost", says=SIGNING_KEY, seconds=15)
    wait_until(lambda: not set(signing_kids(world)) & set(kids), "new keys", seconds=15)
    world.objects.wait_for("signingkeys", SIGNING_KEY, seconds=15)
    new = client.token()
    assert world.replicas[0].token_info(new).status_code == 200
    assert world.replicas[0].token_info(old).status_code == 401


def test_a_grant_slipped_into_the_store_gives_nothing_for_longer_than_a_sweep(start_world: StartWorld) -> None:
    world = start_world(settings={"KEYTURN_OPERATOR_SWEEP_INTERVAL": "5"})
    client = world.client("slipped").apply(permissions=["read"])
    world.rule("slipped", route("/slipped", **needs("admin")))
    token = client.token()
    assert world.replicas[0].auth("/slipped", token).status_code == 403
    sneak = sqlite3.connect(world.installation.state / "store.sqlite", timeout=10, isolation_level=None)
    try:
        changed = sneak.execute(
            "UPDATE keyturn_records SET body = json_set(body, '$.suspended', json('true'),"
            " '$.permissions', json('[\"admin\"]')) WHERE name = 'slipped' AND kind = 'ClientCredential'"
        )
        assert changed.rowcount == 1
    finally:
        sneak.close()
    told = world.objects.wait_event("slipped", "DriftRepaired", seconds=15)["message"]
    assert "permissions" in told
    assert "suspended" in told
    client.wait()
    assert world.replicas[0].auth("/slipped", client.token()).status_code == 403
    assert world.replicas[0].token_info(token).json()["permissions"] == ["read"]


@pytest.fixture
def outage() -> Iterator[Outage]:
    with database_that_may_fail() as one:
        yield one


def test_on_postgresql_the_whole_journey_and_decisions_go_on_while_it_is_away(
    outage: Outage, start_world: StartWorld
) -> None:
    world = start_world(replicas=2, store_url=outage.url)
    client = world.client("pg").apply(permissions=["pg:read"], audiences=["pg"])
    world.apply(secret("pg-s", client_secret="pg-value"), basic_client("pg-basic", "pg-s"))
    world.rule("pg", route("/pg", "GET", **needs("pg:read")), route("/pg/public"))
    world.objects.wait_for("clientcredentials", "pg-basic")
    token = client.token(1)
    basic = f"{world.namespace}.pg-basic"
    assert world.everywhere(lambda one: one.token_info(token).status_code) == [200, 200]
    assert world.everywhere(lambda one: one.auth("/pg", token).status_code) == [200, 200]
    assert grants(world, "pg-basic", "pg-value") == [200, 200]
    took = []
    for permissions, status in ([], 403), (["pg:read"], 200), ([], 403), (["pg:read"], 200):
        client.patch(permissions=permissions)
        wanted = [status, status]
        took.append(
            world.seconds_until(
                lambda wanted=wanted: world.everywhere(lambda one: one.auth("/pg", token).status_code) == wanted,  # type: ignore[misc]
                "the change to count",
            )
        )
    assert max(took) < PROMISE_SECONDS, took

    replayed = client.assertion()
    assert world.replicas[0].grant(replayed).status_code == 200
    outage.begin()
    assert world.everywhere(lambda one: one.auth("/pg", token).status_code) == [200, 200]
    assert world.everywhere(lambda one: one.auth("/pg/public").status_code) == [200, 200]
    assert world.everywhere(lambda one: one.auth("/pg").status_code) == [401, 401]
    assert world.everywhere(lambda one: one.token_info(token).status_code) == [200, 200]
    for number in range(2):
        refused = client.request(number)
        assert refused.status_code == 503
        assert refused.json()["error"] == "temporarily_unavailable"
        assert int(refused.headers["retry-after"]) > 0
        assert world.replicas[number].grant(replayed).status_code in (401, 503)
        assert world.replicas[number].grant_basic(basic, "pg-value").status_code == 200
    world.apply(client.manifest(permissions=[], audiences=["pg"]))
    meanwhile = world.client("pg-meanwhile").apply(ready=False)

    outage.end()
    wait_until(lambda: client.request().status_code == 200, "tokens to be had again", seconds=15)
    assert world.replicas[0].grant(replayed).status_code == 401
    meanwhile.wait(seconds=30)
    client.wait(seconds=30)
    assert [meanwhile.request(number).status_code for number in range(2)] == [200, 200]
    assert world.everywhere(lambda one: one.auth("/pg", token).status_code) == [403, 403]
