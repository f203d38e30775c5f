"""What the tests of an installation do from outside: write manifests, read objects, and ask the API as clients and gateways do.

Tokens are made with PyJWT and requests with httpx2, so that nothing here shares code with what it examines.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import jwt

from keyturn.jose.signing import PrivateKey
from keyturn_dev import process
from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation
from keyturn_dev.rights import SIGNING_KEY
from keyturn_dev.waiting import TimedOut, wait_until
from tests.manifests import API_VERSION, Manifest, manifest
from tests.sample_keys import sample_key

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
GROUP_PATH = f"/apis/{API_VERSION}"
CORE = ("secrets", "events", "pods", "serviceaccounts")
PROMISE_SECONDS = 1.0
"""The product's promise: a change is effective in every replica within a second."""


class Objects:
    """The Kubernetes API of one namespace, as the administrator; without kubectl, so that asking often costs little."""

    def __init__(self, installation: Installation, namespace: str | None = None) -> None:
        cluster = installation.target
        assert isinstance(cluster, Cluster)
        certs = cluster.state / "certs"
        context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
        context.load_cert_chain(certs / "admin.crt", certs / "admin.key")
        server = cluster.status().server
        assert server is not None
        self.namespace = namespace or installation.namespace
        self._http = httpx2.Client(base_url=server, verify=context, timeout=10, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def path(self, plural: str) -> str:
        root = "/api/v1" if plural.partition("/")[0] in CORE else GROUP_PATH
        root = "/apis/coordination.k8s.io/v1" if plural == "leases" else root
        return f"{root}/namespaces/{self.namespace}/{plural}"

    def get(self, plural: str, name: str) -> Manifest:
        answer = self._http.get(f"{self.path(plural)}/{name}")
        assert answer.status_code == 200, answer.text
        return as_object(answer)

    def all(self, plural: str) -> list[Manifest]:
        items = as_object(self._http.get(self.path(plural)))["items"]
        assert isinstance(items, list)
        return items

    def create(self, plural: str, given: Manifest) -> Manifest:
        return self.create_at(self.path(plural), given)

    def create_at(self, path: str, given: Manifest) -> Manifest:
        answer = self._http.post(path, json=given)
        assert answer.status_code == 201, answer.text
        return as_object(answer)

    def patch(self, plural: str, name: str, change: Manifest) -> Manifest:
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = self._http.patch(f"{self.path(plural)}/{name}", content=json.dumps(change), headers=headers)
        assert answer.status_code == 200, answer.text
        return as_object(answer)

    def delete(self, plural: str, name: str) -> None:
        assert self._http.delete(f"{self.path(plural)}/{name}").status_code in (200, 202)

    def condition(self, plural: str, name: str, kind: str = "Ready") -> Manifest | None:
        """The condition, if it is there and speaks of the object as it is now."""
        obj = self.get(plural, name)
        for one in (obj.get("status") or {}).get("conditions") or ():
            if one["type"] == kind and one["observedGeneration"] == obj["metadata"]["generation"]:
                assert isinstance(one, dict)
                return one
        return None

    def wait_for(
        self,
        plural: str,
        name: str,
        status: str = "True",
        *,
        reason: str | None = None,
        kind: str = "Ready",
        seconds: float = 15.0,
    ) -> Manifest:
        """The condition, once it has this status (and reason) for the object's present generation."""
        seen: list[Manifest | None] = [None]

        def holds() -> bool:
            seen[0] = self.condition(plural, name, kind)
            return seen[0] is not None and seen[0]["status"] == status and reason in (None, seen[0]["reason"])

        try:
            wait_until(holds, f"{plural}/{name} to be {kind}={status} {reason or ''}", seconds=seconds)
        except TimedOut as error:
            raise AssertionError(f"{error}; it was {seen[0]}") from None
        assert seen[0] is not None
        return seen[0]

    def wait_all_ready(self, plural: str, names: Sequence[str], *, seconds: float) -> None:
        wanted = set(names)

        def unready() -> set[str]:
            return wanted - {one["metadata"]["name"] for one in self.all(plural) if is_ready(one)}

        wait_until(lambda: not unready(), f"{len(wanted)} {plural} to be Ready", seconds=seconds, interval=0.3)

    def events(self, name: str) -> list[Manifest]:
        """The Events about objects of this name, oldest first."""
        about = [one for one in self.all("events") if one["involvedObject"]["name"] == name]
        return sorted(about, key=lambda one: int(one["metadata"]["resourceVersion"]))

    def wait_event(self, name: str, reason: str, *, says: str = "", seconds: float = 10.0) -> Manifest:
        """The latest Event with this reason that says so, once there is one."""
        found: list[Manifest] = []

        def there() -> bool:
            found[:] = [one for one in self.events(name) if one["reason"] == reason and says in one["message"]]
            return bool(found)

        wait_until(there, f"an Event {reason} about {name}", seconds=seconds, interval=0.2)
        return found[-1]


def as_object(answer: httpx2.Response) -> Manifest:
    value = answer.json()
    assert isinstance(value, dict), answer.text
    return value


def is_ready(obj: Manifest) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    generation = obj["metadata"]["generation"]
    return any(
        one["type"] == "Ready" and one["status"] == "True" and one["observedGeneration"] == generation
        for one in conditions
    )


class Replica:
    """One API process, asked as clients and gateways ask."""

    def __init__(self, installation: Installation, number: int) -> None:
        self.url = installation.url_of(number)
        self._http = httpx2.Client(base_url=self.url, timeout=10, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def grant(self, assertion: str, **more: str) -> httpx2.Response:
        form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
        return self._http.post("/oauth/token", data={**form, "client_assertion": assertion, **more})

    def grant_basic(self, client_id: str, secret: str) -> httpx2.Response:
        # RFC 6749 section 2.3.1: both are form-encoded before they are joined.
        encoded = (urllib.parse.quote_plus(client_id), urllib.parse.quote_plus(secret))
        return self._http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=encoded)

    def token_info(self, token: str) -> httpx2.Response:
        return self._http.get("/tokeninfo", headers={"Authorization": f"Bearer {token}"})

    def auth(self, path: str, token: str | None = None, method: str = "GET") -> httpx2.Response:
        headers = {"Original-Request-Method": method, "Original-Request-Uri": path}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return self._http.get("/auth", headers=headers)

    def ready(self) -> int | None:
        try:
            return self._http.get("/readyz").status_code
        except httpx2.HTTPError:
            return None


@dataclass
class World:
    """An installation, with connections to its API processes and to its namespace."""

    installation: Installation
    objects: Objects
    replicas: list[Replica]
    key_numbers: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    @property
    def namespace(self) -> str:
        return self.objects.namespace

    @contextmanager
    def within(self, namespace: str) -> Iterator[World]:
        """The same installation, as those see it who work in another namespace."""
        objects = Objects(self.installation, namespace)
        try:
            yield replace(self, objects=objects)
        finally:
            objects.close()

    def kubectl(self, *arguments: str, seconds: float = 60) -> str:
        return self.installation.kubectl(f"--namespace={self.namespace}", *arguments, seconds=seconds)

    def apply(self, *manifests: Manifest) -> None:
        self.installation.apply(list(manifests), namespace=self.namespace)

    def client(self, name: str, *, key: PrivateKey | None = None, client_id: str | None = None) -> Client:
        """A client with a key of its own (elliptic: made in no time)."""
        return Client(self, name, key or sample_key("ES256", next(self.key_numbers)), client_id)

    def rule(self, name: str, *routes: Manifest, ready: bool = True, **spec: Any) -> None:
        self.apply(manifest("AccessRule", name, {"routes": list(routes), **spec}))
        if ready:
            self.objects.wait_for("accessrules", name)

    def everywhere(self, answer: Callable[[Replica], int]) -> list[int]:
        """What each replica answers."""
        return [answer(one) for one in self.replicas]

    def seconds_until(self, holds: Callable[[], bool], what: str, *, limit: float = 10.0) -> float:
        """How long it takes from now until it holds."""
        began = time.monotonic()
        wait_until(holds, what, seconds=limit, interval=0.005)
        return time.monotonic() - began

    def kill_operator(self, name: str = "operator-0") -> None:
        """End the operator as a power cut would."""
        for record in self.installation.records():
            if record.name == name:
                kill_record(record)


def kill_record(record: process.ProcessRecord) -> None:
    """SIGKILL, by the identity of the process."""
    assert process.is_alive(record)
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: not process.is_alive(record), f"{record.name} to end", seconds=10)
    process.stop(record)


@dataclass
class Client:
    """A ClientCredential and the private key that belongs to it."""

    world: World
    name: str
    key: PrivateKey
    explicit_id: str | None = None

    @property
    def client_id(self) -> str:
        return self.explicit_id or f"{self.world.namespace}.{self.name}"

    def manifest(self, **spec: Any) -> Manifest:
        members: Manifest = {"publicKeys": [{"jwk": dict(self.key.public.jwk)}], **spec}
        if self.explicit_id is not None:
            members["clientId"] = self.explicit_id
        return manifest("ClientCredential", self.name, {name: one for name, one in members.items() if one is not None})

    def apply(self, *, ready: bool = True, **spec: Any) -> Client:
        self.world.apply(self.manifest(**spec))
        if ready:
            self.wait()
        return self

    def wait(self, status: str = "True", reason: str | None = None, *, seconds: float = 15.0) -> Manifest:
        return self.world.objects.wait_for("clientcredentials", self.name, status, reason=reason, seconds=seconds)

    def patch(self, **spec: Any) -> None:
        """By kubectl, so that a measured time begins when a person's command returns."""
        change = json.dumps({"spec": spec})
        self.world.kubectl("patch", "clientcredential", self.name, "--type=merge", "-p", change)

    def delete(self) -> None:
        self.world.kubectl("delete", "clientcredential", self.name)

    def assertion(self, *, key: PrivateKey | None = None, **claims: Any) -> str:
        signer = key or self.key
        now = int(time.time())
        body = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.world.replicas[0].url,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "exp": now + 60,
            **claims,
        }
        return jwt.encode(body, signer.to_pem().decode(), algorithm=signer.algorithm, headers={"kid": signer.kid})

    def request(self, replica: int = 0, *, key: PrivateKey | None = None, **more: str) -> httpx2.Response:
        return self.world.replicas[replica].grant(self.assertion(key=key), **more)

    def token(self, replica: int = 0) -> str:
        answer = self.request(replica)
        assert answer.status_code == 200, answer.text
        token = as_object(answer)["access_token"]
        assert isinstance(token, str)
        return token


@contextmanager
def world_of(installation: Installation, *, replicas: int) -> Iterator[World]:
    objects = Objects(installation)
    apis = [Replica(installation, number) for number in range(replicas)]
    try:
        yield World(installation, objects, apis)
    finally:
        objects.close()
        for one in apis:
            one.close()


def route(path: str, *methods: str, **condition: Any) -> Manifest:
    members: Mapping[str, Any] = condition or {"public": True}
    return {"path": path, **({"methods": list(methods)} if methods else {}), **members}


def needs(*permissions: str) -> Manifest:
    """The condition of a route: one of these permissions."""
    return {"permissions": {"anyOf": list(permissions)}}


def signing_kids(world: World) -> list[str]:
    return [key["kid"] for key in world.objects.get("signingkeys", SIGNING_KEY)["status"]["keys"]]
