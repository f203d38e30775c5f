"""The way to the API server fails without a word, or the token ends: what happened meanwhile is handled, by the same process if it can."""

from __future__ import annotations

import json
import os
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
import yaml

from keyturn_dev import process
from keyturn_dev.certificates import write_private
from keyturn_dev.cluster import Cluster
from keyturn_dev.errors import DevError
from keyturn_dev.installation import Installation, apply_crds, status_of
from keyturn_dev.kubeconfig import run_kubectl
from keyturn_dev.locking import exclusive
from keyturn_dev.progress import Progress
from keyturn_dev.tcp_proxy import Outage
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import World, world_of
from tests.cluster.conftest import StartWorld, signing_key
from tests.cluster.portal import Portal
from tests.cluster.test_life_of_objects import basic_client, secret

if TYPE_CHECKING:
    from collections.abc import Iterator

INACTIVE_SECONDS = 70.0
"""The API server says something on every watch each minute; one that is silent for longer is given up."""
SELDOM = {"KEYTURN_OPERATOR_SWEEP_INTERVAL": "3600"}
"""No sweep in these tests: what is found was found by a watch."""
REMEMBERED_SECONDS = 10.0
"""For so long the API server remembers that it took a token."""


def rewire(world: World, *, server: str | None = None, token_file: Path | None = None) -> None:
    """Restarts the operator with another way to the API server, or with its token in a file as a pod has it."""
    path = world.installation.state / "operator.kubeconfig"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if server is not None:
        document["clusters"][0]["cluster"]["server"] = server
    if token_file is not None:
        document["users"][0]["user"] = {"tokenFile": str(token_file)}
    write_private(path, json.dumps(document).encode())
    world.installation.restart_operator()
    lease = world.objects.get("leases", "keyturn-operator")["spec"]["leaseTransitions"]
    wait_until(lambda: probe(world, "/readyz") == 200, f"the operator after {lease} takeovers to be ready", seconds=20)


def operator(world: World) -> process.ProcessRecord:
    (record,) = [one for one in world.installation.records() if one.name == "operator-0"]
    return record


def probe(world: World, path: str) -> int | None:
    return status_of(f"http://127.0.0.1:{world.installation.operator_port}{path}")


@pytest.fixture
def way() -> Iterator[list[Outage]]:
    made: list[Outage] = []
    yield made
    for one in made:
        one.close()


def through(way: list[Outage], world: World) -> Outage:
    server = yaml.safe_load((world.installation.state / "operator.kubeconfig").read_text(encoding="utf-8"))
    way.append(Outage(server["clusters"][0]["cluster"]["server"]))
    return way[0]


@pytest.mark.timeout(240)
def test_a_watch_that_went_silent_without_being_closed_is_given_up_and_made_up_for(
    start_world: StartWorld, way: list[Outage]
) -> None:
    world = start_world(settings=SELDOM)
    outage = through(way, world)
    rewire(world, server=outage.url)
    world.apply(secret("in-force", client_secret="old-value"), basic_client("by-secret", "in-force"))
    world.objects.wait_for("clientcredentials", "by-secret")
    deleted = world.client("deleted-meanwhile").apply(permissions=["p"])
    token = deleted.token()
    before = operator(world)

    outage.swallow()
    began = time.monotonic()
    late = world.client("made-meanwhile").apply(ready=False)
    deleted.delete()
    world.apply(secret("in-force", client_secret="new-value"))
    late.wait(seconds=INACTIVE_SECONDS + 30)
    assert late.request().status_code == 200
    wait_until(
        lambda: world.replicas[0].token_info(token).status_code == 401,
        "the deletion to count",
        seconds=INACTIVE_SECONDS + 30 - (time.monotonic() - began),
    )
    wait_until(
        lambda: world.replicas[0].grant_basic(f"{world.namespace}.by-secret", "new-value").status_code == 200,
        "the Secret's new value to count",
        seconds=INACTIVE_SECONDS + 30 - (time.monotonic() - began),
    )
    assert operator(world) == before, "nobody restarted it"
    assert process.is_alive(before)
    assert probe(world, "/livez") == probe(world, "/readyz") == 200


@pytest.mark.timeout(180)
def test_an_operator_that_reaches_nothing_ends_itself_and_the_next_one_makes_up_for_it(
    start_world: StartWorld, way: list[Outage]
) -> None:
    world = start_world()
    outage = through(way, world)
    rewire(world, server=outage.url)
    kept = world.client("kept").apply(permissions=["p"])
    token = kept.token()

    outage.silence()
    blind = operator(world)
    changed = world.client("changed-meanwhile").apply(ready=False)
    kept.delete()
    # Who cannot renew the Lease must not act: it ends, and whoever runs it starts it again.
    wait_until(lambda: not process.is_alive(blind), "the operator without its Lease to end", seconds=30)
    assert "process ends" in world.installation.log("operator-0").read_text(encoding="utf-8")
    assert world.replicas[0].token_info(token).status_code == 200
    world.installation.start_operator()
    time.sleep(2)
    assert probe(world, "/livez") == 200, "to start it again would not help"
    assert probe(world, "/readyz") == 503

    outage.swallow()
    outage.resume()
    changed.wait(seconds=45)
    wait_until(lambda: world.replicas[0].token_info(token).status_code == 401, "the deletion to count", seconds=15)
    assert probe(world, "/readyz") == 200


@pytest.mark.timeout(180)
def test_a_token_file_that_is_replaced_before_its_token_ends_is_read_anew(start_world: StartWorld) -> None:
    world = start_world(settings=SELDOM)
    files = {"keyturn-operator": world.installation.state / "operator.token"}
    files["keyturn-api"] = world.installation.state / "api.token"
    tokens = {account: bound_token(world, account, "first") for account in files}
    for account, path in files.items():
        write_private(path, tokens[account].encode())
    rewire(world, token_file=files["keyturn-operator"])
    portal = Portal(world)
    portal.with_key()
    before = operator(world)

    # As a kubelet does: the next token is there before the first one ends.
    for account, path in files.items():
        write_private(path, bound_token(world, account, "second").encode())
    for account in files:
        world.objects.delete("secrets", f"{account}-first")
    wait_until(
        lambda: not any(counts(world, token) for token in tokens.values()),
        "the first tokens to end",
        seconds=REMEMBERED_SECONDS + 10,
    )

    client = world.client("after-the-end").apply(ready=False)
    client.wait(seconds=20)
    client.token()
    portal.with_key()
    assert operator(world) == before
    assert process.is_alive(before)
    assert probe(world, "/readyz") == 200


def bound_token(world: World, account: str, name: str) -> str:
    """A token that ends with a Secret: none can be asked for that ends within ten minutes."""
    bound = f"{account}-{name}"
    world.objects.create("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": bound}})
    options = ("--bound-object-kind=Secret", f"--bound-object-name={bound}")
    return world.kubectl("create", "token", account, *options).strip()


def counts(world: World, token: str) -> bool:
    """Whether the API server still takes it."""
    server = (world.installation.state / "api-server.url").read_text(encoding="utf-8")
    authority = ssl.create_default_context(cafile=str(world.installation.state / "api-server.crt"))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = httpx2.post(
        f"{server}/apis/authentication.k8s.io/v1/selfsubjectreviews",
        json=review,
        headers={"Authorization": f"Bearer {token}"},
        verify=authority,
        trust_env=False,
    )
    return answer.status_code == 201


@pytest.fixture
def own_cluster(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server that a test may end: the other tests' operators would end with theirs. `crds`: its programs are built by then."""
    own = Cluster(tmp_path_factory.mktemp("own-cluster") / "state", progress=Progress())
    try:
        own.up()
        apply_crds(own)
        yield own
    finally:
        own.down()


def restart_api_server(cluster: Cluster) -> None:
    """Ends the API server and starts it again with the same command; what it remembered of changes is lost with it."""
    records = cluster.state / "processes"
    (record,) = [one for one in process.read_records(records) if one.name == "kube-apiserver"]
    command = Path(f"/proc/{record.pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    assert process.stop(record, grace=5)
    environ = {"PATH": os.defpath, "HOME": str(cluster.state), "LANG": "C.UTF-8"}
    with exclusive(cluster.state / "logs" / "again.lock", "restarting", seconds=30, on_wait=lambda _: None) as lock:
        process.spawn(
            record.name,
            command,
            records=records,
            log=cluster.state / "logs" / "kube-apiserver-again.log",
            environ=environ,
            lock=lock,
        )

    def answers() -> bool:
        try:
            return run_kubectl(cluster.kubectl, cluster.kubeconfig, "get", "--raw", "/readyz").strip() == "ok"
        except DevError:
            return False

    wait_until(answers, "the API server to be ready again", seconds=60, interval=0.3)


@pytest.mark.timeout(240)
def test_watches_that_are_told_410_begin_again_with_a_complete_list(own_cluster: Cluster, tmp_path: Path) -> None:
    patient = {"KEYTURN_OPERATOR_LEASE_DURATION": "90", "KEYTURN_OPERATOR_RENEW_DEADLINE": "80", **SELDOM}
    installation = Installation(own_cluster, "told-gone", tmp_path / "state", settings=patient)
    try:
        installation.start()
        installation.apply([signing_key(installation.namespace)])
        installation.wait_ready()
        with world_of(installation, replicas=1) as world:
            world.client("before").apply().token()
            server = yaml.safe_load((installation.state / "operator.kubeconfig").read_text(encoding="utf-8"))
            way = Outage(server["clusters"][0]["cluster"]["server"])
            try:
                rewire(world, server=way.url)
                world.client("seen").apply(permissions=["p"])
                before = operator(world)
                place = world.objects.get("clientcredentials", "seen")["metadata"]["resourceVersion"]
                # Nothing reaches the operator any more, while much is written: its place among the changes grows old.
                way.begin()
                late = world.client("made-meanwhile").apply(ready=False)
                world.objects.delete("clientcredentials", "before")
                restart_api_server(own_cluster)
                collection = (
                    f"{world.objects.path('clientcredentials')}?watch=true&timeoutSeconds=2&resourceVersion={place}"
                )
                told = run_kubectl(own_cluster.kubectl, own_cluster.kubeconfig, "get", "--raw", collection)
                assert json.loads(told.splitlines()[0])["object"]["code"] == 410, told
                way.end()
                late.wait(seconds=60)
                late.token()
                gone = world.client("before")
                wait_until(lambda: gone.request().status_code == 401, "the deletion to count", seconds=30)
                assert operator(world) == before
                assert process.is_alive(before)
                assert probe(world, "/livez") == 200
            finally:
                way.close()
    finally:
        installation.stop()
