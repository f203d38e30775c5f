"""Why was this denied: asked by people with Kubernetes tokens, by the command line, at whichever replica; and rules under Audit."""

import json
import subprocess
import sys
import uuid
from typing import Any

import httpx2
import pytest

from keyturn_dev.waiting import wait_until
from tests.cluster.clients import World, needs, route
from tests.cluster.portal import Portal


def account(world: World, name: str, *verbs: str) -> str:
    """A ServiceAccount that may do this with clientcredentials, and its token for administration."""
    return Portal(world).caller(name, *verbs)


def ask(world: World, shown: str | None, question: dict[str, Any], replica: int = 0) -> httpx2.Response:
    headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
    url = f"{world.replicas[replica].url}/explain"
    return httpx2.post(url, json=question, headers=headers, timeout=20, trust_env=False)


def keyturn(world: World, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "keyturn_cli.main", "explain", *arguments]
    kubeconfig = str(world.installation.target.kubeconfig)
    return subprocess.run(
        [*command, "--kubeconfig", kubeconfig, "--namespace", world.namespace],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_who_may_explain_is_told_the_rule_the_missing_permission_and_who_has_it(world: World) -> None:
    oncall = account(world, "explain-oncall", "explain")
    other = account(world, "explain-other", "get", "list")
    asking = world.client("explained").apply(permissions=["explained:read"])
    world.client("explained-admin").apply(permissions=["explained:write"])
    world.rule(
        "explained",
        route("/explained", "GET", **needs("explained:read")),
        route("/explained", "POST", **needs("explained:write")),
    )
    question = {"method": "POST", "url": "https://shop.example/explained/7", "client": "explained"}

    for replica in range(2):
        answer = ask(world, oncall, question, replica)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["decision"]["reason"], body["decision"]["rule"]) == (
            "MissingPermission",
            f"{world.namespace}/explained",
        )
        assert body["caller"]["clientId"] == asking.client_id
        assert body["grants"] == [
            {"permission": "explained:write", "clients": [f"{world.namespace}/explained-admin"], "count": 1}
        ]
    assert ask(world, oncall, {**question, "token": asking.token()}).status_code == 400
    by_token = ask(world, oncall, {"method": "GET", "url": "/explained", "token": asking.token()}).json()
    assert by_token["decision"]["outcome"] == "Allow"
    assert ask(world, other, question).status_code == 403
    assert ask(world, None, question).status_code == 401
    assert ask(world, asking.token(), question).status_code == 401


def test_a_denial_at_one_replica_is_found_by_its_id_at_the_other(world: World) -> None:
    oncall = account(world, "explain-oncall", "explain")
    client = world.client("denied").apply(permissions=["denied:read"])
    world.rule("denied", route("/denied", **needs("denied:write")))
    answer = world.replicas[0].auth("/denied/7?secret=1", client.token())
    assert answer.status_code == 403
    assert answer.headers["www-authenticate"].startswith('Bearer error="insufficient_scope"')
    identifier = answer.json()["id"]
    assert answer.headers["x-request-id"] == identifier
    log = world.installation.log("api-0").read_text("utf-8", "replace")
    assert any(identifier in line and "MissingPermission" in line for line in log.splitlines())

    found: list[httpx2.Response] = []

    def known() -> bool:
        found[:] = [ask(world, oncall, {"requestId": identifier}, 1)]
        return found[0].status_code == 200

    wait_until(known, "the denial to be known at the other replica", seconds=15)
    (denial,) = found[0].json()["denials"]
    assert (denial["reason"], denial["cause"], denial["path"]) == (
        "MissingPermission",
        "Missing, one of: denied:write",
        "/denied/7",
    )
    assert "secret" not in found[0].text
    assert found[0].json()["now"]["decision"]["reason"] == "MissingPermission"


def test_the_command_line_asks_with_nothing_but_a_kubeconfig_and_the_url(world: World) -> None:
    account(world, "keyturn-explain", "explain")
    client = world.client("called").apply(permissions=["called:read"])
    world.rule("called", route("/called", **needs("called:write")))
    url = world.replicas[0].url
    shown = keyturn(world, "GET", "https://shop.example/called/7", "--client", "called", "--url", url)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[:3] == [
        "deny (MissingPermission)",
        f"  decided by AccessRule {world.namespace}/called, route /called",
        "  Missing, one of: called:write",
    ]
    assert f"caller: client {client.client_id}" in shown.stdout
    by_token = keyturn(world, "GET", "/called", "--token", "-", "--url", url, stdin=client.token())
    assert (by_token.returncode, by_token.stdout.splitlines()[0]) == (0, "deny (MissingPermission)")

    identifier = uuid.uuid4().hex
    headers = {
        "Original-Request-Method": "GET",
        "Original-Request-Uri": "/called",
        "X-Request-Id": identifier,
    }
    assert httpx2.get(f"{world.replicas[1].url}/auth", headers=headers, trust_env=False).status_code == 401
    denied = keyturn(world, "--request-id", identifier, "--url", url)
    assert denied.returncode == 0, denied.stderr
    assert "GET /called was answered 401 (NoCredentials)" in denied.stdout


def test_without_the_service_the_command_line_decides_by_the_objects(world: World) -> None:
    world.client("read-only").apply(permissions=["objects:read"])
    world.rule(
        "objects", route("/objects", **needs("objects:read")), route("/objects/secret", **needs("objects:write"))
    )
    shown = keyturn(world, "GET", "/objects/secret", "--client", "read-only", "-o", "json")
    assert shown.returncode == 0, shown.stderr
    assert "Decided by the objects in the cluster" in shown.stderr
    body = json.loads(shown.stdout)
    assert (body["decision"]["reason"], body["caller"]["object"]) == (
        "MissingPermission",
        f"{world.namespace}/read-only",
    )


def audited(world: World, replica: int, rule: str) -> float:
    metrics = f"http://127.0.0.1:{world.installation.apis[replica].metrics}/metrics"
    text = httpx2.get(metrics, trust_env=False).text
    name = f'keyturn_api_audit_denials_total{{outcome="Forbidden",rule="{world.namespace}/{rule}"}}'
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def test_a_rule_under_audit_decides_nothing_counts_and_logs_and_comes_into_force_by_its_mode(world: World) -> None:
    client = world.client("tried").apply(permissions=["tried:read"])
    world.rule("tried-whole", route("/tried", **needs("tried:read")))
    world.rule("tried-part", route("/tried/part", **needs("tried:part")), route("/tried-alone"), mode="Audit")
    assert "Audit" in world.kubectl("get", "accessrule", "tried-part")
    condition = world.objects.wait_for("accessrules", "tried-part", "False", kind="Conflicting")
    assert condition["reason"] == "NoContradiction"

    token = client.token()
    assert world.everywhere(lambda one: one.auth("/tried/part", token).status_code) == [200, 200]
    # Known to a rule under Audit alone is known to none.
    assert world.everywhere(lambda one: one.auth("/tried-alone", token).status_code) == [403, 403]
    wait_until(lambda: audited(world, 0, "tried-part") == 1, "the would-be denial to be counted", seconds=10)
    log = world.installation.log("api-0").read_text("utf-8", "replace")
    assert any("would_be_denied" in line and "tried:part" in line for line in log.splitlines())

    patch = json.dumps({"spec": {"mode": "Enforce"}})
    world.kubectl("patch", "accessrule", "tried-part", "--type=merge", "-p", patch)
    wait_until(
        lambda: world.everywhere(lambda one: one.auth("/tried/part", token).status_code) == [403, 403],
        "the rule to be in force on both replicas",
        seconds=10,
    )
    assert world.everywhere(lambda one: one.auth("/tried-alone").status_code) == [200, 200]


@pytest.mark.parametrize("mode", ["Warn", "audit", ""])
def test_a_mode_that_is_none_is_refused_at_apply(world: World, mode: str) -> None:
    with pytest.raises(Exception, match="Unsupported value"):
        world.rule("no-mode", route("/no-mode"), mode=mode)
