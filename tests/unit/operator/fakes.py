"""A Kubernetes API in memory, behind the operator's narrow interface, and a context that stands on it."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from prometheus_client import CollectorRegistry

from keyturn.grants import Grants
from keyturn.records import Kind, Replica
from keyturn.store.memory import MemoryStore
from keyturn.timestamps import format_rfc3339
from keyturn_operator.context import Context
from keyturn_operator.kube.client import Object, collection
from keyturn_operator.kube.errors import Conflict, NotFound
from keyturn_operator.metrics import Metrics
from keyturn_operator.queue import Key, Priority
from keyturn_operator.replicas import Replicas
from keyturn_operator.rows import Rows
from keyturn_operator.scope import Scope
from keyturn_operator.settings import API_VERSION, PLURALS, OperatorSettings

NAMESPACE = "shop"
NOW = 1_800_000_000.0


def key(kind: Kind, name: str, namespace: str = NAMESPACE) -> Key:
    """A key in the namespace of these tests."""
    return Key(kind, namespace, name)


def settings(**changes: Any) -> OperatorSettings:
    """Settings as an installation in one namespace has them."""
    given: dict[str, Any] = {
        "store_url": "memory://",
        "issuer": "https://tokens.example",
        "namespaces": (NAMESPACE,),
        "bcrypt_cost": 8,
    }
    return OperatorSettings(**(given | changes))


def merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """RFC 7386."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict) and isinstance(target.get(name), dict):
            merge(target[name], value)
        else:
            target[name] = value


class FakeKube:
    """Objects by path, with uids and resourceVersions as the API server gives them."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.calls: list[tuple[str, str]] = []
        self.failures: dict[tuple[str, str], Exception] = {}
        self.watched: list[Object] = []
        self._counter = 0

    def put(self, kind: Kind, name: str, spec: Object, *, born: float = NOW - 100, **metadata: Any) -> Object:
        """An object of ours, as if someone had applied it."""
        path = f"{collection(API_VERSION, PLURALS[kind], NAMESPACE)}/{name}"
        before = self.objects.get(path)
        if before is not None and "uid" not in metadata:
            before["spec"] = spec
            before["metadata"]["generation"] += 1
            before["metadata"].update(metadata)
            return before
        obj: Object = {
            "apiVersion": API_VERSION,
            "kind": str(kind),
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": f"uid-{name}",
                "generation": 1,
                "creationTimestamp": format_rfc3339(born),
                **metadata,
            },
            "spec": spec,
        }
        self.objects[path] = self._versioned(obj)
        return obj

    def secret(self, name: str, data: dict[str, str], **metadata: Any) -> Object:
        """A Secret, its values encoded already."""
        given = {"name": name, "namespace": NAMESPACE, "uid": f"uid-secret-{name}", **metadata}
        secret = self._versioned({"metadata": given, "type": "Opaque", "data": data})
        self.objects[f"{collection('v1', 'secrets', NAMESPACE)}/{name}"] = secret
        return secret

    def delete(self, kind: Kind, name: str) -> None:
        del self.objects[f"{collection(API_VERSION, PLURALS[kind], NAMESPACE)}/{name}"]

    @property
    def events(self) -> list[Object]:
        return [obj for path, obj in self.objects.items() if "/events/" in path]

    def writes(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] not in ("get", "list")]

    async def get(self, path: str) -> Object | None:
        self._called("get", path)
        return self.objects.get(path)

    async def list_metadata(self, path: str, *, field_selector: str = "") -> tuple[list[Object], str]:
        self._called("list", path)
        member, _, value = field_selector.partition("=")
        found = [
            {"metadata": obj["metadata"]}
            for one, obj in self.objects.items()
            if one.rpartition("/")[0] == path and (not member or obj.get(member) == value)
        ]
        return found, str(self._counter)

    async def create(self, path: str, body: Object) -> Object:
        self._called("create", path)
        name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{self._counter}"
        if f"{path}/{name}" in self.objects:
            raise Conflict("POST", 409)
        body = {**body, "metadata": {"uid": f"uid-{name}", **body["metadata"], "name": name}}
        self.objects[f"{path}/{name}"] = self._versioned(body)
        return body

    async def apply(self, path: str, body: Object) -> Object:
        self._called("apply", path)
        before = self.objects.get(path)
        if before is None:
            raise NotFound("PATCH", 404)
        wanted = body["metadata"].get("resourceVersion")
        if wanted is not None and wanted != before["metadata"]["resourceVersion"]:
            raise Conflict("PATCH", 409)
        merge(
            before, {**body, "metadata": {**body["metadata"], "resourceVersion": before["metadata"]["resourceVersion"]}}
        )
        return self._versioned(before)

    async def merge(self, path: str, body: Object) -> Object:
        self._called("merge", path)
        before = self.objects.get(path)
        if before is None:
            raise NotFound("PATCH", 404)
        for name in ("resourceVersion", "uid"):
            if body["metadata"].get(name, before["metadata"][name]) != before["metadata"][name]:
                raise Conflict("PATCH", 409)
        merge(before, body)
        return self._versioned(before)

    async def replace(self, path: str, body: Object) -> Object:
        self._called("replace", path)
        before = self.objects.get(path)
        if before is None:
            raise NotFound("PUT", 404)
        if body["metadata"].get("resourceVersion") != before["metadata"]["resourceVersion"]:
            raise Conflict("PUT", 409)
        self.objects[path] = self._versioned({**body, "metadata": dict(body["metadata"])})
        return self.objects[path]

    async def remove(self, path: str, *, uid: str) -> None:
        self._called("remove", path)
        obj = self.objects.get(path)
        if obj is None:
            raise NotFound("DELETE", 404)
        if uid != obj["metadata"]["uid"]:
            raise Conflict("DELETE", 409)
        del self.objects[path]

    async def patch_status(self, path: str, body: Object) -> Object:
        self._called("status", path)
        obj = self.objects.get(path)
        if obj is None:
            raise NotFound("PATCH", 404)
        if body["metadata"]["uid"] != obj["metadata"]["uid"]:
            raise Conflict("PATCH", 409)
        merge(obj, {"status": body["status"]})
        return self._versioned(obj)

    async def watch_metadata(
        self, path: str, resource_version: str, *, timeout: int, field_selector: str = ""
    ) -> AsyncGenerator[Object]:
        self._called("watch", path)
        for event in self.watched:
            yield event

    def _called(self, call: str, path: str) -> None:
        self.calls.append((call, path))
        failure = self.failures.get((call, path))
        if failure is not None:
            raise failure

    def _versioned(self, obj: Object) -> Object:
        self._counter += 1
        obj["metadata"]["resourceVersion"] = str(self._counter)
        return obj


class Stage:
    """A context with a store in memory, one API replica that has applied everything, and what was queued."""

    def __init__(self, store: MemoryStore, epoch: int, *, grants: Grants | None = None, **changes: Any) -> None:
        self.kube = FakeKube()
        self.store = store
        self.queued: list[Key] = []
        self.now = NOW
        self.metrics = Metrics(CollectorRegistry())
        enqueue: Callable[[Key, Priority], None] = lambda one, _priority: self.queued.append(one)  # noqa: E731
        self.replicas = Replicas(store, enqueue, list, wall=lambda: self.now, clock=self._ticking)
        self._tick = 0.0
        given = settings(**changes)
        self.context = Context(
            self.kube,
            store,
            Rows(store, epoch),
            self.replicas,
            given,
            self.metrics,
            enqueue,
            Scope(given.namespaces, given.home),
            grants or Grants(given.home),
            now=lambda: self.now,
            clock=self._ticking,
        )

    def _ticking(self) -> float:
        # Every look at the clock is a second later: nothing is answered from a cache, no patience is left.
        self._tick += 1.0
        return self._tick

    @classmethod
    async def make(cls, **changes: Any) -> "Stage":
        store = MemoryStore()
        await store.open()
        stage = cls(store, await store.next_epoch("test"), **changes)
        await stage.replica()
        return stage

    async def replica(self, applied: int = 1_000_000, kids: tuple[str, ...] = ("k1",)) -> None:
        await self.store.heartbeat(Replica("api-0", applied, kids, self.now))

    def ready(self, kind: Kind, name: str) -> tuple[str, str, str]:
        """(status, reason, message) of the Ready condition."""
        obj = self.kube.objects[f"{collection(API_VERSION, PLURALS[kind], NAMESPACE)}/{name}"]
        ready = next(one for one in obj["status"]["conditions"] if one["type"] == "Ready")
        return ready["status"], ready["reason"], ready["message"]
