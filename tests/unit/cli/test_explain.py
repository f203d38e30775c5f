"""`keyturn explain` against a service and a cluster: what it asks whom, and what it tells a person."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import Result

from keyturn_cli.connection import Connection
from keyturn_cli.kube import Kube
from keyturn_cli.kubeconfig import Access

from .command import ISSUER, keyturn

URL = "https://shop.example/orders/7"
ADMIN = f"{ISSUER}/admin"
EXPLAINED = {
    "decision": {
        "outcome": "Forbidden",
        "reason": "MissingPermission",
        "rule": "shop/orders",
        "route": "/orders",
        "public": False,
        "description": "Missing, one of: orders:read",
    },
    "refused": None,
    "readings": [],
    "audits": [],
    "caller": {"kind": "client", "clientId": "shop.billing", "object": "shop/billing", "permissions": ["stock:read"]},
    "conflicts": [{"rule": "shop/orders", "others": ["shop/more"], "host": None, "path": "/orders", "method": "ALL"}],
    "grants": [{"permission": "orders:read", "clients": ["shop/web"], "count": 3}],
}
DENIED: dict[str, Any] = {
    "denials": [
        {
            "requestId": "r1",
            "at": "2026-11-25T10:00:00Z",
            "status": 403,
            "reason": "MissingPermission",
            "cause": "Missing, one of: orders:read",
            "rule": "shop/orders",
            "route": "/orders",
            "caller": "client",
            "clientId": "shop.billing",
            "method": "GET",
            "path": "/orders/7",
            "host": "shop.example",
        }
    ],
    "now": EXPLAINED,
}


def jwt_for(audience: str) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"aud": [audience]}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2ln"


def rule(name: str, spec: dict[str, Any], *, ready: bool = True) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"namespace": "shop", "name": name}, "spec": spec, "status": {"conditions": conditions}}


def client_object(name: str, **spec: Any) -> dict[str, Any]:
    status = {"clientId": spec.pop("id", f"shop.{name}")}
    return {"metadata": {"namespace": "shop", "name": name}, "spec": spec, "status": status}


ORDERS = {"routes": [{"path": "/orders", "permissions": {"anyOf": ["orders:read"]}}]}


@dataclass
class Outside:
    """A service and a cluster that answer as told and remember what they were asked."""

    answers: list[tuple[int, Any]] = field(default_factory=lambda: [(200, EXPLAINED)])
    deployments: list[dict[str, Any]] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=lambda: [rule("orders", ORDERS)])
    clients: list[dict[str, Any]] = field(
        default_factory=lambda: [
            client_object("billing", permissions=["stock:read"]),
            client_object("web", permissions=["orders:read"]),
        ]
    )
    token_status: int = 201
    access: Access = field(default_factory=lambda: Access("https://api.example", "shop"))
    service_fails: bool = False
    issuer: str = ISSUER
    asked: list[httpx2.Request] = field(default_factory=list)
    tokens: list[httpx2.Request] = field(default_factory=list)

    def open_client(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self.serve))

    def serve(self, request: httpx2.Request) -> httpx2.Response:
        if self.service_fails:
            raise httpx2.ConnectError("refused", request=request)
        if request.method == "GET":
            return httpx2.Response(200, json={"issuer": self.issuer})
        self.asked.append(request)
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return httpx2.Response(status, json=body)

    def open_kube(self, *, kubeconfig: str | None, context: str | None, namespace: str | None) -> Kube:
        client = httpx2.Client(transport=httpx2.MockTransport(self.cluster), base_url="https://api.example")
        connection = Connection(self.access, lambda: self.access, connect=lambda _: client)
        return Kube(connection, namespace=namespace or self.access.namespace)

    def cluster(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/token"):
            self.tokens.append(request)
            if self.token_status != 201:
                return httpx2.Response(self.token_status, json={"message": "no such account"})
            return httpx2.Response(201, json={"status": {"token": "minted"}})
        kind = request.url.path.rpartition("/")[2]
        items = {"deployments": self.deployments, "accessrules": self.rules, "clientcredentials": self.clients}[kind]
        return httpx2.Response(200, json={"items": items, "metadata": {}})

    @property
    def question(self) -> dict[str, Any]:
        body = json.loads(self.asked[-1].content)
        assert isinstance(body, dict)
        return body


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    made = Outside()
    monkeypatch.setattr("keyturn_cli.commands.explain.open_client", made.open_client)
    monkeypatch.setattr("keyturn_cli.commands.explain.open_kube", made.open_kube)
    monkeypatch.setattr("keyturn_cli.admin_api._PAUSE", 0.0)
    return made


def explain(*arguments: str, **more: Any) -> Result:
    return keyturn("explain", *arguments, **more)


def test_the_service_is_asked_with_a_token_for_administration_that_the_cluster_mints(outside: Outside) -> None:
    result = explain("GET", URL, "--client", "billing", "--url", ISSUER)
    assert result.exit_code == 0, result.stderr
    (minted,) = outside.tokens
    assert minted.url.path == "/api/v1/namespaces/shop/serviceaccounts/keyturn-explain/token"
    assert json.loads(minted.content)["spec"]["audiences"] == [ADMIN]
    assert outside.asked[0].headers["Authorization"] == "Bearer minted"
    assert outside.question == {
        "method": "GET",
        "url": URL,
        "client": "billing",
        "namespace": "shop",
        "backoffice": False,
        "clientType": "",
    }
    assert result.stdout.splitlines() == [
        "deny (MissingPermission)",
        "  decided by AccessRule shop/orders, route /orders",
        "  Missing, one of: orders:read",
        "caller: client shop.billing, ClientCredential shop/billing",
        "  its permissions: stock:read",
        "AccessRule shop/orders contradicts shop/more at ALL /orders: both must be satisfied",
        "orders:read is granted by shop/web and 2 more",
    ]


def deployment(*env: tuple[str, str]) -> dict[str, Any]:
    variables = [{"name": name, "value": value} for name, value in (("KEYTURN_ISSUER", ISSUER), *env)]
    labels = {"app.kubernetes.io/component": "api"}
    return {
        "metadata": {"name": "blue-keyturn-api", "labels": labels},
        "spec": {"template": {"spec": {"containers": [{"env": variables}]}}},
    }


@pytest.mark.parametrize(
    ("env", "url"),
    [
        pytest.param((), "http://127.0.0.1:8080", id="as delivered"),
        pytest.param(
            (("KEYTURN_SERVICE_PREFIX", "/oauth2"), ("KEYTURN_TLS_CERT_FILE", "/tls.crt")),
            "https://127.0.0.1:8080/oauth2",
            id="with a prefix and TLS",
        ),
    ],
)
@pytest.mark.parametrize(
    "arguments", [("--request-id", "r1"), ("GET", URL, "--token", "-")], ids=["a denial", "an access token"]
)
def test_no_token_goes_to_the_public_address_and_it_says_what_to_type(
    outside: Outside, arguments: tuple[str, ...], env: tuple[tuple[str, str], ...], url: str
) -> None:
    """The public address does not publish /explain; whatever answers there instead must not get the token."""
    outside.deployments = [deployment(*env)]
    result = explain(*arguments, stdin=b"eyJ.secret.x")
    assert result.exit_code == 2
    typed = "kubectl port-forward -n shop service/blue-keyturn-api 8080:http"
    assert f"Type `{typed}`, and name it with --url {url}." in result.stderr
    assert outside.asked == outside.tokens == []


@pytest.mark.parametrize("body", [{"detail": "Not Found"}, {}, []], ids=["a framework's", "none", "no object"])
def test_where_explain_is_not_published_no_name_or_id_is_blamed(outside: Outside, body: Any) -> None:
    outside.answers = [(404, body)]
    result = explain("--request-id", "r1", "--url", ISSUER)
    assert result.exit_code == 1
    assert "does not publish it" in result.stderr
    assert "kubectl port-forward" in result.stderr
    assert "hour" not in result.stderr
    assert len(outside.asked) == 1


def test_by_a_name_inside_the_cluster_it_is_asked_if_the_deployment_vouches_for_its_issuer(outside: Outside) -> None:
    outside.deployments = [deployment()]
    arguments = ("GET", URL, "--anonymous", "--url", "http://keyturn-api.shop.svc")
    assert explain(*arguments).exit_code == 0
    assert json.loads(outside.tokens[0].content)["spec"]["audiences"] == [ADMIN]
    outside.issuer = "https://another.example"
    result = explain(*arguments)
    assert (result.exit_code, "calls itself https://another.example" in result.stderr) == (1, True)
    assert len(outside.asked) == 1


def test_a_token_of_the_environment_or_of_the_kubeconfig_needs_no_other(outside: Outside) -> None:
    arguments = ("GET", URL, "--anonymous", "--url", ISSUER)
    assert explain(*arguments, env={"KEYTURN_ADMIN_TOKEN": "given"}).exit_code == 0
    assert outside.asked[-1].headers["Authorization"] == "Bearer given"
    outside.access = Access("https://api.example", "shop", token=jwt_for(ADMIN))
    assert explain(*arguments).exit_code == 0
    assert outside.asked[-1].headers["Authorization"] == f"Bearer {jwt_for(ADMIN)}"
    assert outside.tokens == []
    outside.access = Access("https://api.example", "shop", token=jwt_for("https://kubernetes.default.svc"))
    assert explain(*arguments, "--service-account", "oncall").exit_code == 0
    assert outside.tokens[0].url.path.endswith("/serviceaccounts/oncall/token")


def test_an_access_token_comes_from_stdin_and_shows_nowhere(outside: Outside) -> None:
    outside.answers = [(400, {"detail": "what about eyJ.secret.x"})]
    result = explain("GET", URL, "--token", "-", "--url", ISSUER, stdin=b"Bearer eyJ.secret.x\n")
    assert (result.exit_code, outside.question["token"]) == (1, "eyJ.secret.x")
    assert "secret" not in result.stdout + result.stderr


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff", b"x" * 20_000], ids=["none", "two", "bytes", "long"])
def test_what_is_no_access_token_is_a_usage_error(outside: Outside, content: bytes) -> None:
    assert explain("GET", URL, "--token", "-", "--url", ISSUER, stdin=content).exit_code == 2
    assert outside.asked == []


def test_a_denial_is_found_by_its_id_also_a_moment_after_it_happened(outside: Outside) -> None:
    not_yet = (404, {"status": 404, "detail": "not yet"})
    outside.answers = [not_yet, not_yet, (200, DENIED)]
    result = explain("--request-id", "r1", "--url", ISSUER)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[:6] == [
        "2026-11-25T10:00:00Z: GET /orders/7 on shop.example was answered 403 (MissingPermission)",
        "  decided by AccessRule shop/orders, route /orders",
        "  Missing, one of: orders:read",
        "  caller: client shop.billing",
        "Now the same request with a fresh token for the same permissions would come to:",
        "deny (MissingPermission)",
    ]
    assert outside.question == {"requestId": "r1"}


@pytest.mark.parametrize(
    ("denial", "now", "said"),
    [
        pytest.param(
            {"caller": "user", "clientId": None},
            None,
            ["  caller: a user of another issuer", "a user's groups and permissions are not kept."],
            id="a user",
        ),
        pytest.param(
            {"caller": "anonymous", "clientId": None},
            {**EXPLAINED, "caller": {"kind": "anonymous"}},
            ["  caller: nobody: the request had no credentials", "Now the same request would come to:"],
            id="nobody",
        ),
        pytest.param(
            {"caller": "unknown", "clientId": None},
            {**EXPLAINED, "caller": {"kind": "unknown"}},
            ["  caller: not known", "Now the same request without a token would come to:"],
            id="somebody of whom nothing is known",
        ),
        pytest.param(
            {"caller": "client"}, None, ["  caller: client shop.billing", "the client is gone."], id="one gone"
        ),
    ],
)
def test_who_was_denied_is_told_as_far_as_it_is_known(
    outside: Outside, denial: dict[str, Any], now: Any, said: list[str]
) -> None:
    known: dict[str, Any] = DENIED["denials"][0]
    outside.answers = [(200, {"denials": [{**known, **denial}], "now": now})]
    lines = explain("--request-id", "r1", "--url", ISSUER).stdout.splitlines()
    assert lines[3] == said[0]
    assert lines[4].endswith(said[1])


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        pytest.param(401, 1, "its audience is the issuer with /admin", id="a token that does not count"),
        pytest.param(403, 1, "verb `explain`", id="no right to explain"),
        pytest.param(404, 1, "kept for an hour", id="nothing with this id"),
        pytest.param(503, 3, "can't serve now", id="no service"),
    ],
)
def test_a_refusal_is_told_with_what_to_do(outside: Outside, status: int, code: int, said: str) -> None:
    outside.answers = [(status, {"status": status, "detail": "the reason\u001b[31m"})]
    result = explain("--request-id", "r1", "--url", ISSUER)
    assert result.exit_code == code
    assert said in result.stderr
    assert "\x1b" not in result.stderr


def test_without_a_service_the_objects_in_the_cluster_decide_and_it_says_so(outside: Outside) -> None:
    result = explain("GET", URL, "--client", "billing")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("deny (MissingPermission)\n  decided by AccessRule shop/orders, route /orders")
    assert "orders:read is granted by shop/web" in result.stdout
    assert "Decided by the objects in the cluster" in result.stderr
    assert explain("GET", URL, "--client", "shop.web").stdout.startswith("allow")


def test_a_service_that_was_named_is_asked_or_the_reason_is_told(outside: Outside) -> None:
    outside.token_status = 404
    result = explain("GET", URL, "--client", "web", "--url", ISSUER)
    assert result.exit_code == 1
    assert "No token could be had for the ServiceAccount shop/keyturn-explain" in result.stderr
    outside.token_status, outside.service_fails = 201, True
    assert explain("GET", URL, "--client", "web", "--url", ISSUER).exit_code == 3
    assert explain("--request-id", "r1", "--url", ISSUER).exit_code == 3


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"suspended": True}, "the client is suspended", id="suspended"),
        pytest.param({"expiresAt": "2020-01-01T00:00:00Z"}, "the client has expired", id="expired"),
        pytest.param({"expiresAt": "soon"}, "can't be read", id="an end that cannot be read"),
    ],
)
def test_from_the_objects_a_client_that_gets_no_token_is_told(outside: Outside, spec: Any, reason: str) -> None:
    outside.clients = [client_object("billing", permissions=["orders:read"], **spec)]
    result = explain("GET", URL, "--client", "billing")
    assert result.stdout.startswith("unauthenticated")
    assert reason in result.stdout


def test_a_rule_that_is_not_ready_and_a_client_that_is_not_there_are_told(outside: Outside) -> None:
    outside.rules = [rule("orders", {"routes": [{"path": "/orders", "expression": "("}]}, ready=False)]
    assert "AccessRule shop/orders is not Ready" in explain("GET", URL, "--anonymous").stderr
    result = explain("GET", URL, "--client", "nobody")
    assert (result.exit_code, "No ClientCredential" in result.stderr) == (1, True)


def test_from_the_objects_a_client_whose_id_is_anothers_is_no_caller_and_holds_nothing(outside: Outside) -> None:
    refused = [{"type": "Ready", "status": "False", "reason": "ClientIdTaken"}]
    taken = client_object("late", permissions=["orders:read"], clientId="billing")
    taken["status"] = {"conditions": refused}
    outside.clients = [taken, client_object("first", id="billing", permissions=["stock:read"])]
    denied = explain("GET", URL, "--client", "late")
    assert denied.stdout.startswith("unauthenticated")
    assert "nothing of the client is in force: ClientIdTaken" in denied.stdout
    # The id is the other's.
    by_id = explain("GET", URL, "--client", "billing")
    assert by_id.stdout.startswith("deny (MissingPermission)")
    assert "shop/late" not in by_id.stdout


def test_from_the_objects_a_client_that_is_not_ready_is_named(outside: Outside) -> None:
    outside.clients = [client_object("web", permissions=["orders:read"])]
    outside.clients[0]["status"] |= {"conditions": [{"type": "Ready", "status": "False", "reason": "InvalidKey"}]}
    told = explain("GET", URL, "--client", "web").stderr
    assert "ClientCredential shop/web is not Ready (InvalidKey)" in told


def test_namespaces_that_were_not_looked_at_are_named(outside: Outside) -> None:
    assert "If the installation watches others" in explain("GET", URL, "--anonymous").stderr
    variables = [{"name": "KEYTURN_NAMESPACES", "value": "shop, team-b"}]
    outside.deployments = [{"spec": {"template": {"spec": {"containers": [{}, {"env": variables}]}}}}]
    assert "also watches team-b" in explain("GET", URL, "--anonymous").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nothing"),
        pytest.param(("GET",), id="no URL"),
        pytest.param(("GET", URL, "--client", "a", "--anonymous"), id="two callers"),
        pytest.param(("GET", URL, "--client", "a", "--permission", "b"), id="a client with permissions"),
        pytest.param(("GET", URL, "--request-id", "a"), id="an id and a request"),
        pytest.param(("GET", "ftp://x", "--anonymous"), id="no URL of a request"),
        pytest.param(("GET", URL, "--url", "ftp://x", "--anonymous"), id="no URL of a service"),
        pytest.param(("GET", URL, "--rules", "x", "--client", "a"), id="a client without a cluster"),
        pytest.param(("GET", URL, "--user-property", "plan"), id="a property without a value"),
        pytest.param(("GET", URL, "--user-property", "=gold"), id="a value without a property"),
        pytest.param(("GET", URL, "--client", "a", "--user-property", "plan=gold"), id="a client with properties"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_a_usage_error(outside: Outside, arguments: tuple[str, ...]) -> None:
    assert explain(*arguments).exit_code == 2
    assert outside.asked == []


PROPERTIES = ("--user-property", "plan=gold", "--user-property", "staff=true", "--user-property", 'odd=1,"x":2')


def test_a_described_caller_has_properties_too(outside: Outside, tmp_path: Path) -> None:
    expression = 'userProperties.plan == "gold" && userProperties.staff'
    spec = {"routes": [{"path": "/orders", "expression": expression}]}
    manifest = {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "AccessRule",
        "metadata": {"name": "orders"},
        "spec": spec,
    }
    (tmp_path / "rule.json").write_text(json.dumps(manifest))
    assert explain("GET", URL, "--rules", str(tmp_path), *PROPERTIES).stdout.startswith("allow")
    assert explain("GET", URL, "--rules", str(tmp_path), *PROPERTIES[:2]).stdout.startswith("deny")
    outside.rules = [rule("orders", spec)]
    assert explain("GET", URL, *PROPERTIES).stdout.startswith("allow")
    assert explain("GET", URL, *PROPERTIES, "--url", ISSUER).exit_code == 0
    assert outside.question["userProperties"] == {"plan": "gold", "staff": True, "odd": '1,"x":2'}


def test_a_client_without_audiences_has_the_issuers(outside: Outside) -> None:
    outside.rules = [rule("orders", {**ORDERS, "audiences": [ISSUER]})]
    outside.clients = [client_object("web", permissions=["orders:read"])]
    # Where nothing says who that is, no audience is made up.
    assert explain("GET", URL, "--client", "web").stdout.startswith("deny")
    outside.deployments = [deployment()]
    assert explain("GET", URL, "--client", "web").stdout.startswith("allow")


def test_json_is_the_services_own(outside: Outside) -> None:
    assert json.loads(explain("GET", URL, "--client", "a", "--url", ISSUER, "-o", "json").stdout) == EXPLAINED
    outside.answers = [(200, DENIED)]
    assert json.loads(explain("--request-id", "r1", "--url", ISSUER, "-o", "json").stdout) == DENIED


@pytest.mark.parametrize(
    ("url", "warned"),
    [("http://tokens.internal", True), ("http://127.0.0.1:8080", False)],
    ids=["a network", "loopback"],
)
def test_a_kubernetes_token_over_plain_http_is_warned_of(outside: Outside, url: str, warned: bool) -> None:
    outside.issuer = url
    result = explain("GET", URL, "--anonymous", "--url", url)
    assert (result.exit_code, "plain HTTP" in result.stderr) == (0, warned)
