"""Credentials that end while a command runs: read anew in time, once more on 401, and never for another cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from keyturn_cli import kube as kubes
from keyturn_cli.connection import AHEAD_SECONDS, LINGER_SECONDS, PAUSE_SECONDS, Connection
from keyturn_cli.errors import CommandError, Exit
from keyturn_cli.kube import Kube, Refused
from keyturn_cli.kubeconfig import Access

PATH = "/apis/keyturn.dev/v1alpha1/namespaces/shop/signingkeys/keyturn"
START = 1_800_000_000.0
HOUR = 3600.0


@dataclass
class Cluster:
    """An API server that knows one token, or one certificate, at a time; and what a credential plugin would give next."""

    access: Access = field(default_factory=lambda: Access("https://api.example", token="one", expires=START + HOUR))
    known: str = "one"
    now: float = START
    reads: int = 0
    failure: CommandError | None = None
    seen: list[str] = field(default_factory=list)
    clients: list[httpx2.Client] = field(default_factory=list)

    def connection(self) -> Connection:
        return Connection(self.access, self.read_again, connect=self.connect, clock=lambda: self.now)

    def kube(self) -> Kube:
        return Kube(self.connection(), namespace="shop")

    def read_again(self) -> Access:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return self.access

    def connect(self, access: Access) -> httpx2.Client:
        def answer(request: httpx2.Request) -> httpx2.Response:
            shown = access.certificate or request.headers.get("Authorization", "").removeprefix("Bearer ")
            self.seen.append(shown)
            if shown != self.known:
                return httpx2.Response(401, json={"kind": "Status"})
            return httpx2.Response(200, json={"body": request.content.decode()})

        client = httpx2.Client(transport=httpx2.MockTransport(answer), base_url=access.server)
        self.clients.append(client)
        return client

    def renew(self, proof: str, **more: Any) -> None:
        """From now on the API server knows this token alone, and whoever reads the credentials finds it."""
        self.known = proof
        self.access = replace(self.access, token=proof, **more)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_credentials_are_read_once_as_long_as_they_hold(cluster: Cluster) -> None:
    kube = cluster.kube()
    for cluster.now in (START, START + HOUR / 2, START + HOUR - AHEAD_SECONDS - 1):
        kube.get(PATH)
    assert (cluster.reads, set(cluster.seen)) == (0, {"one"})
    assert kube.own_token == "one"


def test_they_are_read_anew_before_they_end(cluster: Cluster) -> None:
    kube = cluster.kube()
    cluster.renew("two", expires=START + 2 * HOUR)
    cluster.now = START + HOUR - AHEAD_SECONDS
    assert kube.own_token == "two"
    kube.get(PATH)
    kube.get(PATH)
    assert (cluster.reads, cluster.seen) == (1, ["two", "two"])


def test_they_are_read_anew_when_the_api_server_does_not_know_them(cluster: Cluster) -> None:
    kube = cluster.kube()
    cluster.renew("two")
    assert kube.patch(PATH, {"a": 1}) == {"body": '{"a": 1}'}
    assert (cluster.reads, cluster.seen) == (1, ["one", "two"])


def test_a_watch_begins_under_new_ones_too(cluster: Cluster) -> None:
    kube = cluster.kube()
    cluster.renew("two")
    assert list(kube.watch(PATH, "1", seconds=5)) == []
    assert cluster.seen == ["one", "two"]


def test_the_same_ones_again_are_not_tried_again(cluster: Cluster) -> None:
    kube = cluster.kube()
    cluster.known = "two"
    for _ in range(3):
        with pytest.raises(Refused) as caught:
            kube.get(PATH)
        assert caught.value.status == 401
    assert (cluster.reads, cluster.seen) == (1, ["one"] * 3)
    cluster.now += PAUSE_SECONDS
    cluster.renew("two")
    kube.get(PATH)
    assert cluster.reads == 2


def test_other_refusals_are_no_reason_to_read_them(cluster: Cluster) -> None:
    def refuse(_: Access) -> httpx2.Client:
        answer = httpx2.MockTransport(lambda _: httpx2.Response(403, json={}))
        return httpx2.Client(transport=answer, base_url="https://api.example")

    connection = Connection(cluster.access, cluster.read_again, connect=refuse, clock=lambda: START)
    with pytest.raises(Refused):
        Kube(connection, namespace="shop").get(PATH)
    assert cluster.reads == 0


def test_what_cannot_be_read_in_time_costs_nothing_as_long_as_the_old_ones_do(cluster: Cluster) -> None:
    kube = cluster.kube()
    cluster.failure = CommandError("The plugin failed.", "", Exit.UNREACHABLE)
    cluster.now = START + HOUR
    for _ in range(3):
        kube.get(PATH)
    # Not run for every request.
    assert (cluster.reads, cluster.seen) == (1, ["one"] * 3)
    cluster.known = "two"
    with pytest.raises(CommandError, match="The plugin failed"):
        kube.get(PATH)


@pytest.mark.parametrize("lifetime", [-5.0, 0.0, 4.0, 20.0])
def test_short_lives_do_not_run_the_plugin_for_each_request(cluster: Cluster, lifetime: float) -> None:
    cluster.access = replace(cluster.access, expires=START + lifetime)
    kube = cluster.kube()
    for second in range(int(PAUSE_SECONDS)):
        cluster.now = START + second
        kube.get(PATH)
    assert cluster.reads == 0


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param({"server": "https://other.example"}, id="another server"),
        pytest.param({"authority": "another"}, id="another authority"),
        pytest.param({"verify": False}, id="no authority any more"),
    ],
)
def test_another_cluster_is_never_asked(cluster: Cluster, elsewhere: dict[str, Any]) -> None:
    kube = cluster.kube()
    cluster.renew("two", **elsewhere)
    with pytest.raises(CommandError, match="another cluster"):
        kube.get(PATH)
    assert cluster.seen == ["one"]


def test_a_certificate_gets_connections_of_its_own_and_the_old_ones_are_closed_later(cluster: Cluster) -> None:
    cluster.access = Access("https://api.example", certificate="one", key="k1")
    kube = cluster.kube()
    kube.get(PATH)
    for number in (2, 3):
        cluster.known = f"c{number}"
        cluster.access = replace(cluster.access, certificate=f"c{number}", key=f"k{number}")
        cluster.now += LINGER_SECONDS
        kube.get(PATH)
    assert cluster.seen == ["one", "one", "c2", "c2", "c3"]
    first, second, third = cluster.clients
    # The one before stays for what still runs on it.
    assert (first.is_closed, second.is_closed, third.is_closed) == (True, False, False)
    with kube:
        pass
    assert all(one.is_closed for one in cluster.clients)


def test_many_requests_at_once_read_them_once(cluster: Cluster) -> None:
    kube = cluster.kube()
    cluster.renew("two")
    start = threading.Barrier(8)

    def ask(_: int) -> None:
        start.wait(10)
        kube.get(PATH)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert cluster.reads == 1
    assert cluster.seen.count("two") == 8


def test_the_context_is_the_one_that_was_read_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another one has been made the current one meanwhile."""
    names = ("first", "second")
    document: dict[str, Any] = {
        "current-context": "first",
        "contexts": [{"name": one, "context": {"cluster": one, "user": one}} for one in names],
        "clusters": [{"name": one, "cluster": {"server": f"https://{one}.example"}} for one in names],
        "users": [{"name": one, "user": {"token": f"token-{one}"}} for one in names],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document), "utf-8")
    given: list[Callable[[], Access]] = []

    def connect(_: Access, again: Callable[[], Access]) -> httpx2.Client:
        given.append(again)
        return httpx2.Client()

    monkeypatch.setattr(kubes, "Connection", connect)
    with kubes.open_kube(kubeconfig=str(path)):
        pass
    document["current-context"] = "second"
    document["users"][0]["user"]["token"] = "token-renewed"
    path.write_text(yaml.safe_dump(document), "utf-8")
    (again,) = given
    assert (again().server, again().token) == ("https://first.example", "token-renewed")
