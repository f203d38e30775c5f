"""From nothing to a token and through a gateway, by the commands of docs/install.md."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from keyturn_dev.node_images import NGINX_IMAGE
from keyturn_dev.waiting import wait_until
from tests.documents import PROJECT, blocks
from tests.node.helm import Helm
from tests.node.kubectl import Kubectl
from tests.node.page import Shell, commands, shown, shown_object

ISSUER = "https://tokens.shop.example"
API_IMAGE = "localhost/keyturn-api:node"
ENDPOINT = "http://keyturn-api.shop.svc/oauth/token"
RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
# What a program does with a token at the gateway; prints the status and what the API behind it was told.
CALL = """
import sys, urllib.error, urllib.request
method, path, token = sys.argv[1:4]
request = urllib.request.Request("http://gateway.shop.svc:8000" + path, method=method)
if token:
    request.add_header("Authorization", "Bearer " + token)
try:
    answer = urllib.request.urlopen(request, timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status)
print(answer.read().decode(errors="replace"))
"""
# The API behind the gateway: it says what it was told of its caller.
ORDERS = """
import http.server, json
class Orders(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Orders).serve_forever()
"""
# The form of docs/keys.md, with the file that the kubelet keeps.
WORKLOAD = """
import json, pathlib, sys, urllib.parse, urllib.request
form = {
    "grant_type": "client_credentials",
    "client_id": "shop.invoices",
    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "client_assertion": pathlib.Path("/var/run/keyturn/token").read_text(),
}
answer = urllib.request.urlopen(sys.argv[1], urllib.parse.urlencode(form).encode(), timeout=10)
print(json.load(answer)["access_token"])
"""


def runnable(pod: dict[str, Any], namespace: str) -> dict[str, Any]:
    """A pod of a page, with an image that is here, waiting to be told what to run."""
    (container,) = pod["spec"]["containers"]
    container |= {
        "image": API_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", "import signal; signal.signal(15, lambda *_: exit()); signal.pause()"],
        "securityContext": RESTRICTED,
        "env": [{"name": "TOKEN_ENDPOINT", "value": ENDPOINT}],
    }
    pod["metadata"]["namespace"] = namespace
    return pod


def test_helm_test_gets_a_real_token(shop: Kubectl, helm: Helm) -> None:
    assert re.search(r"TEST SUITE: +keyturn-test\n(?:.*\n)*?Phase: +Succeeded", helm.test("keyturn", shop.namespace))
    shop.wait_gone("clientcredential/keyturn-test")
    shop.wait_gone("secret/keyturn-test")


def test_every_pod_runs_under_restricted_pod_security_and_stays(shop: Kubectl) -> None:
    pods = shop.get("pods")["items"]
    parts = [pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods]
    assert sorted(parts) == ["api", "api", "operator", "operator", "postgresql"]
    for pod in pods:
        for status in pod["status"].get("containerStatuses", []):
            assert status["restartCount"] == 0, shop("describe", "pod", pod["metadata"]["name"])[-3000:]


def test_the_examples_are_in_force(shop: Kubectl) -> None:
    shown_now = shop("get", "keyturn")
    assert "shop.reporting" in shown_now
    for resource in ("clientcredential/reporting", "accessrule/orders", "signingkey/keyturn"):
        shop.wait_ready(resource, 10)


@pytest.fixture(scope="module")
def tokens(shop: Kubectl, shop_shell: Shell) -> dict[str, str]:
    """The tokens of two pods: one that mounts its key, and one that has none."""
    for script in commands("A pod gets a token"):
        shop_shell(script)
    shop.apply(runnable(shown_object("A pod gets a token"), shop.namespace))
    invoices = [
        shown
        for block in blocks(PROJECT / "docs" / "keys.md")
        if block.language == "yaml"
        for shown in yaml.safe_load_all(block.text.replace("https://issuer.example", ISSUER))
        if shown["metadata"]["name"] == "invoices"
    ]
    assert [one["kind"] for one in invoices] == ["ServiceAccount", "ClientCredential", "Pod"]
    shop.apply(*(runnable(one, shop.namespace) if one["kind"] == "Pod" else one for one in invoices))
    for resource in ("pod/report", "pod/invoices", "clientcredential/invoices"):
        shop.wait_ready(resource)
    return {
        "a mounted key": shop.python("report", shown("A pod gets a token", "python")).strip(),
        "workload identity": shop.python("invoices", WORKLOAD, ENDPOINT).strip(),
    }


@pytest.fixture(scope="module")
def gateway(shop: Kubectl, shop_shell: Shell) -> Iterator[None]:
    """nginx by the shipped configuration, in front of an API in the same pod."""
    shop_shell.section("The gateway")
    certificate = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=gateway -keyout tls.key -out tls.crt"
    shop_shell(f"{certificate} 2>openssl.log\nkubectl -n shop create secret tls gateway --cert=tls.crt --key=tls.key")
    empty = {"cache": "/var/lib/nginx", "logs": "/var/log/nginx", "tmp": "/tmp"}
    mounts = [{"name": name, "mountPath": path} for name, path in empty.items()]
    mounts += [
        {"name": "configuration", "mountPath": "/etc/nginx-keyturn"},
        {"name": "certificate", "mountPath": "/etc/gateway"},
    ]
    volumes: list[dict[str, Any]] = [{"name": name, "emptyDir": {}} for name in empty]
    volumes += [
        {"name": "configuration", "configMap": {"name": "gateway"}},
        {"name": "certificate", "secret": {"secretName": "gateway"}},
    ]
    nginx = {
        "name": "nginx",
        "image": NGINX_IMAGE,
        "imagePullPolicy": "Never",
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
    }
    orders = {
        "name": "orders",
        "image": API_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", ORDERS],
        "securityContext": RESTRICTED,
    }
    metadata = {"name": "gateway", "labels": {"app": "gateway"}}
    pod_spec = {"automountServiceAccountToken": False, "containers": [nginx, orders], "volumes": volumes}
    ports = [{"name": "http", "port": 8000}]
    shop.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": "gateway"}, "ports": ports},
        },
    )
    shop.wait_ready("pod/gateway")
    yield
    shop("delete", "pod/gateway", "pod/report", "pod/invoices", "--grace-period=1")


@pytest.mark.parametrize("way", ["a mounted key", "workload identity"])
@pytest.mark.usefixtures("gateway")
def test_a_pod_passes_the_gateway_where_its_permissions_allow(shop: Kubectl, tokens: dict[str, str], way: str) -> None:
    token = tokens[way]
    status, _, told = shop.python("report", CALL, "GET", "/orders", token).partition("\n")
    assert status == "200", told
    caller = json.loads(told)
    assert caller["mia-clientid"] == {"a mounted key": "shop.report", "workload identity": "shop.invoices"}[way]
    refused = {
        ("POST", "/orders", token): "403",
        ("GET", "/elsewhere", token): "403",
        ("GET", "/orders", ""): "401",
        ("GET", "/orders", token[:-4] + "AAAA"): "401",
    }
    for question, expected in refused.items():
        assert shop.python("report", CALL, *question).partition("\n")[0] == expected, question[:2]
    assert shop.python("report", CALL, "GET", "/health", "").startswith("200\n")


@pytest.mark.usefixtures("gateway")
def test_a_suspended_client_fails_at_the_gateway_and_passes_again(shop: Kubectl, tokens: dict[str, str]) -> None:
    def status() -> str:
        return shop.python("report", CALL, "GET", "/orders", tokens["a mounted key"]).partition("\n")[0]

    for suspended, expected in (("true", "401"), ("false", "200")):
        shop("patch", "cc", "report", "--type=merge", "-p", f'{{"spec":{{"suspended":{suspended}}}}}')
        wait_until(lambda expected=expected: status() == expected, f"the gateway to answer {expected}", seconds=10)  # type: ignore[misc]


def test_a_portal_registers_a_client_with_the_page_s_initial_access_token(shop: Kubectl, shop_shell: Shell) -> None:
    token = (shop_shell.folder / "portal-token").read_text()
    service = shop.get("service/keyturn-api")["spec"]["clusterIP"]
    register = f"""
import json, sys, urllib.request
request = urllib.request.Request("http://{service}/register", json.dumps({{"client_name": "portal's"}}).encode(),
    {{"Authorization": "Bearer " + sys.argv[1], "Content-Type": "application/json"}})
print(json.load(urllib.request.urlopen(request, timeout=20))["client_id"])
"""
    pod = shop.get("pods", "--selector=app.kubernetes.io/component=api")["items"][0]["metadata"]["name"]
    client_id = shop.python(pod, register, token).strip()
    assert re.fullmatch(r"shop\.r-[0-9a-f]{32}", client_id)
    assert client_id.removeprefix("shop.") in shop("get", "cc", "--selector=keyturn.dev/approval=pending")


def test_an_object_is_paused_and_resumed_by_the_page_s_commands(shop: Kubectl, shop_shell: Shell) -> None:
    begin, end = commands("Pause one object")[0].splitlines()
    shop_shell(begin)
    before = shop.get("accessrule/orders")["spec"]["routes"]
    added = [*before, {"path": "/added", "methods": ["GET"], "public": True}]
    shop("patch", "accessrule", "orders", "--type=merge", "-p", json.dumps({"spec": {"routes": added}}))
    shop(
        "wait",
        "--for=jsonpath={.status.conditions[?(@.type=='Ready')].reason}=Paused",
        "accessrule/orders",
        "--timeout=30s",
    )
    shop_shell(end)
    shop.wait_ready("accessrule/orders")
    shop("patch", "accessrule", "orders", "--type=merge", "-p", json.dumps({"spec": {"routes": before}}))
    shop.wait_ready("accessrule/orders")
