"""`keyturn doctor` on what the chart installs: how it reaches the service, whom it takes for ours, and what it makes of refusals."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import httpx2
import pytest
import yaml

from keyturn_cli.commands import doctor
from tests.documents import PROJECT

from .cluster import NAMESPACE, FakeCluster
from .command import keyturn

Obj = dict[str, Any]
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
VERSION = "0.1.0"


@cache
def rendered(values: str = "defaults") -> list[Obj]:
    text = (PROJECT / f"tests/golden/charts/{values}.yaml").read_text("utf-8")
    return [one for one in yaml.safe_load_all(text) if one]


def deployments() -> list[Obj]:
    """As they are when all is well; the chart's own, so that its labels and settings are those that are looked for."""
    found = [copy.deepcopy(one) for one in rendered() if one["kind"] == "Deployment"]
    for one in found:
        one["status"] = {"readyReplicas": 2, "updatedReplicas": 2}
    return found


def set_up(made: list[Obj], name: str, value: str) -> None:
    for one in made:
        one["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": name, "value": value})


class Service:
    """The API behind the API server's proxy; what it was asked, by path."""

    def __init__(self, cluster: FakeCluster, port: str = "keyturn-api:http", prefix: str = "") -> None:
        self.asked: list[tuple[str, httpx2.Headers]] = []
        self.base = f"{SERVICES}/{port}/proxy{prefix}"
        self.bodies: dict[str, tuple[int, Obj]] = {
            "/readyz": (200, {"status": "ok"}),
            "/openapi.json": (200, {"info": {"version": VERSION}}),
            "/.well-known/jwks.json": (200, {"keys": []}),
            "/auth": (401, {"detail": "no token"}),
        }
        for path in self.bodies:
            cluster.answers["GET", self.base + path] = self.answer

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix(self.base)
        self.asked.append((path, request.headers))
        status, body = self.bodies[path]
        return httpx2.Response(status, json=body)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()

    def from_outside(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError(f"{request.url} was asked")

    monkeypatch.setattr(doctor, "open_kube", made.open)
    monkeypatch.setattr(doctor, "open_client", lambda: httpx2.Client(transport=httpx2.MockTransport(from_outside)))
    made.answers["GET", "/version"] = (200, {})
    made.answers["GET", DEPLOYMENTS] = (200, {"items": deployments()})
    return made


def install(cluster: FakeCluster, made: list[Obj]) -> None:
    cluster.answers["GET", DEPLOYMENTS] = (200, {"items": made})


def findings(*arguments: str) -> dict[str, Obj]:
    result = keyturn("doctor", *arguments, "-o", "json")
    assert result.exit_code in (0, 1), result.output
    return {one["check"]: one for one in json.loads(result.stdout)["findings"]}


def test_the_service_is_asked_behind_the_api_server_and_never_at_its_public_address(cluster: FakeCluster) -> None:
    service = Service(cluster)
    found = findings()
    assert found["service"]["outcome"] == "ok"
    assert "Service keyturn-api, through the API server" in found["service"]["message"]
    assert found["gateway headers"]["outcome"] == "ok"
    assert found["replicas"]["outcome"] == "ok"
    assert found["store"]["outcome"] == "ok"
    assert found["versions"]["message"].startswith(f"api {VERSION}, operator {VERSION}, ")
    assert [path for path, _ in service.asked] == [
        *("/readyz", "/openapi.json", "/.well-known/jwks.json"),
        *("/auth", "/auth"),
    ]


def test_only_who_somebody_is_is_made_up(cluster: FakeCluster) -> None:
    """A gateway may say what kind of client asks and that it is the back office; a public backoffice route is no fault."""
    service = Service(cluster)
    findings()
    plain, forged = (set(headers) for path, headers in service.asked if path == "/auth")
    assert {"mia-userid", "mia-groups", "mia-userproperties"} <= forged - plain
    assert not {"isbackoffice", "client-type"} & forged


@pytest.mark.parametrize(
    ("name", "value", "port", "prefix"),
    [
        pytest.param("KEYTURN_SERVICE_PREFIX", "/oauth2", "keyturn-api:http", "/oauth2", id="a prefix"),
        pytest.param("KEYTURN_TLS_CERT_FILE", "/tls.crt", "https:keyturn-api:http", "", id="TLS"),
    ],
)
def test_the_deployment_says_how_it_is_reached(
    cluster: FakeCluster, name: str, value: str, port: str, prefix: str
) -> None:
    made = deployments()
    set_up(made, name, value)
    install(cluster, made)
    Service(cluster, port, prefix)
    assert findings()["service"]["outcome"] == "ok"


def kubernetes_says(code: int, message: str) -> tuple[int, Obj]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def test_without_the_right_to_go_that_way_it_says_what_to_type(cluster: FakeCluster) -> None:
    service = Service(cluster)
    service.bodies["/readyz"] = kubernetes_says(403, 'services "keyturn-api:http" is forbidden')
    found = findings()
    assert found["service"]["outcome"] == "unknown"
    typed = "kubectl port-forward -n shop service/keyturn-api 8080:http"
    assert f"`{typed}`, and name it with --url http://127.0.0.1:8080" in found["service"]["todo"]
    assert typed in keyturn("doctor").stderr
    assert found["store"]["outcome"] == found["gateway headers"]["outcome"] == "unknown"


def test_a_service_without_pods_is_no_service(cluster: FakeCluster) -> None:
    service = Service(cluster)
    service.bodies["/readyz"] = kubernetes_says(503, 'no endpoints available for service "keyturn-api"')
    found = findings()
    assert (found["service"]["outcome"], found["store"]["outcome"]) == ("wrong", "unknown")
    assert "no endpoints available" in found["service"]["message"]


def test_what_the_service_itself_says_is_no_refusal_of_the_api_server(cluster: FakeCluster) -> None:
    service = Service(cluster)
    service.bodies["/readyz"] = (503, {"reasons": ["snapshot_stale"]})
    found = findings()
    assert (found["service"]["outcome"], found["store"]["outcome"]) == ("wrong", "wrong")
    assert "snapshot_stale" in found["store"]["message"]


@pytest.mark.parametrize("profile", ["traefik", "caddy"])
def test_a_gateway_that_asks_by_what_the_proxy_writes_is_not_tried_through_it(
    cluster: FakeCluster, profile: str
) -> None:
    service = Service(cluster)
    found = findings("--gateway-profile", profile)
    assert found["gateway headers"]["outcome"] == "unknown"
    assert "--url" in found["gateway headers"]["message"]
    assert "/auth" not in [path for path, _ in service.asked]


def test_others_in_the_namespace_are_not_taken_for_ours(cluster: FakeCluster) -> None:
    labels = {"app.kubernetes.io/component": "api", "helm.sh/chart": "keyturn-shop-1.0"}
    foreign = {"metadata": {"name": "a-shop", "labels": labels}, "spec": {"replicas": 1}, "status": {}}
    install(cluster, [foreign, *deployments()])
    Service(cluster)
    ours = {"name": "keyturn-api-1", "labels": {**labels, "helm.sh/chart": "keyturn-0.1.0"}}
    pods = [{"metadata": {"name": "a-shop-1", "labels": labels}}, {"metadata": ours}]
    cluster.answers["GET", PODS] = (200, {"items": pods})
    cluster.answers["GET", f"{PODS}/keyturn-api-1:9090/proxy/metrics"] = (200, "keyturn_api_applied_revision 7\n")
    found = findings()
    assert (found["service"]["outcome"], found["replicas"]["outcome"]) == ("ok", "ok")
    assert found["revisions"]["message"] == "1 replica(s) at revision 7."


def test_an_operator_that_is_gone_is_found(cluster: FakeCluster) -> None:
    made = deployments()
    for one in made:
        if one["metadata"]["name"] == "keyturn-operator":
            one["spec"]["replicas"], one["status"] = 0, {}
    install(cluster, made)
    Service(cluster)
    cluster.add("clientcredentials", "billing")
    found = findings()
    assert "keyturn-operator is scaled to 0" in found["replicas"]["message"].lower()
    assert {found[check]["outcome"] for check in ("replicas", "operator", "objects")} == {"wrong"}
    assert "ClientCredential billing" in found["objects"]["message"]


def test_an_installation_without_administration_lacks_no_right(cluster: FakeCluster) -> None:
    made = [copy.deepcopy(one) for one in rendered("least") if one["kind"] == "Deployment"]
    install(cluster, made)
    Service(cluster)
    asked: list[str] = []

    def review(request: httpx2.Request) -> httpx2.Response:
        spec = json.loads(request.content)["spec"]
        attributes = spec["resourceAttributes"]
        asked.append(f"{spec['user'].rpartition('-')[2]} {attributes['verb']} {attributes['resource']}")
        wanted = attributes["verb"] in ("create", "delete") or attributes["resource"] == "clientcredentials"
        allowed = spec["user"].endswith("-operator") or wanted
        return httpx2.Response(201, json={"status": {"allowed": allowed}})

    cluster.answers["POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"] = review
    assert findings()["RBAC"]["outcome"] == "ok"
    assert "api get secrets" in asked
    assert "api create tokenreviews" not in asked
