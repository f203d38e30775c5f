"""One trial: an installation whose keys and credentials are rotated all the time, under load, with everything watched."""

from __future__ import annotations

import asyncio
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
from keyturn_dev.installation import SIGNING_KEY, Installation, status_of
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import World
from tests.cluster.rotation.ledger import Ledger
from tests.cluster.rotation.parties import AUDIENCE, Credential, Mounted, Parties, Proof, by_key, by_secret
from tests.cluster.rotation.states import SigningWatch
from tests.manifests import manifest
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
        self.keys: Mounted
        self.secrets: Mounted

    def prepare(self) -> None:
        """Applies the clients and the rule, and waits until all of them are in force."""
        grants = {"permissions": ["load"], "audiences": [AUDIENCE]}
        generated = {"rotateEvery": "720h", "keepPrevious": f"{OVERLAP}s"}
        own = {"publicKeys": [{"jwk": dict(sample_key("ES256").public.jwk)}], **grants}
        key = {"generateKey": {"secretName": "load-key", **generated}, **grants}
        secret = {
            "authMethod": "client_secret_basic",
            "clientSecret": {"secretName": "load-secret", **generated},
            **grants,
        }
        self.world.apply(
            *(
                manifest("ClientCredential", name, spec)
                for name, spec in (("load-own", own), ("load-key", key), ("load-secret", secret))
            )
        )
        self.world.rule("load", {"path": "/load", "permissions": {"anyOf": ["load"]}})
        self.world.objects.wait_all_ready("clientcredentials", ["load-own", "load-key", "load-secret"], seconds=30)

    async def run(self, seconds: float, *, kill: bool = False, least_kills: int = 0) -> None:
        """Load, rotations and watches for so long; with `kill` also until the operator was killed often enough, at most thrice as long."""
        limits = aiohttp.ClientTimeout(total=20)
        store = open_store(self.installation.store_url)
        await store.open()
        admin = kubernetes(self.installation)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits) as http:
                parties = Parties(http, self.urls, self.issuer, self.ledger, TOKEN_LIFETIME)
                self.keys = Mounted(partial(admin.get, "secrets", "load-key"), self.ledger, "load-key")
                self.secrets = Mounted(partial(admin.get, "secrets", "load-secret"), self.ledger, "load-secret")
                await self.keys.look()
                await self.secrets.look()
                works = [*self._load(parties), *self._watches(http, admin, store), *self._rotations(admin)]
                if kill:
                    works.append(self.killer.run)
                await self._for(seconds, works, lambda: self.killer.kills >= least_kills)
                await self._ended_credentials_are_refused(http)
        finally:
            await admin.http.close()
            await store.close()

    async def _for(
        self, seconds: float, works: Sequence[Callable[[], Awaitable[None]]], enough: Callable[[], bool]
    ) -> None:
        """Runs all works at the same time. One that ends by itself has failed."""
        tasks = [asyncio.ensure_future(work()) for work in works]
        began = time.monotonic()
        try:
            while time.monotonic() - began < seconds or (not enough() and time.monotonic() - began < 3 * seconds):
                done, _ = await asyncio.wait(tasks, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                assert not done, "a part of the trial has ended"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _load(self, parties: Parties) -> list[Callable[[], Awaitable[None]]]:
        own = sample_key("ES256")
        pem = own.to_pem().decode()
        by_own = by_key(f"{self.world.namespace}.load-own", self.issuer, pem, "ES256", own.kid)
        provers: list[tuple[str, Credential]] = [("its own key", by_own)] * 4
        for lag, when in ((0.0, "at once"), (LATE, "late")):
            key, secret = partial(self._with_key_of, lag), partial(self._with_secret_of, lag)
            provers += [(f"a generated key, {when}", key), (f"a generated secret, {when}", secret)] * 2
        return [*(partial(parties.call, name, prove) for name, prove in provers), parties.look_back]

    def _with_key_of(self, lag: float) -> Proof:
        return self._by_key(self.keys.seen(lag))()

    def _with_secret_of(self, lag: float) -> Proof:
        return self._by_secret(self.secrets.seen(lag))()

    def _by_key(self, secret: Mapping[str, str]) -> Credential:
        client_id = f"{self.world.namespace}.load-key"
        return by_key(client_id, self.issuer, secret["private_key.pem"], "RS256", secret["key_id"])

    def _by_secret(self, secret: Mapping[str, str]) -> Credential:
        return by_secret(f"{self.world.namespace}.load-secret", secret["client_secret"])

    def _watches(
        self, http: aiohttp.ClientSession, admin: Kubernetes, store: Store
    ) -> list[Callable[[], Awaitable[None]]]:
        async def row() -> Mapping[str, Any]:
            (stored,) = await store.live(Kind.SIGNING_KEY)
            return stored.record.body

        watch = self.watch
        return [
            self.keys.follow,
            self.secrets.follow,
            partial(watch.secret, partial(admin.get, "secrets", SIGNING_KEY)),
            partial(watch.status, partial(admin.get, "signingkeys", SIGNING_KEY)),
            partial(watch.row, row),
            *(partial(watch.jwks, http, url) for url in self.urls),
        ]

    def _rotations(self, admin: Kubernetes) -> list[Callable[[], Awaitable[None]]]:
        async def again(plural: str, name: str, every: float) -> None:
            while True:
                await asyncio.sleep(every * random.uniform(0.7, 1.3))
                self.ledger.event(f"rotation of {name} asked for")
                await admin.ask_for_rotation(plural, name)

        return [
            partial(again, "signingkeys", SIGNING_KEY, SIGNING_KEY_EVERY),
            partial(again, "clientcredentials", "load-key", CREDENTIALS_EVERY),
            partial(again, "clientcredentials", "load-secret", CREDENTIALS_EVERY),
        ]

    async def _ended_credentials_are_refused(self, http: aiohttp.ClientSession) -> None:
        """What was replaced longer ago than the overlap proves nobody any more."""
        for mounted, make in ((self.keys, self._by_key), (self.secrets, self._by_secret)):
            replaced = zip(mounted.versions, mounted.versions[1:], strict=False)
            ended = [old for (_, old), (at, _) in replaced if time.monotonic() - at > OVERLAP + 2]
            if not ended:
                self.ledger.fail("no credential was replaced long enough ago")
                continue
            headers, proof = make(ended[-1])()
            for url in self.urls:
                form = {"grant_type": "client_credentials", **proof}
                async with http.post(f"{url}/oauth/token", data=form, headers=headers) as answer:
                    if answer.status != 401:
                        self.ledger.fail(f"{url} answers {answer.status} to a credential whose overlap has ended")
