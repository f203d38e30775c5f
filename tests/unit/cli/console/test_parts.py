"""What the pages are made of: counts from metrics, rights, the time line, who may call, and the command that starts it all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from keyturn.rules.account import Asked
from keyturn_cli.console import counts as counting
from keyturn_cli.console.clients import holders_of, row_of
from keyturn_cli.console.counts import AuditCounts, count_denials
from keyturn_cli.console.rights import KEPT_SECONDS, Rights
from keyturn_cli.console.rule_index import MAX_KINDS, RuleIndex, rule_of
from keyturn_cli.console.timeline import WIDTH, timeline_of
from keyturn_cli.kube import Kube
from tests.unit.cli.command import keyturn

from .api_server import NOW, ApiServer, client, needs, ready, rule, thing

METRICS = """# TYPE keyturn_api_audit_denials_total counter
keyturn_api_audit_denials_total{outcome="Forbidden",rule="shop/tried"} 3.0
keyturn_api_audit_denials_total{outcome="Unauthenticated",rule="shop/tried"} 2.0
keyturn_api_audit_denials_total{outcome="Forbidden",rule="shop/other"} 1.0
keyturn_api_requests_total{rule="shop/tried"} 99.0
"""
Answer = Callable[[httpx2.Request], httpx2.Response]


def kube(answer: Answer) -> Kube:
    return Kube(httpx2.Client(transport=httpx2.MockTransport(answer), base_url="https://api.example"), namespace="shop")


def pods(request: httpx2.Request) -> httpx2.Response:
    if request.url.path.endswith("/proxy/metrics"):
        return httpx2.Response(200, text=METRICS)
    labels = {"app.kubernetes.io/component": "api", "helm.sh/chart": "keyturn-1.0.0"}
    foreign = {"app.kubernetes.io/component": "api"}
    items = [
        {"metadata": {"name": "a-shop-0", "labels": foreign}, "status": {"phase": "Running"}},
        {"metadata": {"name": "api-0", "labels": labels}, "status": {"phase": "Running"}},
        {"metadata": {"name": "api-1", "labels": labels}, "status": {"phase": "Running"}},
        {"metadata": {"name": "api-2", "labels": labels}, "status": {"phase": "Pending"}},
        {"metadata": {"name": "operator-0", "labels": {}}, "status": {"phase": "Running"}},
    ]
    return httpx2.Response(200, json={"items": items})


def test_denials_are_counted_by_rule_over_all_replicas() -> None:
    assert count_denials([METRICS, METRICS]) == {"shop/tried": 10, "shop/other": 2}


def test_the_metrics_of_running_api_pods_are_read_through_the_api_server() -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return pods(request)

    reader = AuditCounts(kube(answer), (), open_client=httpx2.Client)
    read = reader.read()
    assert (read.by_rule["shop/tried"], read.replicas, read.problem) == (10, 2, "")
    assert asked[1:] == [f"/api/v1/namespaces/shop/pods/api-{number}:9090/proxy/metrics" for number in (0, 1)]
    # A page that is loaded again soon asks nobody.
    reader.read()
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "text", "problem"),
    [
        pytest.param(200, METRICS, "", id="metrics"),
        pytest.param(200, "{nonsense", "are no metrics", id="no metrics"),
        pytest.param(404, "", "are no metrics", id="another address"),
        pytest.param(200, "x" * 100, "are no metrics", id="too long"),
    ],
)
def test_metrics_that_were_named_are_read(
    monkeypatch: pytest.MonkeyPatch, status: int, text: str, problem: str
) -> None:
    monkeypatch.setattr(counting, "MAX_BYTES", max(len(METRICS), 90) if text == METRICS else 90)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, text=text))
    reader = AuditCounts(
        kube(pods), ["http://127.0.0.1:9090/metrics"], open_client=lambda: httpx2.Client(transport=transport)
    )
    read = reader.read()
    assert problem in read.problem
    assert bool(read.by_rule) is (problem == "")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(lambda _: httpx2.Response(403, json={"message": "no pods"}), "no pods", id="no right"),
        pytest.param(lambda _: httpx2.Response(200, json={"items": []}), "no metrics", id="no pods"),
    ],
)
def test_counts_that_can_not_be_read_say_why(answer: Answer, problem: str) -> None:
    assert problem in AuditCounts(kube(answer), (), open_client=httpx2.Client).read().problem


def test_a_right_is_asked_for_by_name_and_kept_for_a_while() -> None:
    server, now = ApiServer(), [0.0]
    rights = Rights(server.kube(), clock=lambda: now[0])
    assert rights.may("patch", "clientcredentials", "billing")
    assert rights.may("patch", "clientcredentials", "billing")
    assert len(server.requests) == 1
    server.refused = {("patch", "clientcredentials")}
    now[0] = KEPT_SECONDS
    assert not rights.may("patch", "clientcredentials", "billing")


def test_no_answer_about_a_right_is_no_right() -> None:
    assert not Rights(kube(lambda _: httpx2.Response(500))).may("patch", "clientcredentials")
    assert not Rights(kube(lambda _: httpx2.Response(201, json={"status": {"allowed": "yes"}}))).may("get", "x")


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="no keys"),
        pytest.param({"keys": [None, {}, {"kid": 3, "state": None, "createdAt": "yesterday"}]}, id="malformed ones"),
        pytest.param(
            {"keys": [{"kid": "a", "state": "Active", "activatedAt": "2027-01-15T08:00:00Z"}]}, id="just made"
        ),
        pytest.param(
            {
                "keys": [{"kid": "a", "state": "Active", "activatedAt": "2000-01-01T00:00:00Z"}],
                "nextRotationAt": "2020-01-01T00:00:00Z",
            },
            id="long ago, with a rotation that is overdue",
        ),
        pytest.param(
            {
                "keys": [
                    {
                        "kid": "a",
                        "state": "Retired",
                        "activatedAt": "2027-01-15T08:00:00Z",
                        "retiredAt": "2027-01-14T08:00:00Z",
                        "removeAt": "2027-01-13T08:00:00Z",
                    }
                ]
            },
            id="times in the wrong order",
        ),
    ],
)
def test_a_time_line_has_everything_on_it(status: dict[str, Any]) -> None:
    line = timeline_of(thing("SigningKey", "keyturn", {}, status), NOW)
    assert line.starts < line.ends
    assert 0 <= line.now <= WIDTH
    assert line.next_rotation is None or 0 <= line.next_rotation <= WIDTH
    for key in line.keys:
        assert all(bar.width > 0 and 0 <= bar.x <= WIDTH and bar.x + bar.width <= WIDTH + 2 for bar in key.bars)


def test_keys_follow_one_another_on_the_line() -> None:
    keys = [
        {"kid": "b", "state": "Active", "publishedAt": "2027-01-10T00:00:00Z", "activatedAt": "2027-01-12T00:00:00Z"},
        {
            "kid": "a",
            "state": "Retired",
            "activatedAt": "2027-01-02T00:00:00Z",
            "retiredAt": "2027-01-12T00:00:00Z",
            "removeAt": "2027-01-13T00:00:00Z",
        },
    ]
    active, retired = timeline_of(thing("SigningKey", "keyturn", {}, {"keys": keys}), NOW).keys
    assert [bar.phase for bar in active.bars] == ["published", "active"]
    assert [bar.phase for bar in retired.bars] == ["active", "retired"]
    assert active.bars[1].x == retired.bars[1].x
    assert active.bars[0].x + active.bars[0].width == pytest.approx(active.bars[1].x, abs=0.2)


def index(*rules: dict[str, Any]) -> RuleIndex:
    return RuleIndex([rule_of(one) for one in rules])


@pytest.mark.parametrize(
    ("path", "everybody", "names"),
    [
        pytest.param("/orders/7", False, ("billing", "root"), id="one of two permissions"),
        pytest.param("/open", True, (), id="a public route"),
        pytest.param("/absent", False, (), id="an unknown route"),
        pytest.param("/admin", False, ("root",), id="an expression"),
        pytest.param("/for-orders", False, ("root",), id="an audience"),
    ],
)
def test_who_may_call_is_judged_by_the_code_of_the_gateway(path: str, everybody: bool, names: tuple[str, ...]) -> None:
    found = index(
        rule("shop", needs("/orders", "orders:read", "orders:write"), {"path": "/open", "public": True}),
        rule("admin", {"path": "/admin", "expression": '"admin" in permissions && !("orders:read" in permissions)'}),
        rule("narrow", needs("/for-orders", "orders:read", "orders:write"), audiences=["orders"]),
    )
    rows = [
        row_of(one)
        for one in (
            client("billing", "orders:read"),
            client("root", "orders:write", "admin", audiences=["orders"]),
            client("stopped", "orders:read", suspended=True),
            client("over", "orders:read", expiresAt="2027-01-15T07:59:59Z"),
            client("none"),
        )
    ]
    callers = found.callers(Asked("GET", path.encode(), None), rows, NOW)
    assert (callers.everybody, callers.names, callers.unjudged) == (everybody, names, 0)


def test_clients_of_which_nothing_counts_are_no_callers_and_others_that_are_not_ready_are_named() -> None:
    found = index(rule("shop", needs("/orders", "orders:read"), {"path": "/any", "expression": "true"}))
    taken = thing(
        "ClientCredential",
        "late",
        {"permissions": ["orders:read"]},
        {"conditions": [ready(status="False", reason="ClientIdTaken")]},
    )
    mistaken = client("mistaken", "orders:read", status={"conditions": [ready(status="False", reason="InvalidKey")]})
    closed = client(
        "closed",
        "orders:read",
        status={"permissions": 0, "conditions": [ready(status="False", reason="InvalidKey")]},
    )
    rows = [row_of(one) for one in (taken, mistaken, closed, client("billing", "orders:read"))]
    callers = found.callers(Asked("GET", b"/orders", None), rows, NOW)
    assert (callers.names, callers.unready) == (("mistaken", "billing"), {"mistaken": "InvalidKey"})
    # With a token they would be in.
    assert found.callers(Asked("GET", b"/any", None), rows, NOW).names == ("mistaken", "closed", "billing")
    assert holders_of(rows) == {"orders:read": ["mistaken", "billing"]}


def test_kinds_of_clients_are_judged_up_to_a_bound_and_the_rest_is_told() -> None:
    found = index(rule("shop", needs("/orders", "p0")))
    rows = [row_of(client(f"c{number}", f"p{number}")) for number in range(MAX_KINDS + 5)]
    callers = found.callers(Asked("GET", b"/orders", None), rows, NOW)
    assert (callers.names, callers.unjudged) == (("c0",), 5)


def test_routes_are_found_by_what_they_need_and_permissions_by_what_they_open() -> None:
    found = index(
        rule("shop", needs("/orders", "orders:read"), hosts=["shop.example"]),
        rule("other", {"path": "/x", "expression": '"orders:read" in permissions'}),
        rule("back", {"path": "/y", "public": True, "backoffice": {"permissions": {"allOf": ["orders:read"]}}}),
        rule("none", needs("/z", "orders:readonly")),
    )
    opened, count = found.opened_by("orders:read")
    assert ([row.route.path for row in opened], count) == (["/orders", "/x", "/y"], 3)
    routes, number, pages, total = found.search("SHOP.example", 9)
    assert ([row.rule.name for row in routes], number, pages, total) == (["shop"], 1, 1, 1)


def test_a_rule_that_is_not_ready_says_why_and_one_that_was_edited_since_says_nothing() -> None:
    told = {
        "type": "Ready",
        "status": "False",
        "reason": "InvalidExpression",
        "message": "column 3",
        "observedGeneration": 1,
    }
    spoken = rule_of(thing("AccessRule", "a", {"routes": []}, {"conditions": [told]}))
    edited = rule_of(thing("AccessRule", "a", {"routes": []}, {"conditions": [told]}, generation=2))
    assert (spoken.ready, spoken.message) == ("False", "column 3")
    assert (edited.ready, edited.message) == ("Unknown", "")


KUBECONFIG = """apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u, namespace: shop}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: abc}}]
"""


class Started:
    """What the command would serve."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.consoles: list[Any] = []
        monkeypatch.setattr("keyturn_cli.console.serve.serve", lambda console, _: self.consoles.append(console))
        monkeypatch.setattr("webbrowser.open", self.opened.append)
        monkeypatch.setattr("keyturn_cli.commands.console.listen", lambda port: FakeSocket(port or 40123))


class FakeSocket:
    def __init__(self, port: int) -> None:
        self._port = port

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._port


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    return Started(monkeypatch)


@pytest.fixture
def kubeconfig(tmp_path: Any) -> str:
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    return str(path)


def test_the_command_prints_the_address_and_opens_the_browser_with_a_ticket(started: Started, kubeconfig: str) -> None:
    done = keyturn("console", "--kubeconfig", kubeconfig, "--context", "c")
    assert done.exit_code == 0, done.output
    (console,), (opened,) = started.consoles, started.opened
    assert done.stdout == f"http://127.0.0.1:40123/{console.door.token}/\n"
    # Others on the machine can read a browser's command line: the address itself does not stand there.
    assert opened.startswith("http://127.0.0.1:40123/open/")
    assert console.door.token not in opened
    assert (console.kube.namespace, console.context, console.edit_managed) == ("shop", "c", False)


def test_options_reach_the_page(started: Started, kubeconfig: str) -> None:
    done = keyturn(
        *("console", "--kubeconfig", kubeconfig, "--namespace", "other", "--port", "8123"),
        *("--no-browser", "--edit-managed"),
    )
    assert done.exit_code == 0, done.output
    (console,) = started.consoles
    assert started.opened == []
    assert (console.kube.namespace, console.door.port, console.edit_managed) == ("other", 8123, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "70000"), "--port"),
        (("--metrics", "ftp://x"), "http://"),
        (("--url", "https://user:pass@x"), "no user name"),
        (("--context", "absent"), "no context"),
    ],
)
def test_what_can_not_be_used_is_told(started: Started, kubeconfig: str, arguments: tuple[str, ...], said: str) -> None:
    done = keyturn("console", "--kubeconfig", kubeconfig, *arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert "pass" not in done.output.replace("password", "")
    assert started.consoles == []


def test_without_its_libraries_the_console_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, started: Started, kubeconfig: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    done = keyturn("console", "--kubeconfig", kubeconfig)
    assert done.exit_code == 2
    assert "keyturn[console]" in done.output


def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch, kubeconfig: str) -> None:
    class Taken:
        def __init__(self, *_: object) -> None:
            pass

        def setsockopt(self, *_: object) -> None:
            pass

        def bind(self, _: object) -> None:
            raise OSError(98, "Address already in use")

        def close(self) -> None:
            pass

    monkeypatch.setattr("socket.socket", Taken)
    done = keyturn("console", "--kubeconfig", kubeconfig, "--port", "8123")
    assert done.exit_code == 2
    assert "Port 8123 can't be used: Address already in use." in done.output
