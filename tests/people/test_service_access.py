"""The way to the service through a real API server: its proxy, who may use it, and what it does to headers."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.clients import World, needs, route
from tests.documents import PROJECT
from tests.people.command_line import keyturn, kubeconfig, metrics

READER = "doctor-reader"
IDLE = {"name": "idle", "image": "registry.invalid/idle"}


def address() -> str:
    """This machine's own, which an API server passes requests on to; never a loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        # No packet is sent: it only tells which address would.
        one.connect(("192.0.2.1", 9))
        return str(one.getsockname()[0])


class Relay(socketserver.ThreadingTCPServer):
    """Passes connections on to a port on loopback, as a pod's address would."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, to: int) -> None:
        self.to = to
        super().__init__((host, 0), Passing)


class Passing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Relay)
        with socket.create_connection(("127.0.0.1", self.server.to)) as there:
            back = threading.Thread(target=pass_on, args=(there, self.request), daemon=True)
            back.start()
            pass_on(self.request, there)
            back.join(30)


def pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def released(world: World) -> Iterator[World]:
    """The installation with the chart's own Deployments and Service beside it, and a replica behind the Service."""
    text = (PROJECT / "tests/golden/charts/defaults.yaml").read_text("utf-8")
    made = [one for one in yaml.safe_load_all(text) if one and named(one)]
    for one in made:
        one["metadata"].pop("namespace", None)
    with Relay(address(), world.installation.apis[0].http) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        host, port = relay.server_address[:2]
        labels = {"kubernetes.io/service-name": "keyturn-api"}
        ports = [{"name": "http", "port": port}]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "keyturn-api-here"},
            "spec": {"containers": [IDLE]},
        }
        target = {"kind": "Pod", "name": "keyturn-api-here", "namespace": world.namespace}
        addresses = [{"ip": host, "targetRef": target}]
        behind: list[dict[str, Any]] = [
            pod,
            {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": "keyturn-api"},
                "subsets": [{"addresses": addresses, "ports": ports}],
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "keyturn-api-here", "labels": labels},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [host], "conditions": {"ready": True}, "targetRef": target}],
                "ports": ports,
            },
        ]
        world.apply(*made, *behind)
        # The API server passes nothing on to an address that is no pod's.
        patch_status(world, "pod/keyturn-api-here", {"phase": "Running", "podIP": host, "podIPs": [{"ip": host}]})
        for part in ("api", "operator"):
            ready = {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}
            patch_status(world, f"deployment/keyturn-{part}", ready)
        world.rule("doctor-access", route("/doctor-access", **needs("doctor:read")))
        yield world
        for one in (*behind, *made):
            world.kubectl("delete", one["kind"], one["metadata"]["name"], "--ignore-not-found")
        relay.shutdown()


def patch_status(world: World, what: str, status: dict[str, Any]) -> None:
    world.kubectl("patch", what, "--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))


def named(obj: dict[str, Any]) -> bool:
    return obj["kind"] == "Deployment" or (obj["kind"], obj["metadata"]["name"]) == ("Service", "keyturn-api")


def findings(world: World, *arguments: str) -> dict[str, dict[str, str]]:
    done = keyturn(world, "doctor", *metrics(world), *arguments, "-o", "json", url=False)
    assert done.returncode in (0, 1), done.stderr
    return {one["check"]: one for one in json.loads(done.stdout)["findings"]}


def test_doctor_needs_no_url_where_the_chart_installed(released: World) -> None:
    """Its issuer's address, which nothing but public paths would be at, is not asked for the private ones."""
    found = findings(released)
    assert "through the API server" in found["service"]["message"]
    for check in ("service", "store", "replicas", "operator", "keys mounted", "gateway headers", "clocks", "RBAC"):
        assert found[check]["outcome"] == "ok", found[check]
    # That of a path which needs a permission, so that the question came through whole.
    assert "401" in found["gateway headers"]["message"]


@pytest.mark.parametrize("profile", ["traefik", "caddy"])
def test_a_gateway_that_asks_by_what_the_proxy_writes_is_not_tried_through_it(released: World, profile: str) -> None:
    found = findings(released, "--gateway-profile", profile)
    assert found["service"]["outcome"] == "ok", found["service"]
    assert found["gateway headers"]["outcome"] == "unknown"


def reader_of(world: World, folder: Path) -> Path:
    """The kubeconfig of somebody who may look at everything but use no proxy."""
    metadata = {"name": READER}
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    # `*` would hold the proxies, too.
    everything[0]["resources"] = ["deployments", "pods", "clientcredentials", "signingkeys", "accessrules", "leases"]
    rbac = "rbac.authorization.k8s.io"
    world.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": everything},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": READER},
            "subjects": [{"kind": "ServiceAccount", "name": READER, "namespace": world.namespace}],
        },
    )
    document = yaml.safe_load(kubeconfig(world).read_text("utf-8"))
    document["users"] = [
        {"name": one["name"], "user": {"token": world.kubectl("create", "token", READER).strip()}}
        for one in document["users"]
    ]
    path = folder / "reader.kubeconfig"
    path.write_text(yaml.safe_dump(document), "utf-8")
    path.chmod(0o600)
    return path


def test_whoever_may_use_no_proxy_is_told_what_to_type(released: World, tmp_path: Path) -> None:
    found = findings(released, "--kubeconfig", str(reader_of(released, tmp_path)))
    assert found["service"]["outcome"] == "unknown", found["service"]
    assert f"kubectl port-forward -n {released.namespace} service/keyturn-api 8080:http" in found["service"]["todo"]
    assert "services/proxy" in found["service"]["todo"]
    assert found["replicas"]["outcome"] == "ok"


def test_a_service_without_a_pod_is_wrong(released: World) -> None:
    released.kubectl("delete", "endpoints/keyturn-api", "endpointslice/keyturn-api-here")
    found = findings(released)
    assert found["service"]["outcome"] == "wrong", found["service"]
    assert "keyturn-api" in found["service"]["message"]


def test_explain_shows_its_token_to_no_address_that_was_not_named(released: World) -> None:
    done = keyturn(released, "explain", "--request-id", "4f1c2a9be03d77aa", url=False)
    assert done.returncode == 2
    typed = f"kubectl port-forward -n {released.namespace} service/keyturn-api 8080:http"
    assert f"`{typed}`, and name it with --url http://127.0.0.1:8080" in done.stderr
