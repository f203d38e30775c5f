"""After everything that may go wrong with secrets has gone wrong: none of them stands where it does not belong."""

import base64
import json
import sqlite3
from pathlib import Path

import httpx2
import pytest

from keyturn_dev.rights import SIGNING_KEY
from tests.cluster.clients import World, needs, route
from tests.cluster.conftest import StartWorld
from tests.cluster.test_bad_manifests import refusal_of
from tests.cluster.test_life_of_objects import basic_client, secret
from tests.manifests import manifest, private_jwk_members, private_pem, public_jwk
from tests.sample_keys import sample_key

SECRET = "planted-secret-%/:=&-e4b1"
WRONG_SECRET = "planted-wrong-secret-77c0"
GARBAGE = "planted-garbage-token-3fd9"


def lines_of(pem: str) -> list[str]:
    return [line for line in pem.splitlines() if line and "-----" not in line]


def log_of(world: World) -> str:
    return "\n".join(
        path.read_text(encoding="utf-8", errors="replace") for path in sorted(world.installation.state.glob("logs/*"))
    )


def dump_of(database: Path) -> str:
    connection = sqlite3.connect(database, timeout=10)
    try:
        return "\n".join(connection.iterdump())
    finally:
        connection.close()


@pytest.fixture
def leavings(start_world: StartWorld) -> tuple[dict[str, str], dict[str, str]]:
    """The planted values by name, and the places where none may stand by name."""
    world = start_world()
    planted = {
        "the client's secret": SECRET,
        "the client's secret, encoded": base64.b64encode(SECRET.encode()).decode(),
        "a wrong secret": WRONG_SECRET,
        "a token that is none": GARBAGE,
    }
    key = sample_key("RS256")
    client = world.client("quiet", key=key).apply(permissions=["quiet"])
    planted |= {f"the client's key, line {n}": line for n, line in enumerate(lines_of(key.to_pem().decode()))}
    world.rule("quiet", route("/quiet", **needs("quiet")), route("/quiet/admin", **needs("admin")))
    world.apply(secret("quiet-s", client_secret=SECRET), basic_client("quiet-basic", "quiet-s"))
    world.objects.wait_for("clientcredentials", "quiet-basic")
    api = world.replicas[0]
    basic = f"{world.namespace}.quiet-basic"

    used = client.assertion()
    token = api.grant(used).json()["access_token"]
    basic_token = api.grant_basic(basic, SECRET).json()["access_token"]
    bad_assertions = {
        "a used assertion": used,
        "an expired assertion": client.assertion(exp=1, iat=0),
        "an assertion for another": client.assertion(aud="https://elsewhere.example"),
        "an assertion without jti": client.assertion(jti=""),
        "an assertion of another key": client.assertion(key=sample_key("RS256", 1)),
    }
    for one in bad_assertions.values():
        assert api.grant(one).status_code in (400, 401)
    assert api.grant_basic(basic, WRONG_SECRET).status_code == 401
    assert api.grant_basic(client.client_id, WRONG_SECRET).status_code == 401
    form = {"grant_type": "client_credentials", "client_secret": WRONG_SECRET, "client_id": basic}
    assert httpx2.post(f"{api.url}/oauth/token", data=form, trust_env=False).status_code in (400, 401)
    assert (
        httpx2.post(f"{api.url}/oauth/token?client_secret={WRONG_SECRET}", data=form, trust_env=False).status_code
        == 400
    )
    for bearer in (token, basic_token, GARBAGE, token[:-4] + "AAAA"):
        api.token_info(bearer)
        for path in ("/quiet", "/quiet/admin", "/quiet/unknown"):
            api.auth(path, bearer)
    planted |= bad_assertions | {"a token": token, "a token for a secret": basic_token}
    # A signature alone, too: it makes a token of what a log may say of its claims.
    planted |= {f"{name}, its signature": value.rpartition(".")[2] for name, value in bad_assertions.items()}
    planted |= {"a token, its signature": token.rpartition(".")[2]}

    # Private keys where public ones belong.
    members = private_jwk_members()
    assert refusal_of(
        world, manifest("ClientCredential", "mistake", {"publicKeys": [{"jwk": {**public_jwk(), **members}}]})
    )
    assert refusal_of(world, manifest("ClientCredential", "mistake", {"publicKeys": [{"pem": private_pem()}]}))
    # What the API server cannot see: private material in another coat.
    coat = private_pem().replace("PRIVATE KEY", "PUBLIC KEY")
    disguised = manifest("ClientCredential", "disguised", {"publicKeys": [{"pem": coat}]})
    assert refusal_of(world, disguised) is None
    world.objects.wait_for("clientcredentials", "disguised", "False")
    told = world.objects.all("clientcredentials")
    planted |= {f"a private member {name}": value for name, value in members.items()}
    planted |= {f"a private PEM, line {n}": line for n, line in enumerate(lines_of(private_pem())) if len(line) > 20}

    dump = dump_of(world.installation.state / "store.sqlite")
    # A withdrawal, a deletion and a change of the Secret pass through every log as well.
    world.apply(secret("quiet-s", client_secret=SECRET, other=WRONG_SECRET))
    world.apply(secret("quiet-s", password=SECRET))
    world.objects.wait_for("clientcredentials", "quiet-basic", "False", reason="SecretInvalid")
    client.delete()
    world.objects.wait_event("quiet", "Deleted")
    told += world.objects.all("clientcredentials")

    ring = world.objects.get("secrets", SIGNING_KEY)["data"]
    for name, value in ring.items():
        if name.endswith(".pem"):
            planted |= {f"{name}, line {n}": line for n, line in enumerate(lines_of(base64.b64decode(value).decode()))}
    specless = [{**one, "spec": None, "metadata": {"name": one["metadata"]["name"]}} for one in told]
    rest = [one for plural in ("signingkeys", "accessrules", "leases") for one in world.objects.all(plural)]
    places = {
        "the logs at DEBUG": log_of(world),
        "the Events": json.dumps(world.objects.all("events")),
        "the statuses": json.dumps(specless),
        "the other objects": json.dumps(rest),
        "the store": dump + dump_of(world.installation.state / "store.sqlite"),
        "the metrics": httpx2.get(
            f"http://127.0.0.1:{world.installation.apis[0].metrics}/metrics", trust_env=False
        ).text
        + httpx2.get(f"http://127.0.0.1:{world.installation.operator_port}/metrics", trust_env=False).text,
    }
    return planted, places


def test_no_secret_stands_in_logs_events_statuses_metrics_or_the_store(
    leavings: tuple[dict[str, str], dict[str, str]],
) -> None:
    planted, places = leavings
    assert len(planted) > 50
    found = [f"{name} in {place}" for place, text in places.items() for name, value in planted.items() if value in text]
    assert found == []
    # It was looked for where things were written.
    logs = places["the logs at DEBUG"]
    for said in ("keyturn.audit", "token_refused", "denied", '"debug"'):
        assert said in logs
    assert "SecretInvalid" in places["the Events"]
    assert "SecretInvalid" in places["the statuses"]
    assert "$2b$" in places["the store"]
    assert "keyturn_operator_reconcile" in places["the metrics"]
