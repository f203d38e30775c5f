"""`keyturn test` and `keyturn explain`: rules tried before they are applied, by the gateway's code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from .command import keyturn

ORDERS = """\
# A comment, so that lines count.
apiVersion: keyturn.dev/v1alpha1
kind: AccessRule
metadata: {name: orders, namespace: shop}
spec:
  hosts: [shop.example]
  routes:
    - path: /orders
      methods: [GET]
      permissions: {anyOf: ["orders:read", "orders:admin"]}
    - path: /orders
      methods: [POST]
      expression: permissions["orders:write"] && clientType != "bot"
      backoffice: {expression: groups.support}
    - path: /health
      public: true
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
---
apiVersion: keyturn.dev/v1alpha1
kind: AccessRule
metadata: {name: reports}
spec:
  audiences: [reports]
  routes: [{path: /reports, expression: userProperties.plan == "gold"}]
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "orders.yaml").write_text(ORDERS)
    return folder


def run(rules: Path, cases: str | None, *arguments: str) -> Result:
    if cases is not None:
        path = rules.parent / "cases.yaml"
        path.write_text(cases)
        arguments = ("--cases", str(path), *arguments)
    return keyturn("test", str(rules), *arguments)


def results(rules: Path, cases: str | None) -> dict[str, Any]:
    loaded = json.loads(run(rules, cases, "-o", "json").stdout)
    assert isinstance(loaded, dict)
    return loaded


GOOD = """\
- {request: "GET https://shop.example/orders/7", permissions: ["orders:read"], expect: allow}
- {request: "GET https://shop.example:8443/orders?x=1", permissions: ["orders:admin"], expect: allow}
- {request: "GET https://shop.example/orders/7", permissions: ["orders:write"], expect: deny}
- {request: "GET https://shop.example/orders/7", anonymous: true, expect: unauthenticated}
- {request: "GET https://other.example/orders/7", permissions: ["orders:read"], expect: unknown}
- {request: "GET https://shop.example/orders-old", permissions: ["orders:read"], expect: unknown}
- {request: "DELETE https://shop.example/orders", permissions: ["orders:read"], expect: unknown}
- {request: "POST https://shop.example/orders", permissions: ["orders:write"], expect: allow}
- {request: "POST https://shop.example/orders", permissions: ["orders:write"], clientType: bot, expect: deny}
- {request: "POST https://shop.example/orders", permissions: ["orders:write"], backoffice: true, expect: deny}
- {request: "POST https://shop.example/orders", groups: [support], backoffice: true, expect: allow}
- {request: "GET https://shop.example/health", anonymous: true, expect: allow, name: open}
- {request: "GET https://shop.example/health%2f..%2forders", anonymous: true, expect: unknown}
- {request: "GET https://shop.example/health%00", anonymous: true, expect: deny}
- {request: "GET /reports", audiences: [reports], userProperties: {plan: gold}, expect: allow}
- {request: "GET /reports", userProperties: {plan: gold}, expect: deny}
"""


def test_all_as_expected_is_exit_code_0_and_one_line(rules: Path) -> None:
    result = run(rules, GOOD)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 rules, 16 cases, all as expected\n", "")


@pytest.mark.parametrize("expect", ["allow", "deny", "unauthenticated", "unknown"])
def test_each_case_has_one_outcome_only(rules: Path, expect: str) -> None:
    lines = [line.split("expect: ")[0] + f"expect: {expect}}}" for line in GOOD.splitlines()]
    meant = [line.split("expect: ")[1].split(",")[0].removesuffix("}") for line in GOOD.splitlines()]
    outcome = results(rules, "\n".join(lines))
    assert [case["ok"] for case in outcome["cases"]] == [expect == one for one in meant]
    assert not outcome["ok"]


def test_failures_are_a_table_with_the_rule_the_route_and_what_is_missing(rules: Path) -> None:
    cases = """
        - {request: "GET https://shop.example/orders/7", permissions: ["a:b"], expect: allow, name: read}
        - {request: "POST https://shop.example/orders", permissions: ["a:b"], expect: allow}
        - {request: "GET https://shop.example/health", anonymous: true, expect: deny}
        - {request: "GET https://shop.example/none", expect: allow}
        - {request: "GET /reports", audiences: [orders], expect: allow}
        - {request: "GET https://shop.example/health", anonymous: true, expect: allow}
    """
    result = run(rules, cases)
    assert result.exit_code == 1
    cells = [[cell for cell in line.split("  ") if cell] for line in result.stdout.splitlines()]
    assert [[cell.strip() for cell in row] for row in cells] == [
        ["CASE", "REQUEST", "EXPECTED", "GOT", "RULE", "ROUTE", "WHY"],
        [
            "1 read",
            "GET https://shop.example/orders/7",
            "allow",
            "deny",
            "shop/orders",
            "/orders",
            "MissingPermission; missing one of orders:admin, orders:read",
        ],
        [
            "2",
            "POST https://shop.example/orders",
            "allow",
            "deny",
            "shop/orders",
            "/orders",
            "ExpressionFalse; missing orders:write",
        ],
        ["3", "GET https://shop.example/health", "deny", "allow", "shop/orders", "/health", "PublicRoute"],
        [
            "4",
            "GET https://shop.example/none",
            "allow",
            "unknown",
            "-",
            "-",
            "UnknownRoute; No rule names this host, path and method",
        ],
        [
            "5",
            "GET /reports",
            "allow",
            "deny",
            "default/reports",
            "/reports",
            'AudienceNotAllowed; the token is for none of reports; false: userProperties.plan == "gold"',
        ],
        ["2 rules, 6 cases, 5 not as expected"],
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "reason", "message"),
    [
        pytest.param(
            "&& client", "&& klient", 13, "spec.routes[1].expression", "InvalidExpression", "column 32", id="name"
        ),
        pytest.param("path: /health", "path: /a b", 15, "spec.routes[2].path", "InvalidPath", "space", id="a path"),
        pytest.param("[POST]", "[PUSH]", 12, "spec.routes[1].methods[0]", "InvalidSpec", "one of", id="a method"),
        pytest.param(
            "public: true", "pubic: true", 15, "spec.routes[2]", "InvalidSpec", "exactly one", id="no condition"
        ),
        pytest.param(
            "groups.support",
            "groups.",
            14,
            "spec.routes[1].backoffice.expression",
            "InvalidExpression",
            "column",
            id="b",
        ),
        pytest.param("dev/v1alpha1", "dev/v9", 2, "apiVersion", "InvalidSpec", "keyturn.dev/v1alpha1", id="a version"),
        pytest.param(
            "{name: reports}",
            "{name: orders, namespace: shop}",
            24,
            "metadata.name",
            "InvalidSpec",
            "orders.yaml:2 has",
            id="twice",
        ),
        pytest.param("name: orders,", "", 4, "metadata.name", "InvalidSpec", "needs a name", id="no name"),
    ],
)
def test_an_invalid_rule_is_told_with_file_line_and_field(
    rules: Path, old: str, new: str, line: int, field: str, reason: str, message: str
) -> None:
    (rules / "orders.yaml").write_text(ORDERS.replace(old, new, 1))
    result = run(rules, None)
    assert result.exit_code == 1
    told = [text for text in result.stderr.splitlines() if f": {field}: " in text]
    assert len(told) == 1, result.stderr
    assert f"orders.yaml:{line}: " in told[0]
    assert f"({reason})" in told[0]
    assert message in told[0]
    found = results(rules, None)
    assert [invalid["line"] for invalid in found["invalid"] if invalid["field"] == field] == [line]
    assert not found["ok"]


def test_an_invalid_rule_denies_what_it_names(rules: Path) -> None:
    (rules / "orders.yaml").write_text(ORDERS.replace("&& client", "&& klient"))
    case = '- {request: "GET https://shop.example/health", anonymous: true, expect: allow}'
    (found,) = results(rules, case)["cases"]
    assert (found["got"], found["rule"]) == ("unauthenticated", "shop/orders")


def test_more_than_the_api_server_takes_is_told(rules: Path) -> None:
    many = "\n".join(f"    - {{path: /p{index}, public: true}}" for index in range(101))
    (rules / "orders.yaml").write_text(ORDERS.replace("  routes:\n", f"  routes:\n{many}\n", 1))
    (invalid,) = results(rules, None)["invalid"]
    assert (invalid["field"], invalid["message"]) == ("spec.routes", "At most 100 elements in one object")


def test_conflicts_name_both_rules_and_fail(rules: Path) -> None:
    more = ORDERS.split("---\n")[0].replace("name: orders", "name: others").replace("orders:admin", "x")
    (rules / "sub").mkdir()
    (rules / "sub" / "more.yml").write_text(more)
    result = run(rules, None)
    assert result.exit_code == 1
    assert "shop/orders: GET shop.example/orders is decided otherwise by shop/others" in result.stderr
    assert "3 rules; 2 conflicting" in result.stdout
    found = results(rules, None)
    assert [(one["rule"], one["others"]) for one in found["conflicts"]] == [
        ("shop/orders", ["shop/others"]),
        ("shop/others", ["shop/orders"]),
    ]
    case = '- {request: "GET https://shop.example/orders", permissions: [%s], expect: allow}'
    assert not results(rules, case % '"x"')["cases"][0]["ok"]
    assert results(rules, case % '"x", "orders:read"')["cases"][0]["ok"]


def test_rules_are_found_in_files_folders_lists_and_json(tmp_path: Path, rules: Path) -> None:
    rule = {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "AccessRule",
        "metadata": {"name": "a"},
        "spec": {"routes": [{"path": "/a", "public": True}]},
    }
    (tmp_path / "list.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [rule]}))
    (rules / "notes.txt").write_text("no YAML: [")
    result = keyturn("test", str(rules), str(tmp_path / "list.json"), str(rules / "orders.yaml"))
    assert (result.exit_code, result.stdout) == (0, "3 rules\n")


@pytest.mark.parametrize(
    ("cases", "complaint"),
    [
        pytest.param("", "one YAML document", id="nothing"),
        pytest.param("[]", "a list of 1 to", id="an empty list"),
        pytest.param("- [", "no YAML at line 1", id="no YAML"),
        pytest.param("- GET /", "case 1: a case is an object", id="a text"),
        pytest.param("- {request: GET /, expects: allow}", "case 1: 'expects' is not known", id="a misspelt member"),
        pytest.param("- {request: GET /, expect: ok}", "expect must be one of allow, deny", id="another outcome"),
        pytest.param("- {request: GET /}", "expect must be one of", id="no expectation"),
        pytest.param("- {request: /, expect: allow}", "request must be a text such as", id="no method"),
        pytest.param("- {request: GET shop.example/a, expect: allow}", "names a URL such as", id="no scheme"),
        pytest.param("- {request: 'GET https:///a', expect: allow}", "host can't be read", id="no host"),
        pytest.param("- {request: GET /, permissions: a, expect: allow}", "permissions must be a list", id="no list"),
        pytest.param("- {request: GET /, anonymous: 'no', expect: allow}", "anonymous must be true or", id="no flag"),
        pytest.param(
            "- {request: GET /, anonymous: true, groups: [a], expect: deny}", "an anonymous caller", id="both"
        ),
        pytest.param("- {request: GET /, expect: deny, expect: allow}", "stands twice", id="a member twice"),
        pytest.param("- !!python/name:os.system {}", "no plain data", id="a tag that builds objects"),
    ],
)
def test_cases_that_are_not_understood_are_usage_errors(rules: Path, cases: str, complaint: str) -> None:
    result = run(rules, cases)
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param("kind: ConfigMap", "There is no AccessRule", id="no rule"),
        pytest.param("{{ if .Values.x }}", "can't be used", id="a template"),
        pytest.param("a: 1\na: 2", "stands twice in one object, at line 2", id="a member twice"),
    ],
)
def test_files_that_cannot_be_used_are_usage_errors(rules: Path, content: str, complaint: str) -> None:
    (rules / "orders.yaml").write_text(content)
    result = run(rules, None)
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert keyturn("test", str(tmp_path / "none")).exit_code == 2


def explain(rules: Path, *arguments: str) -> list[str]:
    result = keyturn("explain", *arguments, "--rules", str(rules))
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_an_explanation_tells_rule_route_parts_and_the_missing_permission(rules: Path) -> None:
    assert explain(rules, "POST", "https://shop.example/orders/7", "--permission", "orders:read") == [
        "deny (ExpressionFalse)",
        "  decided by AccessRule shop/orders, route /orders",
        "  The expression is false for this caller",
        "path /orders/7 on shop.example",
        "  AccessRule shop/orders, route /orders: denies it",
        "    true  is logged in: a caller with a valid token",
        '    false expression: permissions["orders:write"] && clientType != "bot"',
        '        false permissions["orders:write"] (column 1)',
        '        true  clientType != "bot" (column 32)',
        "        missing: orders:write",
    ]


def test_the_documentation_shows_what_is_printed() -> None:
    project = Path(__file__).parents[3]
    document = (project / "docs" / "access-rules.md").read_text()
    shown = re.search(r"```sh\nkeyturn (explain [^\n]*)\n```\n\n```text\n(.*?)```", document, re.DOTALL)
    assert shown is not None
    arguments = [str(project / "examples") if word == "examples/" else word for word in shlex.split(shown[1])]
    assert keyturn(*arguments).stdout == shown[2]


def test_an_explanation_goes_through_every_reading_of_the_path(rules: Path) -> None:
    lines = explain(rules, "GET", "https://shop.example/health%2f..%2forders", "--permission", "orders:read")
    assert lines[0] == "unknown (UnknownRoute)"
    assert [line for line in lines if line.startswith("path ")] == [
        "path /health%2F..%2Forders on shop.example",
        "path /health/../orders on shop.example",
        "path /orders on shop.example",
    ]


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        pytest.param(["GET", "/orders", "--permission", "orders:read"], "allow (Allowed)", id="a permission"),
        pytest.param(["POST", "/orders", "--group", "support", "--backoffice"], "allow (Allowed)", id="a group"),
        pytest.param(
            ["POST", "/orders", "--permission", "orders:write", "--client-type", "bot"],
            "deny (ExpressionFalse)",
            id="bot",
        ),
        pytest.param(["GET", "/orders", "--anonymous"], "unauthenticated (Unauthenticated)", id="no token"),
        pytest.param(["GET", "/health", "--anonymous"], "allow (PublicRoute)", id="a public route"),
        pytest.param(["GET", "/reports", "--audience", "reports"], "deny (ExpressionFalse)", id="an audience"),
        pytest.param(["TRACE", "/health"], "unknown (UnknownRoute)", id="a method that no rule covers"),
        pytest.param(["GET", "/health%00"], "deny (PathRefused)", id="a path that is refused"),
    ],
)
def test_an_explanation_begins_with_the_decision(rules: Path, arguments: list[str], outcome: str) -> None:
    arguments[1] = f"https://shop.example{arguments[1]}"
    assert explain(rules, *arguments)[0] == outcome


def test_an_explanation_in_json_holds_the_same(rules: Path) -> None:
    body = json.loads("\n".join(explain(rules, "GET", "/reports", "-o", "json", "--audience", "reports")))
    assert body["decision"]["rule"] == "default/reports"
    (reading,) = body["readings"]
    assert [check["kind"] for check in reading["routes"][0]["checks"]] == ["login", "audiences", "expression"]


@pytest.mark.parametrize(
    "arguments",
    [["GET", "shop.example/a"], ["G T", "/a"], ["GET", "/a", "--anonymous", "--permission", "p"], ["GET", "https://"]],
    ids=" ".join,
)
def test_what_is_no_request_is_a_usage_error(rules: Path, arguments: list[str]) -> None:
    assert keyturn("explain", *arguments, "--rules", str(rules)).exit_code == 2


TRIED = """\
---
apiVersion: keyturn.dev/v1alpha1
kind: AccessRule
metadata: {name: tried, namespace: shop}
spec: {mode: Audit, routes: [{path: /health, permissions: {anyOf: ["health:read"]}}]}
"""
HEALTH = '- {request: "GET https://other.example/health", permissions: ["orders:read"], expect: allow}\n'


@pytest.fixture
def tried(rules: Path) -> Path:
    (rules / "orders.yaml").write_text(ORDERS.replace("  hosts: [shop.example]\n", "") + TRIED)
    return rules


def test_a_rule_under_audit_decides_nothing_and_what_it_would_deny_is_told(tried: Path) -> None:
    result = run(tried, HEALTH)
    assert result.exit_code == 0
    assert "Audit: shop/tried would deny 1 case that is allowed now" in result.stdout
    assert results(tried, HEALTH)["cases"][0]["wouldDeny"] == ["shop/tried"]


def test_rules_under_audit_are_tried_in_force_by_an_option(tried: Path) -> None:
    result = run(tried, HEALTH, "--enforce-audit", "-o", "json")
    case = json.loads(result.stdout)["cases"][0]
    assert (result.exit_code, case["got"], case["rule"], case["wouldDeny"]) == (1, "deny", "shop/tried", [])


def test_explain_shows_what_a_rule_under_audit_would_change(tried: Path) -> None:
    result = keyturn("explain", "GET", "/health", "--rules", str(tried), "--permission", "orders:read")
    assert result.exit_code == 0
    assert result.stdout.startswith("allow (PublicRoute)")
    assert "AccessRule shop/tried is under Audit and decides nothing; enforced: would be deny" in result.stdout
    assert "missing: health:read" in result.stdout
