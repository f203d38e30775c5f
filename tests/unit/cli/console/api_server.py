"""An API server that is a few dictionaries: objects with versions, merge patches that name one, reviews of rights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx2

from keyturn_cli.change import merged
from keyturn_cli.console.app import Console
from keyturn_cli.console.counts import AuditCounts
from keyturn_cli.console.guard import Door, Guard
from keyturn_cli.console.service import Service
from keyturn_cli.console.site import site
from keyturn_cli.errors import CommandError
from keyturn_cli.kube import Kube, Object

NOW = 1_800_000_000.0
PORT = 8123
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
ROOT = "/apis/keyturn.dev/v1alpha1/namespaces/shop/"


def ready(generation: int = 1, status: str = "True", reason: str = "Accepted", message: str = "") -> Object:
    return {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": "2027-01-15T00:00:00Z",
    }


def thing(kind: str, name: str, spec: Object, status: Object | None = None, **metadata: Any) -> Object:
    return {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": "2026-12-01T00:00:00Z",
            **metadata,
        },
        "spec": spec,
        "status": status if status is not None else {"conditions": [ready()]},
    }


def client(name: str, *permissions: str, status: Object | None = None, **spec: Any) -> Object:
    """One that the operator has applied: its client id stands in its status."""
    metadata = spec.pop("metadata", {})
    told = {"clientId": f"shop.{name}", "conditions": [ready()], **(status or {})}
    return thing("ClientCredential", name, {"permissions": list(permissions), **spec}, told, **metadata)


def registered(name: str, *asked: str, **spec: Any) -> Object:
    """One that registered itself and waits."""
    labels = {"keyturn.dev/registered": "true", "keyturn.dev/approval": "pending"}
    registration = {"secretName": f"{name}-0", "requested": {"permissions": list(asked), "audiences": ["orders"]}}
    status = {"clientId": name, "conditions": [ready()]}
    return thing("ClientCredential", name, {"registration": registration, **spec}, status, labels=labels)


def rule(name: str, *routes: Object, **spec: Any) -> Object:
    return thing("AccessRule", name, {"routes": list(routes), **spec})


@dataclass
class ApiServer:
    """`refused`: (verb, resource) pairs that RBAC refuses. `meanwhile` runs before the next PATCH or DELETE is looked at.

    `watched`: what the operator's Deployment says of namespaces (None: there is no Deployment).
    """

    objects: dict[str, dict[str, Object]] = field(default_factory=dict)
    refused: set[tuple[str, str]] = field(default_factory=set)
    requests: list[httpx2.Request] = field(default_factory=list)
    objection: str = ""
    meanwhile: Any = None
    watched: str | None = "shop"

    def put(self, *objects: Object) -> None:
        plurals = {"ClientCredential": "clientcredentials", "AccessRule": "accessrules", "SigningKey": "signingkeys"}
        for obj in objects:
            self.objects.setdefault(plurals[obj["kind"]], {})[obj["metadata"]["name"]] = obj

    def edit(self, plural: str, name: str, change: Object, *, generation: int = 1) -> None:
        """What somebody else does."""
        old = self.objects[plural][name]
        new = merged(old, change)
        new["metadata"]["resourceVersion"] = str(int(old["metadata"]["resourceVersion"]) + 1)
        new["metadata"]["generation"] = old["metadata"]["generation"] + generation
        self.objects[plural][name] = new

    def kube(self) -> Kube:
        transport = httpx2.MockTransport(self.handle)
        return Kube(httpx2.Client(transport=transport, base_url="https://api.example"), namespace="shop")

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        path = request.url.path
        if path.endswith("/selfsubjectaccessreviews"):
            asked = json.loads(request.content)["spec"]["resourceAttributes"]
            allowed = (asked["verb"], asked["resource"]) not in self.refused
            return httpx2.Response(201, json={"status": {"allowed": allowed}})
        if path == DEPLOYMENTS:
            if ("list", "deployments") in self.refused:
                return said(403, "cannot list deployments")
            variables = [{"name": "KEYTURN_NAMESPACES", "value": self.watched}]
            found = (
                [] if self.watched is None else [{"spec": {"template": {"spec": {"containers": [{"env": variables}]}}}}]
            )
            return httpx2.Response(200, json={"items": found})
        if not path.startswith(ROOT):
            return said(404, "no such thing")
        plural, _, name = path.removeprefix(ROOT).partition("/")
        verb = {"GET": "get" if name else "list", "PATCH": "patch", "DELETE": "delete"}[request.method]
        if (verb, plural) in self.refused:
            return said(403, f"cannot {verb} {plural}")
        kept = self.objects.get(plural, {})
        if not name:
            return httpx2.Response(200, json={"items": list(kept.values()), "metadata": {"resourceVersion": "1"}})
        if name not in kept:
            return said(404, "not found")
        if request.method == "GET":
            return httpx2.Response(200, json=kept[name])
        return self.change(plural, name, request)

    def change(self, plural: str, name: str, request: httpx2.Request) -> httpx2.Response:
        dry = "dryRun" in request.url.params
        body = json.loads(request.content)
        if dry and self.objection:
            return said(422, self.objection)
        if not dry and self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        obj = self.objects[plural][name]
        named = body["preconditions"] if request.method == "DELETE" else body["metadata"]
        if (named["resourceVersion"], named["uid"]) != (obj["metadata"]["resourceVersion"], obj["metadata"]["uid"]):
            return said(409, "the object has been modified")
        if dry:
            return httpx2.Response(200, json=obj)
        if request.method == "DELETE":
            return httpx2.Response(200, json=self.objects[plural].pop(name))
        del body["metadata"]["resourceVersion"], body["metadata"]["uid"]
        self.edit(plural, name, body)
        return httpx2.Response(200, json=self.objects[plural][name])


def said(status: int, message: str) -> httpx2.Response:
    return httpx2.Response(status, json={"kind": "Status", "message": message})


@dataclass
class Page:
    """The page over such a server, and a browser of sorts: it follows nothing and sends what it is told to."""

    server: ApiServer
    console: Console
    app: Guard

    @property
    def door(self) -> Door:
        return self.console.door

    def send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        from starlette.testclient import TestClient

        host = f"http://127.0.0.1:{PORT}"
        browser = TestClient(self.app, base_url=host, follow_redirects=False, raise_server_exceptions=False)
        with browser:
            return browser.request(method, path, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return self.send("GET", f"{self.door.base}{path}", **options)

    def post(self, path: str, form: dict[str, Any], **options: Any) -> httpx2.Response:
        given = {"form-token": self.door.form_token, **form}
        headers = {"Origin": f"http://127.0.0.1:{PORT}", **options.pop("headers", {})}
        return self.send("POST", f"{self.door.base}{path}", data=given, headers=headers, **options)

    def refresh(self) -> None:
        """As the watches would."""
        for mirror in self.console.mirrors.values():
            try:
                mirror.list_once()
            except CommandError as error:
                mirror.failed(error)


def page(server: ApiServer, **options: Any) -> Page:
    """The collections are listed once; nothing follows them."""
    kube = server.kube()
    console = Console(
        kube=kube,
        door=Door(PORT),
        counts=AuditCounts(kube, (), open_client=httpx2.Client),
        service=Service(kube, None, None),
        clock=lambda: NOW,
        **options,
    )
    made = Page(server, console, site(console))
    made.refresh()
    return made


def needs(path: str, *permissions: str) -> Object:
    return {"path": path, "permissions": {"anyOf": list(permissions)}}
