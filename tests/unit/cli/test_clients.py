"""`keyturn clients`, `revoke` and `rotate client`: what they show, what they change, and when they leave things alone."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
import yaml

from keyturn_cli import editing
from keyturn_cli.commands import clients, revoke, rotate

from .cluster import FakeCluster
from .command import keyturn

PENDING = {"labels": {"keyturn.dev/registered": "true", "keyturn.dev/approval": "pending"}}
ASKED = {"registration": {"requested": {"permissions": ["orders:read"], "audiences": ["orders"]}}}
READY = {"type": "Ready", "status": "True", "reason": "Accepted", "message": "In force.", "observedGeneration": 1}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    for module in (clients, revoke, rotate):
        monkeypatch.setattr(module, "open_kube", made.open)
    monkeypatch.setattr(rotate, "POLL_SECONDS", 0.001)
    keys = [
        {"kid": "k1", "algorithm": "RS256", "size": 2048, "source": "publicKeys", "addedAt": "2026-02-01T00:00:00Z"}
    ]
    made.add("clientcredentials", "billing", permissions=["a"], status={"conditions": [READY], "keys": keys})
    made.add("clientcredentials", "stopped", suspended=True)
    made.add("clientcredentials", "waits", metadata=PENDING, clientName="Orders\x1b[2J report", **ASKED)
    return made


def names(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines()[1:]]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        pytest.param([], ["billing", "stopped", "waits"], id="all"),
        pytest.param(["--suspended"], ["stopped"], id="suspended"),
        pytest.param(["--unused", "30d"], ["billing", "stopped", "waits"], id="unused"),
        pytest.param(["bill"], ["billing"], id="by text"),
        pytest.param(["-A", "bill"], ["shop"], id="in all namespaces, which are named"),
    ],
)
def test_the_list_is_a_table_of_what_the_filters_take(
    cluster: FakeCluster, arguments: list[str], found: list[str]
) -> None:
    result = keyturn("clients", "list", *arguments)
    assert result.exit_code == 0, result.output
    assert names(result.stdout) == found


def test_a_label_selector_is_the_api_servers_to_apply(cluster: FakeCluster) -> None:
    keyturn("clients", "list", "-l", "team=orders")
    assert cluster.requests[0].url.params["labelSelector"] == "team=orders"


def test_nothing_found_is_no_error_and_leaves_stdout_empty(cluster: FakeCluster) -> None:
    result = keyturn("clients", "list", "nobody")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "There is no such client." in result.stderr


@pytest.mark.parametrize("value", ["30", "d", "-1d", "1w", ""], ids=repr)
def test_a_time_that_is_none_is_a_usage_error(cluster: FakeCluster, value: str) -> None:
    assert keyturn("clients", "list", "--unused", value).exit_code == 2


def test_programs_get_names_json_and_yaml(cluster: FakeCluster) -> None:
    assert keyturn("clients", "list", "bill", "-o", "name").stdout == "clientcredential.keyturn.dev/billing\n"
    for written, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        listed = read(keyturn("clients", "list", "-o", written).stdout)
        assert [one["metadata"]["name"] for one in listed["items"]] == ["billing", "stopped", "waits"]
        assert {one["kind"] for one in listed["items"]} == {"ClientCredential"}
        assert read(keyturn("clients", "show", "billing", "-o", written).stdout)["kind"] == "ClientCredential"


def test_pending_shows_what_is_asked_for_and_no_escape_sequence(cluster: FakeCluster) -> None:
    result = keyturn("clients", "pending")
    assert names(result.stdout) == ["waits"]
    assert "orders:read, audience orders" in result.stdout
    assert "\x1b" not in result.stdout


def test_show_has_identity_keys_grants_conditions_and_events(cluster: FakeCluster) -> None:
    event = {"type": "Normal", "reason": "Registered", "message": "By portal.", "lastTimestamp": "2026-01-01T00:00:00Z"}
    cluster.answers["GET", "/api/v1/namespaces/shop/events"] = (200, {"items": [event]})
    cluster.get("clientcredentials", "billing")["spec"] |= ASKED
    shown = keyturn("clients", "show", "billing").stdout
    for expected in ("shop.billing", "RS256 2048", "Accepted", "Registered", "By portal."):
        assert expected in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["permission", "a", "yes", "no"] in lines
    assert ["permission", "orders:read", "no", "yes"] in lines
    assert ["audience", "orders", "no", "yes"] in lines


def test_show_says_when_events_may_not_be_read(cluster: FakeCluster) -> None:
    cluster.answers["GET", "/api/v1/namespaces/shop/events"] = (403, {"message": "no"})
    result = keyturn("clients", "show", "billing")
    assert result.exit_code == 0
    assert "events can't be read" in result.stderr


def test_approving_as_requested_grants_that_and_takes_it_off_the_list(cluster: FakeCluster) -> None:
    result = keyturn("clients", "approve", "waits", "--as-requested", "--yes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "+    - orders:read" in result.stderr
    obj = cluster.get("clientcredentials", "waits")
    assert (obj["spec"]["permissions"], obj["spec"]["audiences"]) == (["orders:read"], ["orders"])
    assert obj["metadata"]["labels"]["keyturn.dev/approval"] == "granted"
    assert keyturn("clients", "pending").stdout == ""


def test_approving_adds_to_what_is_there(cluster: FakeCluster) -> None:
    keyturn("clients", "approve", "billing", "--permission", "b", "--audience", "x", "--yes")
    assert cluster.get("clientcredentials", "billing")["spec"] == {"permissions": ["a", "b"], "audiences": ["x"]}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["approve", "billing"], id="approving without saying what"),
        pytest.param(["approve", "billing", "--as-requested"], id="as requested where nothing was"),
        pytest.param(["approve", "billing", "--permission", "b"], id="nobody to ask"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(cluster: FakeCluster, arguments: list[str]) -> None:
    assert keyturn("clients", *arguments).exit_code == 2
    assert cluster.writes == []


@pytest.mark.parametrize(("answer", "code", "stopped"), [(b"y\n", 0, True), (b"n\n", 1, False)], ids=["yes", "no"])
def test_a_person_is_asked(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: int, stopped: bool
) -> None:
    monkeypatch.setattr(editing, "is_interactive", lambda: True)
    result = keyturn("clients", "suspend", "billing", stdin=answer)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "Stop shop.billing now?" in result.stderr
    assert cluster.get("clientcredentials", "billing")["spec"].get("suspended", False) is stopped


def test_a_suspension_is_taken_back(cluster: FakeCluster) -> None:
    assert (
        keyturn("clients", "resume", "stopped", "-y", "-o", "name").stdout == "clientcredential.keyturn.dev/stopped\n"
    )
    assert "suspended" not in cluster.get("clientcredentials", "stopped")["spec"]


def test_what_is_so_already_is_not_written(cluster: FakeCluster) -> None:
    result = keyturn("clients", "suspend", "stopped", "--yes")
    assert result.exit_code == 0
    assert "is so already" in result.stderr
    assert cluster.writes == []


def test_a_dry_run_prints_the_manifest_for_git_and_changes_nothing(cluster: FakeCluster) -> None:
    result = keyturn("clients", "approve", "waits", "--as-requested", "--dry-run")
    assert yaml.safe_load(result.stdout)["spec"]["permissions"] == ["orders:read"]
    assert "status" not in yaml.safe_load(result.stdout)
    assert cluster.writes == []


def test_an_edit_made_meanwhile_is_shown_and_kept(cluster: FakeCluster) -> None:
    def theirs() -> None:
        obj = cluster.get("clientcredentials", "billing")
        obj["spec"]["permissions"] = ["theirs"]
        obj["metadata"]["resourceVersion"] = "999"

    cluster.on_patch = theirs
    result = keyturn("clients", "approve", "billing", "--permission", "mine", "--yes")
    assert result.exit_code == 1
    assert "+    - theirs" in result.stderr
    assert "nothing was overwritten" in result.stderr
    assert cluster.get("clientcredentials", "billing")["spec"]["permissions"] == ["theirs"]


def test_what_a_tool_manages_is_left_alone_unless_forced(cluster: FakeCluster) -> None:
    labels = {"argocd.argoproj.io/instance": "shop"}
    cluster.add("clientcredentials", "managed", metadata={"labels": labels})
    refused = keyturn("clients", "suspend", "managed", "--yes")
    assert refused.exit_code == 1
    assert "managed by Argo CD" in refused.stderr
    assert cluster.writes == []
    assert keyturn("clients", "suspend", "managed", "--yes", "--force").exit_code == 0
    assert cluster.get("clientcredentials", "managed")["spec"]["suspended"] is True


def test_an_unknown_client_is_named_with_what_to_check(cluster: FakeCluster) -> None:
    result = keyturn("clients", "show", "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "nobody is not there (clientcredentials). Check the name, --namespace and --context.\n"


def test_a_clients_old_tokens_are_refused_from_now_on(cluster: FakeCluster) -> None:
    assert keyturn("revoke", "billing", "--yes").exit_code == 0
    assert "revokeTokensIssuedBefore" in cluster.get("clientcredentials", "billing")["spec"]


def test_those_of_all_clients_by_the_signing_key_and_only_when_agreed_to(cluster: FakeCluster) -> None:
    cluster.add("signingkeys", "keyturn", algorithm="RS256")
    asked = keyturn("revoke", "--all")
    assert (asked.exit_code, cluster.writes) == (2, [])
    assert keyturn("revoke", "--all", "--yes").exit_code == 0
    assert "revokeTokensIssuedBefore" in cluster.get("signingkeys", "keyturn")["spec"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["billing", "--all"], ["--all", "--token", "-"], ["billing", "--token", "-"]],
    ids=["nothing", "a client and all", "all and a token", "a client and a token"],
)
def test_one_thing_is_revoked_at_a_time(cluster: FakeCluster, arguments: list[str]) -> None:
    assert keyturn("revoke", *arguments).exit_code == 2
    assert cluster.requests == []


@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        pytest.param(200, {}, 0, "Revoked", id="done"),
        pytest.param(403, {"error": "access_denied", "error_description": "no right"}, 1, "`revoke`", id="no right"),
        pytest.param(401, {"error": "invalid_token"}, 1, "audience", id="not known"),
        pytest.param(503, {"error": "temporarily_unavailable"}, 3, "can't serve", id="store away"),
    ],
)
def test_one_token_is_given_up_at_the_service(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, status: int, body: Any, code: int, says: str
) -> None:
    posted: list[httpx2.Request] = []

    def service(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json={"issuer": "http://127.0.0.1:8080"})
        posted.append(request)
        return httpx2.Response(status, json=body)

    monkeypatch.setattr(revoke, "open_client", lambda: httpx2.Client(transport=httpx2.MockTransport(service)))
    monkeypatch.setenv("KEYTURN_ADMIN_TOKEN", "kube-token")
    result = keyturn("revoke", "--token", "-", "--url", "http://127.0.0.1:8080", stdin=b"abc.def.ghi\n")
    assert result.exit_code == code
    assert says in result.stderr
    assert "abc.def.ghi" not in result.output
    (request,) = posted
    assert request.headers["Authorization"] == "Bearer kube-token"
    assert httpx2.QueryParams(request.content)["token"] == "abc.def.ghi"


def test_a_generated_credential_is_rotated_by_the_annotation(cluster: FakeCluster) -> None:
    cluster.add("clientcredentials", "made", generateKey={"secretName": "made"}, status={"conditions": [READY]})
    assert keyturn("rotate", "client", "made").exit_code == 0
    assert cluster.get("clientcredentials", "made")["metadata"]["annotations"]["keyturn.dev/rotate"]


@pytest.mark.parametrize(
    "spec", [{}, {"clientSecret": {"secretName": "x", "generate": False}}], ids=["its own keys", "a secret given to it"]
)
def test_what_the_operator_did_not_make_is_not_rotated(cluster: FakeCluster, spec: dict[str, Any]) -> None:
    cluster.add("clientcredentials", "own", **spec)
    assert keyturn("rotate", "client", "own").exit_code == 1
    assert cluster.writes == []


def test_wait_prints_the_new_credential(cluster: FakeCluster) -> None:
    before = {"conditions": [READY], "keys": [{"kid": "k1"}]}
    obj = cluster.add("clientcredentials", "made", generateKey={"secretName": "made"}, status=before)
    cluster.on_patch = lambda: obj["status"].update(keys=[{"kid": "k1"}, {"kid": "k2"}])
    result = keyturn("rotate", "client", "made", "--wait")
    assert (result.exit_code, result.stdout) == (0, "k2\n")
