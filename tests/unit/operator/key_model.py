"""The signing keys' whole life in a model of an installation: the real reconciler, snapshot, key loading and JWKS, a clock that is moved by
hand, an operator that can be killed between any two writes, replicas that lag, and verifiers that keep the JWKS for as long as it says.
"""

import asyncio
import base64
import copy
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import orjson
from prometheus_client import CollectorRegistry

from keyturn.grants import Grants
from keyturn.jose import signing
from keyturn.keys.ring import KeyRing
from keyturn.keys.state import KeyPhase, SigningKeyState
from keyturn.records import Kind, Record, Replica
from keyturn.snapshot import Snapshot
from keyturn.store.interface import Taken, Written
from keyturn.store.memory import MemoryStore
from keyturn.timestamps import format_rfc3339
from keyturn_api.metadata import Jwks
from keyturn_api.metrics import Metrics as ApiMetrics
from keyturn_api.signing_keys import SigningKeys
from keyturn_operator.context import Context
from keyturn_operator.key_maker import KeyMaker
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.metrics import Metrics
from keyturn_operator.queue import Key, Priority
from keyturn_operator.reconcile import Worker
from keyturn_operator.references import SecretReferences
from keyturn_operator.replicas import Replicas
from keyturn_operator.rows import Rows
from keyturn_operator.scope import Scope
from keyturn_operator.signing_keys import SigningKeyReconciler
from tests.sample_keys import sample_key
from tests.unit.operator.fakes import NAMESPACE, NOW, FakeKube, key, settings

KEY = key(Kind.SIGNING_KEY, "keyturn")
OBJECT = f"{collection('keyturn.dev/v1alpha1', 'signingkeys', NAMESPACE)}/keyturn"
SECRET = f"{collection('v1', 'secrets', NAMESPACE)}/keyturn"
TOKEN_LIFE = 60.0
SKEW = 10.0

T = TypeVar("T")


class Killed(BaseException):
    """The operator's process is gone, right before or right after a write."""


class Fuse:
    """Kills at the n-th write from now on: an even number before it has an effect, an odd one after."""

    def __init__(self) -> None:
        self.left: int | None = None

    def before(self) -> None:
        self._burn()

    def after(self) -> None:
        self._burn()

    def _burn(self) -> None:
        if self.left is None:
            return
        if self.left == 0:
            self.left = None
            raise Killed
        self.left -= 1


class KubeUnderFuse(FakeKube):
    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self._fuse = fuse

    async def create(self, path: str, body: Object) -> Object:
        self._fuse.before()
        made = await super().create(path, body)
        self._fuse.after()
        return made

    async def merge(self, path: str, body: Object) -> Object:
        self._fuse.before()
        made = await super().merge(path, body)
        self._fuse.after()
        return made

    async def patch_status(self, path: str, body: Object) -> Object:
        self._fuse.before()
        made = await super().patch_status(path, body)
        self._fuse.after()
        return made


class StoreUnderFuse(MemoryStore):
    def __init__(self, fuse: Fuse, clock: Callable[[], float]) -> None:
        super().__init__(clock=clock)
        self._fuse = fuse

    async def put(self, record: Record, *, epoch: int) -> Written | Taken:
        self._fuse.before()
        written = await super().put(record, epoch=epoch)
        self._fuse.after()
        return written

    def backup(self) -> dict[str, Any]:
        names = ("_store_id", "_born_at", "_epoch", "_revision", "_tags", "_rows", "_last_states")
        return {name: copy.deepcopy(getattr(self, name)) for name in names}

    def restore(self, backup: dict[str, Any]) -> None:
        for name, value in copy.deepcopy(backup).items():
            setattr(self, name, value)


@dataclass
class Api:
    """A replica: what it knows of the store and of the mounted Secret, each as old as the model lets it be."""

    name: str
    clock: Callable[[], float]
    lags: bool = False
    mount_lags: bool = False
    snapshot: Snapshot = field(default_factory=lambda: Snapshot("keyturn"))

    def __post_init__(self) -> None:
        self.keys = SigningKeys(Path("/nowhere"), self.snapshot, typ="at+jwt")
        self.jwks = Jwks(self.snapshot, ApiMetrics(CollectorRegistry()), clock=self.clock)

    def restart(self) -> None:
        self.snapshot = Snapshot("keyturn")
        self.__post_init__()

    async def sync(self, store: MemoryStore, secret: Object | None) -> None:
        if not self.mount_lags and secret is not None:
            data = {name: base64.b64decode(value) for name, value in secret["data"].items()}
            self.keys.use(KeyRing.from_secret_data(data))
        if not self.lags:
            changes = await store.changes(self.snapshot.position)
            if changes.reset or changes.position != self.snapshot.position:
                self.snapshot.apply(self.snapshot.prepare(changes), now=self.clock())
        if self.snapshot.loaded:
            loaded = self.keys.loaded_kids
            await store.heartbeat(Replica(self.name, self.snapshot.applied_revision, loaded, self.clock()))

    def published(self) -> tuple[frozenset[str], int]:
        """The kids of its JWKS, and for how long others may keep it."""
        answer = self.jwks({"type": "http", "method": "GET", "headers": []})
        headers = dict(answer.start["headers"])
        max_age = int(headers[b"cache-control"].rpartition(b"=")[2])
        return frozenset(one["kid"] for one in orjson.loads(answer.body["body"])["keys"]), max_age

    def signing_kid(self) -> str | None:
        signer = self.keys.signer()
        return None if signer is None else signer.kid


@dataclass
class Verifier:
    """Somebody else's: it keeps the JWKS for its max-age and never asks before that is over."""

    api: int
    kids: frozenset[str] | None = None
    until: float = 0.0

    def knows(self, kid: str, apis: list[Api], now: float) -> bool:
        if self.kids is None or now >= self.until:
            self.kids, max_age = apis[self.api].published()
            self.until = now + max_age
        return kid in self.kids


@dataclass(frozen=True)
class Token:
    kid: str
    expires_at: float


class Model:
    """What can be done to an installation, and what is then to be seen."""

    def __init__(self, **spec: Any) -> None:
        self.runner = asyncio.Runner()
        # The same keys in the same order each time, so that an example can be told again.
        numbers = itertools.count()
        self.generate = patch.object(signing, "generate", lambda *_: sample_key("ES256", next(numbers)))
        self.generate.start()
        self.now = NOW
        self.fuse = Fuse()
        self.kube = KubeUnderFuse(self.fuse)
        self.store = StoreUnderFuse(self.fuse, lambda: self.now)
        self.epoch = 0
        self.due: float | None = None
        self.alive = False
        self.apis = [Api(f"api-{number}", lambda: self.now) for number in range(2)]
        self.spec = {"algorithm": "ES256", "publishBefore": "10s", "rotateEvery": "0s", **spec}
        self.annotations: dict[str, str] = {}
        self.uid = "uid-keyturn"
        self.remade = 0
        self.kube.put(Kind.SIGNING_KEY, "keyturn", dict(self.spec), annotations=self.annotations)
        self.tick_counter = 0.0
        self.observe: Callable[[], None] = lambda: None

    def close(self) -> None:
        self.generate.stop()
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    # The operator

    def start_operator(self) -> None:
        self.epoch += 1
        queued: list[Key] = []

        def enqueue(one: Key, _: Priority) -> None:
            queued.append(one)

        replicas = self.replicas = Replicas(self.store, enqueue, list, wall=lambda: self.now, clock=self._ticking)
        given = settings(token_lifetime=int(TOKEN_LIFE), max_token_lifetime=int(TOKEN_LIFE), clock_skew_seconds=SKEW)
        context = Context(
            self.kube,
            self.store,
            Rows(self.store, self.epoch),
            replicas,
            given,
            Metrics(CollectorRegistry()),
            enqueue,
            Scope(given.namespaces, given.home),
            Grants(given.home),
            now=lambda: self.now,
            clock=self._ticking,
        )
        reconciler = SigningKeyReconciler(context, SecretReferences(), KeyMaker(enqueue))
        self.worker = Worker(context, {Kind.SIGNING_KEY: reconciler})
        self.queued = queued
        self.alive = True
        self.due = self.now

    def _ticking(self) -> float:
        # Nothing is answered from a cache, no patience is left.
        self.tick_counter += 1.0
        return self.tick_counter

    async def _reconcile(self) -> None:
        # Until nothing is left to be done at this moment; replicas follow each write, unless they lag.
        for _ in range(12):
            self.queued.clear()
            writes = len(self.kube.writes())
            try:
                done = await self.worker(KEY)
            except Killed:
                self.alive = False
                await self._end_tasks()
                return
            making = [task for task in asyncio.all_tasks() if task.get_name().startswith("key for")]
            await asyncio.gather(*making)
            await self._sync()
            self.due = None if done.again is None else self.now + done.again
            if not self.queued and len(self.kube.writes()) == writes:
                return
        raise AssertionError("the operator does not come to rest")

    async def _end_tasks(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _sync(self) -> None:
        for api in self.apis:
            await api.sync(self.store, self.kube.objects.get(SECRET))
        if self.alive:
            self.replicas.look(await self.replicas.live())
        self.observe()

    def touch(self) -> None:
        """A watch event: the operator looks, if there is one."""

        async def work() -> None:
            await self._sync()
            if self.alive:
                await self._reconcile()

        self.run(work())

    def wait(self, seconds: float) -> None:
        """Time goes by, in steps at which the operator is due or a replica beats."""
        end = self.now + seconds

        async def work() -> None:
            while self.now < end:
                beat = self.now + 10.0
                stops = [
                    end,
                    beat,
                    *([self.due] if self.alive and self.due is not None and self.due > self.now else []),
                ]
                self.now = min(stops)
                await self._sync()
                if self.alive and (self.queued or (self.due is not None and self.due <= self.now)):
                    await self._reconcile()

        self.run(work())

    # What people do

    def annotate(self, name: str, value: str | None) -> None:
        if value is None:
            self.annotations.pop(name, None)
        else:
            self.annotations[name] = value
        self.kube.objects[OBJECT]["metadata"]["annotations"] = dict(self.annotations)
        self.touch()

    def edit(self, **spec: str | None) -> None:
        self.spec |= spec
        self.kube.put(Kind.SIGNING_KEY, "keyturn", dict(self.spec))
        self.touch()

    def remake_object(self, secret: Object | None) -> None:
        """The object is lost and restored from a backup without its status and annotations, and its Secret with it if one is given."""
        self.remade += 1
        before, self.uid = self.uid, f"uid-keyturn-{self.remade}"
        self.annotations = {}
        self.kube.put(Kind.SIGNING_KEY, "keyturn", dict(self.spec), uid=self.uid, annotations={})
        if secret is not None:
            self.kube.objects[SECRET] = self.kube._versioned(copy.deepcopy(secret))
        if self.alive:
            self.worker.deleted(KEY, before)
        self.touch()

    def secret_backup(self) -> Object | None:
        return copy.deepcopy(self.kube.objects.get(SECRET))

    def restore_secret(self, backup: Object) -> None:
        self.kube.objects[SECRET] = self.kube._versioned(copy.deepcopy(backup))
        self.touch()

    # What is to be seen

    def ring(self) -> KeyRing | None:
        secret = self.kube.objects.get(SECRET)
        if secret is None:
            return None
        return KeyRing.from_secret_data({name: base64.b64decode(value) for name, value in secret["data"].items()})

    def row(self) -> SigningKeyState | None:
        row = self.store._rows.get((Kind.SIGNING_KEY, self.uid))
        return None if row is None or row.deleted_at is not None else SigningKeyState.from_body(orjson.loads(row.body))

    def kid(self, phase: KeyPhase) -> str | None:
        ring = self.ring()
        found = () if ring is None else ring.in_phase(phase)
        return found[0].kid if found else None

    def condition(self, kind: str) -> dict[str, Any]:
        listed = (self.kube.objects[OBJECT].get("status") or {}).get("conditions") or []
        return next((one for one in listed if one["type"] == kind), {})

    def accepted(self, api: Api, kid: str) -> bool:
        return api.snapshot.verification_key(kid, self.now) is not None

    def stamp(self) -> str:
        return format_rfc3339(self.now)
