"""An API server in memory: objects by path, lists, merge patches that mind the resourceVersion, and answers of a test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from keyturn_cli.change import merged
from keyturn_cli.kube import Kube

Obj = dict[str, Any]
Answer = tuple[int, Any]
NAMESPACE = "shop"
GROUP = f"/apis/keyturn.dev/v1alpha1/namespaces/{NAMESPACE}"
KINDS = {"clientcredentials": "ClientCredential", "signingkeys": "SigningKey", "accessrules": "AccessRule"}


@dataclass
class FakeCluster:
    """`answers` come before objects, by method and path; a callable gets the request."""

    objects: dict[str, Obj] = field(default_factory=dict)
    answers: dict[tuple[str, str], Answer | Callable[[httpx2.Request], httpx2.Response]] = field(default_factory=dict)
    requests: list[httpx2.Request] = field(default_factory=list)
    opened: dict[str, Any] = field(default_factory=dict)
    version: int = 100
    on_patch: Callable[[], None] | None = None

    def open(self, **options: Any) -> Kube:
        self.opened = options
        client = httpx2.Client(transport=httpx2.MockTransport(self.handle), base_url="https://api.example")
        return Kube(client, namespace=options.get("namespace") or NAMESPACE)

    def add(
        self, plural: str, name: str, *, metadata: Obj | None = None, status: Obj | None = None, **spec: Any
    ) -> Obj:
        self.version += 1
        obj = {
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": KINDS[plural],
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": f"uid-{name}",
                "generation": 1,
                "resourceVersion": str(self.version),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                **(metadata or {}),
            },
            "spec": spec,
            "status": status or {},
        }
        self.objects[f"{GROUP}/{plural}/{name}"] = obj
        return obj

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        path = request.url.path
        answer = self.answers.get((request.method, path))
        if callable(answer):
            return answer(request)
        if answer is not None:
            status, body = answer
            return httpx2.Response(status, text=body) if isinstance(body, str) else httpx2.Response(status, json=body)
        if request.method == "PATCH" and path in self.objects:
            return self.patch(path, json.loads(request.content))
        if path in self.objects:
            return httpx2.Response(200, json=self.objects[path])
        plural = path.rpartition("/")[2]
        if plural in KINDS:
            everywhere = "/namespaces/" not in path
            found = [
                one for at, one in self.objects.items() if f"/{plural}/" in at and (everywhere or at.startswith(path))
            ]
            bare = [{name: value for name, value in one.items() if name not in ("kind", "apiVersion")} for one in found]
            page = {"apiVersion": "keyturn.dev/v1alpha1", "kind": f"{KINDS[plural]}List", "items": bare, "metadata": {}}
            return httpx2.Response(200, json=page)
        return httpx2.Response(404, json={"message": "not there"})

    def patch(self, path: str, change: Obj) -> httpx2.Response:
        if self.on_patch is not None:
            act, self.on_patch = self.on_patch, None
            act()
        wanted = change.get("metadata", {}).get("resourceVersion")
        if wanted is not None and wanted != self.objects[path]["metadata"]["resourceVersion"]:
            return httpx2.Response(409, json={"message": "the object has been modified"})
        self.version += 1
        self.objects[path] = merged(self.objects[path], change)
        self.objects[path]["metadata"]["resourceVersion"] = str(self.version)
        return httpx2.Response(200, json=self.objects[path])

    def get(self, plural: str, name: str) -> Obj:
        return self.objects[f"{GROUP}/{plural}/{name}"]

    @property
    def writes(self) -> list[httpx2.Request]:
        return [one for one in self.requests if one.method != "GET"]
