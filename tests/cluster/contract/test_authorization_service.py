"""The reference's authorization service, row by row, under the gateway profile `original-request`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tests.cluster.clients import route
from tests.cluster.contract.conftest import Contract
from tests.cluster.contract.rows import row
from tests.manifests import manifest

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


@row("endpoint")
@pytest.mark.parametrize("path", ["/auth", "/auth/", "/auth/contract/orders", "/auth/x/y?z=1"])
def test_auth_and_every_path_that_starts_with_it_decide(contract: Contract, path: str) -> None:
    asked = {"Original-Request-Uri": "/contract/orders", "Original-Request-Method": "GET"}
    assert contract.get(path, headers=asked, token=contract.token()).status_code == 200
    assert contract.get(path, headers=asked).status_code == 401


@row("endpoint")
def test_envoy_appends_the_original_path(contract: Contract) -> None:
    url = contract.at(gateway_profile="envoy")
    assert contract.get("/auth/contract/orders", url=url, token=contract.token()).status_code == 200
    assert contract.get("/auth/contract/admin", url=url, token=contract.token()).status_code == 403


@row("input")
@pytest.mark.parametrize("missing", ["Original-Request-Uri", "Original-Request-Method"])
def test_original_request_uri_and_original_request_method_are_required(contract: Contract, missing: str) -> None:
    asked = {"Original-Request-Uri": "/contract/public", "Original-Request-Method": "GET"}
    del asked[missing]
    assert contract.get("/auth", headers=asked).status_code == 403


@row("input")
def test_client_type_and_isbackoffice_are_read_under_this_profile(contract: Contract) -> None:
    rule = [
        route("/contract/typed", expression='clientType == "mobile"'),
        route("/contract/office", expression="false", backoffice={"expression": "isBackoffice"}),
    ]
    contract.world.rule("contract-input", *rule)
    token = contract.token()
    assert contract.auth("/contract/typed", token=token).status_code == 403
    assert contract.auth("/contract/typed", token=token, Client_Type="mobile").status_code == 200
    assert contract.auth("/contract/office", token=token).status_code == 403
    assert contract.auth("/contract/office", token=token, isbackoffice="1").status_code == 200


@row("input")
def test_only_the_chosen_profiles_headers_are_read(contract: Contract) -> None:
    url = contract.at(gateway_profile="nginx")
    asked = {"Original-Request-Uri": "/contract/public", "Original-Request-Method": "GET"}
    assert contract.get("/auth", url=url, headers=asked).status_code == 403


@row("rules")
def test_a_file_of_the_reference_is_converted_by_a_command_and_decides_as_before(
    contract: Contract, tmp_path: Path
) -> None:
    configuration = {
        "/converted": {
            "ALL": {"authorization": {"expression": 'permissions["orders:read"]'}},
            "DELETE": {"authorization": {"expression": "permissions.admin"}},
        },
        "/converted/public": {"GET": {"authorization": {"public": True}}},
        "/converted/office": {
            "GET": {"authorization": {"expression": "false"}, "backofficeAuthorization": {"expression": "true"}}
        },
    }
    (tmp_path / "auth.json").write_text(json.dumps(configuration), encoding="utf-8")
    command = [str(Path(sys.executable).parent / "keyturn"), "convert", str(tmp_path / "auth.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    contract.world.apply(*made)
    for one in made:
        contract.world.objects.wait_for("accessrules", one["metadata"]["name"])
    token = contract.token()
    decided = {method: contract.auth("/converted/7", method=method, token=token).status_code for method in METHODS}
    assert decided == dict.fromkeys(METHODS, 200) | {"DELETE": 403}
    assert contract.auth("/converted/public").status_code == 200
    assert contract.auth("/converted/office", token=token).status_code == 403
    assert contract.auth("/converted/office", token=token, isbackoffice="1").status_code == 200


@row("match")
@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        pytest.param("/contract/orders/7", "GET", 200, id="a prefix on path segments"),
        pytest.param("/contract/orders-old", "GET", 403, id="no prefix of a segment"),
        pytest.param("/contract/orders?x=/contract/admin", "GET", 200, id="the query is ignored"),
        pytest.param("//contract///orders", "GET", 200, id="double slashes are tolerated"),
        pytest.param("/contract%2Forders", "GET", 403, id="an encoded slash: the strictest reading"),
        pytest.param("/contract/orders/open/x", "DELETE", 200, id="the more specific route wins"),
        pytest.param("/contract/orders", "POST", 200, id="a method's own rule"),
        pytest.param("/contract/orders", "PUT", 403, id="a method without a rule"),
    ],
)
def test_match(contract: Contract, target: str, method: str, status: int) -> None:
    assert contract.auth(target, method=method, token=contract.token()).status_code == status


@row("match")
def test_an_encoded_slash_is_tolerated_where_each_reading_is_allowed(contract: Contract) -> None:
    assert contract.auth("/contract/orders/a%2Fb", token=contract.token()).status_code == 200


@row("match")
def test_a_methods_rule_overrides_all_for_that_method_and_path_only(contract: Contract) -> None:
    rules = [
        route("/contract/override", expression="permissions.admin"),
        route("/contract/override", "GET", expression='permissions["orders:read"]'),
    ]
    contract.world.rule("contract-override", *rules)
    token = contract.token()
    decided = {
        method: contract.auth("/contract/override", method=method, token=token).status_code for method in METHODS
    }
    assert decided == dict.fromkeys(METHODS, 403) | {"GET": 200}


EXPRESSIONS: dict[str, tuple[str, int]] = {
    "groups.x": ("groups.x", 403),
    "permissions.x": ("permissions.admin", 403),
    'permissions["a:b"]': ('permissions["orders:read"]', 200),
    '"x" in permissions': ('"orders:write" in permissions', 200),
    '["a","b"] in permissions, any of them': ('["admin", "orders:read"] in permissions', 200),
    'clientType == "x"': ('clientType == "batch"', 200),
    "isBackoffice": ("isBackoffice", 403),
    "userProperties": ('userProperties.plan == "gold"', 403),
    "and": ('permissions["orders:read"] && permissions.admin', 403),
    "or": ('permissions["orders:read"] || permissions.admin', 200),
    "not": ("!permissions.admin", 200),
    "parentheses": ('!(permissions.admin || permissions["orders:read"])', 403),
    "true": ("true", 200),
    "false": ("false", 403),
}


@row("expression")
def test_each_form_of_an_expression_means_what_it_means_in_the_reference(contract: Contract) -> None:
    routes = [route(f"/contract/expression/{n}", expression=text) for n, (text, _) in enumerate(EXPRESSIONS.values())]
    contract.world.rule("contract-expression", *routes)
    token = contract.token()
    decided = {
        name: contract.auth(f"/contract/expression/{n}", token=token, Client_Type="batch").status_code
        for n, name in enumerate(EXPRESSIONS)
    }
    assert decided == {name: status for name, (_, status) in EXPRESSIONS.items()}


@row("expression")
def test_an_error_in_an_expression_stands_in_the_status_with_its_position(contract: Contract) -> None:
    broken = manifest("AccessRule", "contract-broken", {"routes": [route("/contract/broken", expression="a && (")]})
    contract.world.apply(broken)
    condition = contract.world.objects.wait_for("accessrules", "contract-broken", "False", reason="InvalidExpression")
    assert "column" in condition["message"] or "position" in condition["message"], condition["message"]


@row("who is asking")
def test_keyturns_own_tokens_need_no_hop_and_name_their_client(contract: Contract) -> None:
    answer = contract.auth("/contract/orders", token=contract.token())
    assert (answer.status_code, answer.headers["mia-clientid"]) == (200, contract.client.client_id)


class Userinfo(BaseHTTPRequestHandler):
    """A service of users: it knows one cookie and one token."""

    asked: ClassVar[list[dict[str, str]]] = []
    user: ClassVar[dict[str, Any]] = {
        "userId": "u-7",
        "rights": ["users:read"],
        "groups": ["staff"],
        "plan": "gold",
    }

    def do_GET(self) -> None:
        self.asked.append({name.lower(): value for name, value in self.headers.items()})
        known = self.headers.get("Cookie") == "sid=known" or self.headers.get("Authorization") == "Bearer foreign"
        body = json.dumps(self.user if known else {}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture(scope="module")
def userinfo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Userinfo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/userinfo"
    server.shutdown()
    thread.join(10)
    server.server_close()


@row("who is asking")
def test_a_call_to_userinfo_url_with_the_headers_to_proxy_tells_who_is_asking(
    contract: Contract, userinfo: str
) -> None:
    rules = [
        route("/contract/users", expression='permissions["users:read"] && userProperties.plan == "gold"'),
        route("/contract/staff", expression="groups.staff"),
    ]
    contract.world.rule("contract-users", *rules)
    keys = {"permissions_key": "rights", "user_id_key": "userId", "user_properties": "plan"}
    url = contract.at(userinfo_url=userinfo, authorization_headers_to_proxy="authorization,cookie", **keys)
    by_cookie = contract.auth("/contract/users", url=url, Cookie="sid=known")
    assert (by_cookie.status_code, by_cookie.headers["mia-userid"]) == (200, "u-7")
    assert by_cookie.headers["mia-groups"] == "staff"
    assert contract.auth("/contract/staff", url=url, token="foreign").status_code == 200
    assert contract.auth("/contract/users", url=url, Cookie="sid=other").status_code == 401
    # The reference asks nobody where no such header is there; for Keyturn's own tokens nobody is asked either.
    asked = len(Userinfo.asked)
    assert contract.auth("/contract/users", url=url).status_code == 401
    assert contract.auth("/contract/orders", url=url, token=contract.token()).status_code == 200
    assert len(Userinfo.asked) == asked


@row("trusted headers mode")
def test_trusted_headers_count_by_a_setting_from_trusted_peers_with_a_warning_in_the_log(contract: Contract) -> None:
    rule = route("/contract/trusted", expression="groups.staff")
    contract.world.rule("contract-trusted", rule)
    identity = {"mia_userid": "u-7", "mia_groups": "staff"}
    assert contract.auth("/contract/trusted", **identity).status_code == 401
    given = {"trust_user_headers": "true", "trusted_peers": "127.0.0.0/8"}
    answer = contract.auth("/contract/trusted", url=contract.at(**given), **identity)
    assert (answer.status_code, answer.headers["mia-userid"]) == (200, "u-7")
    log = contract.started[tuple(sorted(given.items()))].output()
    assert any('"level":"warning"' in line and "trust" in line for line in log.splitlines()), log
    elsewhere = contract.at(trust_user_headers="true", trusted_peers="192.0.2.0/24")
    assert contract.auth("/contract/trusted", url=elsewhere, **identity).status_code == 401


@row("answers, strict")
def test_200_401_and_403_with_the_allowed_header(contract: Contract) -> None:
    token = contract.token()
    told = {
        "allowed": contract.auth("/contract/orders", token=token),
        "public": contract.auth("/contract/public"),
        "not logged in": contract.auth("/contract/orders"),
        "permissions don't suffice": contract.auth("/contract/admin", token=token),
        "no route matches": contract.auth("/contract-unknown", token=token),
    }
    assert {name: (one.status_code, one.headers["mia-allowed"]) for name, one in told.items()} == {
        "allowed": (200, "1"),
        "public": (200, "1"),
        "not logged in": (401, "0"),
        "permissions don't suffice": (403, "0"),
        "no route matches": (403, "0"),
    }


@row("answers, strict")
def test_a_setting_restores_the_references_answer_where_no_route_matches(contract: Contract) -> None:
    url = contract.at(unknown_route="reference")
    unknown = contract.auth("/contract-unknown", url=url)
    assert (unknown.status_code, unknown.headers["mia-allowed"]) == (200, "0")
    assert contract.auth("/contract/orders", url=url).status_code == 401


@row("answers, not strict")
def test_by_a_setting_the_answer_is_always_200_with_0_or_1(contract: Contract) -> None:
    url = contract.at(strict_mode="false")
    token = contract.token()
    asked: dict[str, dict[str, Any]] = {
        "/contract/orders": {"token": token},
        "/contract/admin": {"token": token},
        "/contract/public": {},
        "/contract-unknown": {},
        "/contract/orders?": {},
    }
    told = [contract.auth(target, url=url, **how) for target, how in asked.items()]
    assert [one.status_code for one in told] == [200] * 5
    assert [one.headers["mia-allowed"] for one in told] == ["1", "0", "1", "0", "0"]


@row("headers to the upstream")
@pytest.mark.parametrize(("setting", "prefix"), [({}, "mia-"), ({"header_prefix": "shop-"}, "shop-")])
def test_userid_groups_and_userproperties_by_a_prefix(contract: Contract, setting: dict[str, str], prefix: str) -> None:
    answer = contract.auth("/contract/orders", token=contract.token(), url=contract.at(**setting))
    names = {name for name in answer.headers if name.startswith(prefix)}
    assert names == {f"{prefix}{name}" for name in ("allowed", "userid", "clientid", "groups", "userproperties")}
    assert answer.headers[f"{prefix}userid"] == contract.client.client_id
