"""One trial: an installation whose keys and credentials are rotated all the time, under load, with everything watched."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from keyturn.records import Kind
from keyturn.store.factory import open_store
from keyturn.store.interface import Store
from keyturn_dev import process
from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation, status_of
from keyturn_dev.rights import SIGNING_KEY
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import World
from tests.cluster.rotation.ledger import Ledger
from tests.cluster.rotation.parties import AUDIENCE, Credential, Mounted, Parties, Proof, by_key, by_secret
from tests.cluster.rotation.states import SigningWatch
from tests.manifests import Manifest, manifest
from tests.sample_keys import sample_key

TOKEN_LIFETIME = 15
OVERLAP = 20
# How late a workload may see its new Secret: within the overlap.
LATE = 10.0
SIGNING_KEY_EVERY = 4.0
CREDENTIALS_EVERY = 5.0
SETTINGS = {
    "KEYTURN_TOKEN_LIFETIME": str(TOKEN_LIFETIME),
    "KEYTURN_MAX_TOKEN_LIFETIME": str(TOKEN_LIFETIME),
    # A line for each request would be most of the load.
    "KEYTURN_LOG_LEVEL": "INFO",
}


# The clients whose credentials the operator makes.
_FOLLOWED = {"rotateEvery": "720h", "keepPrevious": f"{OVERLAP}s"}
GENERATED: dict[str, Manifest] = {
    "load-key": {"generateKey": {"secretName": "load-key", **_FOLLOWED}},
    "load-secret": {
        "authMethod": "client_secret_basic",
        "clientSecret": {"secretName": "load-secret", **_FOLLOWED},
    },
}

Work = Callable[[], Awaitable[None]]


@dataclass
class Kubernetes:
    """The API server as the administrator sees it, without blocking."""

    http: aiohttp.ClientSession
    server: str
    namespace: str

    def path(self, plural: str, name: str) -> str:
        root = "/api/v1" if plural == "secrets" else "/apis/keyturn.dev/v1alpha1"
        return f"{self.server}{root}/namespaces/{self.namespace}/{plural}/{name}"

    async def get(self, plural: str, name: str) -> Mapping[str, Any]:
        async with self.http.get(self.path(plural, name)) as answer:
            document: Mapping[str, Any] = await answer.json()
            return document

    async def ask_for_rotation(self, plural: str, name: str) -> None:
        change = {"metadata": {"annotations": {"keyturn.dev/rotate": str(time.time_ns())}}}
        headers = {"Content-Type": "application/merge-patch+json"}
        async with self.http.patch(self.path(plural, name), json=change, headers=headers) as answer:
            assert answer.status == 200, await answer.text()


def kubernetes(installation: Installation) -> Kubernetes:
    cluster = installation.target
    assert isinstance(cluster, Cluster)
    certs = cluster.state / "certs"
    context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
    context.load_cert_chain(certs / "admin.crt", certs / "admin.key")
    server = cluster.status().server
    assert server is not None
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=aiohttp.ClientTimeout(total=20))
    return Kubernetes(http, server, installation.namespace)


@dataclass
class Generated:
    """A client whose credential the operator makes, in a Secret of the client's name. `of` turns the Secret into a credential."""

    name: str
    mounted: Mounted
    of: Callable[[Mapping[str, str]], Credential]

    def proof(self, lag: float) -> Proof:
        """With what the workload sees in its Secret, so many seconds late."""
        return self.of(self.mounted.seen(lag))()


@dataclass
class Killer:
    """Ends the operator by SIGKILL at random instants and starts it again, also while it starts."""

    installation: Installation
    ledger: Ledger
    kills: int = 0
    while_acting: int = 0

    async def run(self) -> None:
        while True:
            if random.random() < 0.5:
                # Somewhere in its start.
                await asyncio.sleep(random.uniform(0.05, 2.0))
            else:
                # It finds what it was asked for meanwhile: a rotation or two may be at any point.
                await self._acts()
                await asyncio.sleep(random.choice((random.uniform(0.0, 0.8), random.uniform(0.0, 4.0))))
            await asyncio.to_thread(self._kill_and_start)

    async def _acts(self) -> None:
        for _ in range(300):
            if await asyncio.to_thread(self._is_acting):
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the operator does not start within 30 s")

    def _is_acting(self) -> bool:
        return status_of(f"http://127.0.0.1:{self.installation.operator_port}/readyz") == 200

    def _kill_and_start(self) -> None:
        acting = self._is_acting()
        (record,) = [one for one in self.installation.records() if one.name == "operator-0"]
        os.kill(record.pid, signal.SIGKILL)
        wait_until(lambda: not process.is_alive(record), "the operator to be gone", seconds=10, interval=0.005)
        process.stop(record)
        self.kills += 1
        self.while_acting += acting
        self.ledger.event(f"operator killed ({'acting' if acting else 'starting'}), the {self.kills}. time")
        self.installation.start_operator()


class Trial:
    """Objects, clients, verifiers and watches on one installation. `run` is the load itself."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.installation = world.installation
        self.ledger = Ledger()
        self.watch = SigningWatch(self.ledger)
        self.killer = Killer(self.installation, self.ledger)
        self.urls = [one.url for one in world.replicas]
        self.issuer = self.installation.url
        self.generated = [self._generated(name) for name in GENERATED]

    def prepare(self) -> None:
        """Applies the clients and the rule, and waits until all of them are in force."""
        grants = {"permissions": ["load"], "audiences": [AUDIENCE]}
        specs = {"load-own": {"publicKeys": [{"jwk": dict(sample_key("ES256").public.jwk)}]}, **GENERATED}
        self.world.apply(*(manifest("ClientCredential", name, {**spec, **grants}) for name, spec in specs.items()))
        self.world.rule("load", {"path": "/load", "permissions": {"anyOf": ["load"]}})
        self.world.objects.wait_all_ready("clientcredentials", list(specs), seconds=30)

    async def run(self, seconds: float, *, kill: bool = False, least_kills: int = 0) -> None:
        """Load, rotations and watches for so long; with `kill` also until enough kills, at most eight times as long."""
        limits = aiohttp.ClientTimeout(total=20)
        store = open_store(self.installation.store_url)
        await store.open()
        admin = kubernetes(self.installation)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits) as http:
                parties = Parties(http, self.urls, self.issuer, self.ledger, TOKEN_LIFETIME)
                for one in self.generated:
                    one.mounted.read = partial(admin.get, "secrets", one.name)
                    await one.mounted.look()
                works = [*self._load(parties), *self._watches(http, admin, store), *self._rotations(admin)]
                if kill:
                    works.append(self.killer.run)
                await self._for(seconds, works, lambda: self.killer.kills >= least_kills)
                for one in self.generated:
                    await self._ended_are_refused(http, one)
        finally:
            await admin.http.close()
            await store.close()

    async def _for(self, seconds: float, works: Sequence[Work], enough: Callable[[], bool]) -> None:
        """Runs all works at the same time. One that ends by itself has failed."""
        tasks = [asyncio.ensure_future(work()) for work in works]
        began = time.monotonic()
        try:
            while time.monotonic() - began < seconds or (not enough() and time.monotonic() - began < 8 * seconds):
                done, _ = await asyncio.wait(tasks, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                assert not done, "a part of the trial has ended"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _generated(self, name: str) -> Generated:
        client_id = f"{self.world.namespace}.{name}"

        def of(data: Mapping[str, str]) -> Credential:
            if "client_secret" in data:
                return by_secret(client_id, data["client_secret"])
            return by_key(client_id, self.issuer, data["private_key.pem"], "RS256", data["key_id"])

        return Generated(name, Mounted(self.ledger, name), of)

    def _load(self, parties: Parties) -> list[Work]:
        key = sample_key("ES256")
        own = by_key(f"{self.world.namespace}.load-own", self.issuer, key.to_pem().decode(), "ES256", key.kid)
        provers: list[tuple[str, Credential]] = [("load-own", own)] * 4
        for one in self.generated:
            provers += [
                (f"{one.name} at once", partial(one.proof, 0.0)),
                (f"{one.name} late", partial(one.proof, LATE)),
            ] * 2
        return [*(partial(parties.call, name, prove) for name, prove in provers), parties.look_back]

    def _watches(self, http: aiohttp.ClientSession, admin: Kubernetes, store: Store) -> list[Work]:
        async def row() -> Mapping[str, Any]:
            (stored,) = await store.live(Kind.SIGNING_KEY)
            return stored.record.body

        watch = self.watch
        return [
            *(one.mounted.follow for one in self.generated),
            partial(watch.secret, partial(admin.get, "secrets", SIGNING_KEY)),
            partial(watch.status, partial(admin.get, "signingkeys", SIGNING_KEY)),
            partial(watch.row, row),
            *(partial(watch.jwks, http, url) for url in self.urls),
        ]

    def _rotations(self, admin: Kubernetes) -> list[Work]:
        async def again(plural: str, name: str, every: float) -> None:
            while True:
                await asyncio.sleep(every * random.uniform(0.7, 1.3))
                self.ledger.event(f"rotation of {name} asked for")
                await admin.ask_for_rotation(plural, name)

        return [
            partial(again, "signingkeys", SIGNING_KEY, SIGNING_KEY_EVERY),
            *(partial(again, "clientcredentials", one.name, CREDENTIALS_EVERY) for one in self.generated),
        ]

    async def _ended_are_refused(self, http: aiohttp.ClientSession, one: Generated) -> None:
        """What was replaced longer ago than the overlap proves nobody any more."""
        versions = one.mounted.versions
        replaced = itertools.pairwise(versions)
        ended = [old for (_, old), (at, _) in replaced if time.monotonic() - at > OVERLAP + 2]
        if not ended:
            self.ledger.fail(f"no credential of {one.name} was replaced long enough ago")
            return
        headers, proof = one.of(ended[-1])()
        form = {"grant_type": "client_credentials", **proof}
        for url in self.urls:
            async with http.post(f"{url}/oauth/token", data=form, headers=headers) as answer:
                if answer.status != 401:
                    what = f"a credential of {one.name} whose overlap has ended"
                    self.ledger.fail(f"{url} answers {answer.status} to {what}")
