"""A whole installation without Kubernetes: a store that the test fills by hand, a key directory, and real API processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import jwt

from keyturn.clients.state import CLIENT_SECRET_BASIC, ClientKey, ClientState, SecretHash
from keyturn.jose.signing import PrivateKey
from keyturn.keys.plan import ensure, with_generated
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import KeyPhase
from keyturn.records import Kind, Record
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn.secrets import hash_generated
from keyturn.store.factory import open_store
from keyturn.store.interface import Store
from keyturn_dev.loopback import free_ports
from tests.sample_keys import sample_key
from tests.secrecy.observing import keep_dump
from tests.secrecy.planted import PLANTED

ISSUER = "https://issuer.example"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
START_TIMEOUT = 30.0


def free_port() -> int:
    (port,) = free_ports(1)
    return port


def client_key(key: PrivateKey, **changes: Any) -> ClientKey:
    public = key.public
    state = ClientKey(public.kid, public.thumbprint, public.algorithm, public.size, "publicKeys", public.jwk)
    return replace(state, **changes)


def assertion(
    key: PrivateKey, client_id: str, *, header: Mapping[str, Any] | None = None, without: str = "", **claims: Any
) -> str:
    """A client assertion made by an independent library. `without` leaves a claim out."""
    now = int(time.time())
    body: dict[str, Any] = {
        "iss": client_id,
        "sub": client_id,
        "aud": ISSUER,
        "jti": str(uuid.uuid4()),
        "iat": now,
        "exp": now + 60,
        **claims,
    }
    body.pop(without, None)
    return jwt.encode(body, key.to_pem().decode(), key.algorithm, {"kid": key.kid, **(header or {})})


def form(signed: str, **fields: Any) -> dict[str, Any]:
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": signed,
        **fields,
    }


class ApiProcess:
    """One `keyturn-api` with its own ports."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.port, self.metrics_port = int(environment.get("KEYTURN_HTTP_PORT", free_port())), free_port()
        scheme = "https" if "KEYTURN_TLS_CERT_FILE" in environment else "http"
        self.url = f"{scheme}://{environment.get('KEYTURN_HTTP_HOST', '127.0.0.1')}:{self.port}"
        self.metrics_url = f"http://{environment.get('KEYTURN_METRICS_HOST', '127.0.0.1')}:{self.metrics_port}/metrics"
        self.log = log
        PLANTED.watch(log)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keyturn_api.main"],
                env={
                    **os.environ,
                    **environment,
                    "KEYTURN_HTTP_PORT": str(self.port),
                    "KEYTURN_METRICS_PORT": str(self.metrics_port),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    async def ready(self) -> "ApiProcess":
        """Waits until every worker is ready."""
        end = time.monotonic() + START_TIMEOUT
        # Who serves is not in question here.
        async with httpx2.AsyncClient(verify=False) as client:
            while time.monotonic() < end and self.process.poll() is None:
                with suppress(httpx2.TransportError):
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return self
                await asyncio.sleep(0.05)
        raise AssertionError(f"keyturn-api did not become ready:\n{self.output()}")

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 20.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Installation:
    """A folder with store and keys. Records are written as the operator would write them."""

    def __init__(self, folder: Path, store_url: str | None = None) -> None:
        self.folder = folder
        self.store_url = store_url or f"sqlite:///{folder / 'keyturn.sqlite'}"
        self.keys = folder / "signing-key"
        self.store: Store = open_store(self.store_url)
        self.ring = KeyRing()
        self.processes: list[ApiProcess] = []
        self._epoch = 0
        self._uids: dict[tuple[Kind, str], str] = {}

    async def open(self) -> None:
        await self.store.open()
        self._epoch = await self.store.next_epoch("test")
        plan = ensure(None, algorithm="RS256", size=2048, now=time.time())
        generated = {KeyPhase.ACTIVE: sample_key(number=101), KeyPhase.NEXT: sample_key(number=102)}
        await self.use_ring(with_generated(plan, generated, now=time.time()))
        # Assertions from before the store's birth are refused, to the second.
        born_at = (await self.store.changes(None)).born_at
        await asyncio.sleep(max(0.0, int(born_at) + 1.01 - time.time()))

    async def close(self) -> None:
        for process in self.processes:
            process.end()
        await self.store.close()
        keep_dump(self.folder.name, self.store_url)

    @property
    def epoch(self) -> int:
        """The test's own, as the one operator."""
        return self._epoch

    async def use_ring(self, ring: KeyRing, *, mount: bool = True, revoke_before: float | None = None) -> None:
        """Puts a key ring into the store, and into the directory by a symlink swap as the kubelet does."""
        self.ring = ring
        if mount:
            self.mount(ring)
        await self.put(Kind.SIGNING_KEY, "keyturn", ring.state(revoke_before=revoke_before).to_body())

    def mount(self, ring: KeyRing) -> None:
        version = self.keys / f"..{uuid.uuid4().hex}"
        version.mkdir(parents=True)
        for name, content in ring.to_secret_data().items():
            (version / name).write_bytes(content)
        link = self.keys / "..data.new"
        link.symlink_to(version.name)
        link.rename(self.keys / "..data")

    async def put(self, kind: Kind, name: str, body: Mapping[str, Any], *, created_at: float | None = None) -> None:
        uid = self._uids.setdefault((kind, name), str(uuid.uuid4()))
        created = int(time.time()) - 10 if created_at is None else created_at
        client_id = body["clientId"] if kind is Kind.CLIENT else None
        record = Record(kind, uid, "team", name, 1, float(created), body, client_id)
        await self.store.put(record, epoch=self._epoch)

    async def put_client(self, state: ClientState) -> None:
        await self.put(Kind.CLIENT, state.client_id, state.to_body(), created_at=state.created_at)

    async def remove(self, kind: Kind, name: str) -> None:
        await self.store.remove(kind, self._uids.pop((kind, name)), epoch=self._epoch)

    async def add_key_client(self, client_id: str, key: PrivateKey, **changes: Any) -> ClientState:
        """A client with one key and the permissions orders:read and orders:write."""
        state = ClientState(
            client_id=client_id,
            created_at=float(int(time.time()) - 10),
            keys=(client_key(key),),
            permissions=("orders:read", "orders:write"),
            audiences=("orders",),
        )
        state = replace(state, **changes)
        await self.put_client(state)
        return state

    async def add_secret_client(self, client_id: str, secret: bytes, **changes: Any) -> ClientState:
        state = ClientState(
            client_id=client_id,
            created_at=float(int(time.time()) - 10),
            auth_method=CLIENT_SECRET_BASIC,
            secrets=(SecretHash(hash_generated(secret), None, "uid/1"),),
            permissions=("orders:read",),
            audiences=("orders",),
        )
        state = replace(state, **changes)
        await self.put_client(state)
        return state

    async def add_rules(self) -> None:
        """`/orders` by permission for GET and POST, `/open` public."""
        rule = RuleState(
            routes=(
                RouteState("/orders", ("GET",), Condition(any_of=("orders:read",))),
                RouteState("/orders", ("POST",), Condition(any_of=("orders:write",))),
                RouteState("/open", ("ALL",), Condition(public=True)),
            )
        )
        await self.put(Kind.ACCESS_RULE, "orders", rule.to_body())

    def start(self, **settings: str) -> ApiProcess:
        """Starts an API process; `settings` without their prefix."""
        environment = {
            "KEYTURN_ISSUER": ISSUER,
            "KEYTURN_STORE_URL": self.store_url,
            "KEYTURN_SIGNING_KEY_DIRECTORY": str(self.keys),
            "KEYTURN_SHUTDOWN_DELAY": "0",
            "KEYTURN_SHUTDOWN_TIMEOUT": "3",
            "KEYTURN_BCRYPT_COST": "4",
            "KEYTURN_LOG_LEVEL": "DEBUG",
            **{f"KEYTURN_{name.upper()}": value for name, value in settings.items()},
        }
        process = ApiProcess(environment, self.folder / f"api-{len(self.processes)}.log")
        self.processes.append(process)
        return process
