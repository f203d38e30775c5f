"""Clients' own keys and secrets over time: from when and until when they count, what is said of their use, and what an upgrade leaves."""

import time
from typing import Any

import jwt
import pytest

from keyturn.timestamps import format_rfc3339
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import Client, World
from tests.cluster.conftest import StartWorld
from tests.cluster.test_life_of_objects import basic_client, secret
from tests.cluster.test_operator_recovery import database
from tests.manifests import Manifest
from tests.sample_keys import ALGORITHMS, sample_key

ACCEPTED, REFUSED = [200, 200], [401, 401]


def public(client: Client, **members: Any) -> Manifest:
    return {"jwk": dict(client.key.public.jwk), **members}


def asks(client: Client) -> list[int]:
    return [client.request(number).status_code for number in range(len(client.world.replicas))]


def soon(seconds: float) -> str:
    """A time of whole seconds that is at least so far away."""
    return format_rfc3339(time.time() + seconds + 1)


def test_keys_count_from_and_until_the_times_that_are_written_down(world: World) -> None:
    old, new = world.client("planned"), world.client("planned")
    change, end = soon(4), soon(8)
    old.apply(publicKeys=[public(old, notAfter=end), public(new, notBefore=change)])
    assert (asks(old), asks(new)) == (ACCEPTED, REFUSED)
    wait_until(lambda: asks(new) == ACCEPTED, "the new key to count", seconds=15)
    assert asks(old) == ACCEPTED, "both count in between"
    wait_until(lambda: asks(old) == REFUSED, "the old key to end", seconds=15)
    assert asks(new) == ACCEPTED


def test_new_material_under_an_old_kid_replaces_it(world: World) -> None:
    old, new = world.client("same-kid"), world.client("same-kid")

    def under_one_kid(client: Client) -> Manifest:
        return {"jwk": {**client.key.public.jwk, "kid": "the-key"}}

    def signed(client: Client) -> list[int]:
        now = int(time.time())
        answers = []
        for replica in world.replicas:
            claims = {"iss": client.client_id, "sub": client.client_id, "aud": world.replicas[0].url}
            body = {**claims, "jti": f"{time.monotonic_ns()}", "iat": now, "exp": now + 60}
            token = jwt.encode(body, client.key.to_pem().decode(), algorithm="ES256", headers={"kid": "the-key"})
            answers.append(replica.grant(token).status_code)
        return answers

    old.apply(publicKeys=[under_one_kid(old)])
    assert (signed(old), signed(new)) == (ACCEPTED, REFUSED)
    new.apply(publicKeys=[under_one_kid(new)])
    assert (signed(old), signed(new)) == (REFUSED, ACCEPTED)


def shown(world: World, name: str) -> dict[str, Manifest]:
    keys = world.objects.get("clientcredentials", name)["status"].get("keys") or []
    return {key["kid"]: key for key in keys}


def test_the_status_tells_when_a_key_was_used_and_that_an_old_one_may_go(world: World) -> None:
    old, new = world.client("used"), world.client("used")
    old.apply()
    assert "lastUsedAt" not in shown(world, "used")[old.key.kid]
    assert asks(old) == ACCEPTED
    wait_until(lambda: "lastUsedAt" in shown(world, "used")[old.key.kid], "the use to be told", seconds=40)
    # Uses have whole seconds in the status: the new key must come in a later one.
    time.sleep(1.1)
    old.apply(publicKeys=[public(old), public(new)])
    assert asks(new) == ACCEPTED
    wait_until(lambda: "hint" in shown(world, "used")[old.key.kid], "the old key to be called unused", seconds=40)
    told = shown(world, "used")
    assert told[old.key.kid]["hint"].startswith("safe to remove")
    assert "hint" not in told[new.key.kid]
    assert "lastUsedAt" in told[new.key.kid]
    # Used after all: what was said is taken back.
    assert asks(old) == ACCEPTED
    wait_until(lambda: "hint" not in shown(world, "used")[old.key.kid], "the hint to go", seconds=40)


def test_a_key_that_ends_soon_is_told_of_ahead_of_time(world: World) -> None:
    client, successor = world.client("ending"), world.client("ending")
    client.apply(publicKeys=[public(client, notAfter=soon(3 * 24 * 3600))])
    told = world.objects.wait_for("clientcredentials", "ending", kind="KeysExpiring")
    assert client.key.kid in told["message"]
    assert world.objects.wait_event("ending", "KeyEndsSoon")["type"] == "Warning"
    assert shown(world, "ending")[client.key.kid]["expiresAt"]
    client.apply(publicKeys=[public(successor)])
    world.objects.wait_for("clientcredentials", "ending", "False", kind="KeysExpiring")


@pytest.mark.parametrize("change", [{"KEYTURN_BCRYPT_COST": "6"}], ids=["another cost of hashing"])
def test_older_hashes_and_keys_of_each_type_still_authenticate_after_an_upgrade(
    start_world: StartWorld, change: dict[str, str]
) -> None:
    world = start_world(settings={"KEYTURN_BCRYPT_COST": "4"})
    clients = [world.client(f"type-{algorithm.lower()}", key=sample_key(algorithm)).apply() for algorithm in ALGORITHMS]
    world.apply(secret("old-cost-s", client_secret="made-long-ago"), basic_client("old-cost", "old-cost-s"))
    world.objects.wait_for("clientcredentials", "old-cost")
    before = rows(world)
    installation = world.installation
    installation.stop_process("operator-0")
    installation.stop_process("api-0")
    installation._settings |= change
    installation.start_operator()
    installation.start_api(0)
    installation.wait_ready()
    for one in clients:
        one.patch(description="looked at by the new version")
    names = [*(one.name for one in clients), "old-cost"]
    world.objects.wait_all_ready("clientcredentials", names, seconds=30)
    assert [asks(one) for one in clients] == [[200]] * len(clients)
    client_id = f"{world.namespace}.old-cost"
    assert world.replicas[0].grant_basic(client_id, "made-long-ago").status_code == 200
    assert world.replicas[0].grant_basic(client_id, "made-recently").status_code == 401
    assert rows(world) == before, "nothing is hashed anew, and no key is another one"


def rows(world: World) -> list[tuple[str, str, str]]:
    with database(world) as rows:
        found = rows.execute(
            "SELECT name, json_extract(body, '$.keys'), json_extract(body, '$.secrets') FROM keyturn_records"
            " WHERE kind = 'ClientCredential' ORDER BY name"
        )
        return [(str(name), str(keys), str(hashes)) for name, keys, hashes in found]
