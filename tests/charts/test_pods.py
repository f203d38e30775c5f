"""What the pods of an installation get from its values."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import SecretStr

from keyturn.tokens.issuers import parse_issuers
from keyturn_api.settings import ApiSettings
from tests.charts.rendering import CHARTS, deployed, environment, objects, render_values, run_helm
from tests.documents import PROJECT, blocks

# The first one waits for Helm where that has to be built.
pytestmark = pytest.mark.timeout(1500)


def test_a_number_of_a_values_file_reaches_the_program_as_it_was_written(tmp_path: Path) -> None:
    """Helm reads the numbers of a file as floats, unlike those of `--set`."""
    numbers = {"KEYTURN_MAX_BODY_BYTES": 1048576, "KEYTURN_MAX_TOKEN_LIFETIME": 2592000, "KEYTURN_TRACES_RATIO": 0.25}
    values = {
        "api": {"settings": numbers},
        "operator": {"settings": {"KEYTURN_OPERATOR_KEYS_EXPIRING_WITHIN": 12096000}},
        "postgresql": {"user": 1000680000},
    }
    rendered = render_values(tmp_path, values)
    assert {name: environment(rendered, "keyturn-api")[name] for name in numbers} == {
        "KEYTURN_MAX_BODY_BYTES": "1048576",
        "KEYTURN_MAX_TOKEN_LIFETIME": "2592000",
        "KEYTURN_TRACES_RATIO": "0.25",
    }
    operator = environment(rendered, "keyturn-operator")
    assert operator["KEYTURN_MAX_TOKEN_LIFETIME"] == "2592000"
    assert operator["KEYTURN_OPERATOR_KEYS_EXPIRING_WITHIN"] == "12096000"
    assert "runAsUser: 1000680000\n" in rendered


def test_a_new_version_of_the_chart_starts_the_programs_anew_and_not_the_database(tmp_path: Path) -> None:
    shutil.copytree(CHARTS / "keyturn", tmp_path / "next")
    chart = tmp_path / "next" / "Chart.yaml"
    described = yaml.safe_load(chart.read_text(encoding="utf-8"))
    chart.write_text(yaml.safe_dump({**described, "version": "99.0.0", "appVersion": "99.0.0"}), encoding="utf-8")
    before = render_values(tmp_path, {})
    after = render_values(tmp_path, {"commonLabels": {"team": "shop"}}, chart=tmp_path / "next")

    def template(rendered: str, name: str) -> Any:
        return deployed(rendered, name)["spec"]["template"]

    assert template(after, "keyturn-postgresql") == template(before, "keyturn-postgresql")
    assert template(after, "keyturn-api") != template(before, "keyturn-api")


def test_the_operator_has_what_both_parts_must_have_alike() -> None:
    options = (
        "--set",
        "api.settings.KEYTURN_MAX_TOKEN_LIFETIME=172800",
        "--set",
        "api.settings.KEYTURN_BCRYPT_COST=13",
    )
    own = ("--set", "operator.settings.KEYTURN_BCRYPT_COST=12", "--set", "issuer=https://a.example")
    database = ("--set", "postgresql.auth.existingSecret=database")
    done = run_helm("template", "keyturn", str(CHARTS / "keyturn"), *options, *own, *database)
    assert done.returncode == 0, done.stderr
    (operator,) = [
        one
        for one in objects(done.stdout)
        if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-operator")
    ]
    listed = [(one["name"], one.get("value")) for one in operator["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert ("KEYTURN_MAX_TOKEN_LIFETIME", "172800") in listed
    assert [value for name, value in listed if name == "KEYTURN_BCRYPT_COST"] == ["12"], "once, and its own goes first"
    assert "KEYTURN_TOKEN_LIFETIME" not in dict(listed)


@pytest.mark.parametrize(
    ("values", "prefix"),
    [
        pytest.param({}, None, id="a URL without a path"),
        pytest.param({"issuer": "https://a.example/tenant/"}, "/tenant", id="an issuer with a path"),
        pytest.param(
            {"issuer": "https://a.example/tenant", "publicUrl": "https://b.example/x/y"},
            "/x/y",
            id="a public URL's path",
        ),
        pytest.param(
            {"issuer": "https://a.example/tenant", "publicUrl": "https://b.example"},
            None,
            id="a public URL without one",
        ),
        pytest.param({"api": {"settings": {"KEYTURN_SERVICE_PREFIX": "/own/"}}}, "/own", id="one of the user's own"),
        pytest.param(
            {"issuer": "https://a.example/tenant", "api": {"settings": {"KEYTURN_SERVICE_PREFIX": ""}}},
            None,
            id="none, where a proxy takes it away",
        ),
    ],
)
def test_both_programs_serve_under_the_path_that_callers_are_told(
    values: dict[str, Any], prefix: str | None, tmp_path: Path
) -> None:
    rendered = render_values(tmp_path, values)
    for name in ("keyturn-api", "keyturn-operator"):
        assert environment(rendered, name).get("KEYTURN_SERVICE_PREFIX") == prefix


@pytest.mark.parametrize("kind", ["ingress", "httpRoute"])
@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"issuer": "https://a.example/tenant"}, id="an issuer with a path"),
        pytest.param({"publicUrl": "https://b.example/x"}, id="a public URL with one"),
        pytest.param({"api": {"settings": {"KEYTURN_SERVICE_PREFIX": "/own"}}}, id="a prefix"),
    ],
)
def test_the_token_endpoint_is_published_where_callers_are_told(
    kind: str, values: dict[str, Any], tmp_path: Path
) -> None:
    rendered = render_values(tmp_path, {**values, kind: {"enabled": True}})
    told = environment(rendered, "keyturn-api")
    settings = ApiSettings(
        issuer=told["KEYTURN_ISSUER"] or "",
        public_url=told.get("KEYTURN_PUBLIC_URL"),
        service_prefix=told.get("KEYTURN_SERVICE_PREFIX") or "",
        store_url=SecretStr("memory://"),
    )
    (route,) = (one for one in objects(rendered) if one["kind"] in ("Ingress", "HTTPRoute"))
    published = re.findall(r'"(?:path|value)": "(/[^"]*)"', json.dumps(route))
    assert urlsplit(settings.token_endpoint).path in published
    assert f"{settings.service_prefix}/oauth/token" in published


def test_trusted_issuers_come_as_a_file_that_the_api_can_read(tmp_path: Path) -> None:
    (shown,) = [one.text for one in blocks(PROJECT / "docs" / "access-rules.md") if one.text.startswith("issuers:")]
    issuers = yaml.safe_load(shown)["issuers"]
    rendered = render_values(tmp_path, {"api": {"trustedIssuers": issuers}})
    (made,) = [
        one for one in objects(rendered) if one["kind"] == "ConfigMap" and one["metadata"]["name"].endswith("-issuers")
    ]
    pod = deployed(rendered, "keyturn-api")["spec"]["template"]["spec"]
    (volume,) = [one for one in pod["volumes"] if one.get("configMap", {}).get("name") == made["metadata"]["name"]]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == volume["name"]]
    assert "subPath" not in mount, "only a whole directory changes"
    directory, _, member = str(environment(rendered, "keyturn-api")["KEYTURN_TRUSTED_ISSUERS_FILE"]).rpartition("/")
    assert directory == mount["mountPath"]
    parsed = parse_issuers(yaml.safe_load(made["data"][member]), own_issuer="https://tokens.shop.example")
    assert [one.issuer for one in parsed] == ["https://login.example"]
    # An edit is read anew; it starts no pod.
    edited = render_values(tmp_path, {"api": {"trustedIssuers": [{**issuers[0], "audiences": ["other"]}]}})
    for name in ("keyturn-api", "keyturn-operator"):
        assert deployed(edited, name) == deployed(rendered, name)


def test_whoever_may_reach_the_api_helm_test_may(tmp_path: Path) -> None:
    rendered = objects(render_values(tmp_path, {"networkPolicy": {"apiFrom": [{"podSelector": {}}]}}))
    (policy,) = [one for one in rendered if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "keyturn-api"]
    (test,) = [one["metadata"]["labels"] for one in rendered if one["kind"] == "Pod"]
    peers = [one["podSelector"].get("matchLabels", {}) for one in policy["spec"]["ingress"][0]["from"]]
    assert [peer for peer in peers if peer and peer.items() <= test.items()]


def test_helm_test_knows_the_certificate_and_never_the_key(tmp_path: Path) -> None:
    rendered = objects(render_values(tmp_path, {"api": {"tls": {"secretName": "api-tls"}}}))
    (pod,) = [one["spec"] for one in rendered if one["kind"] == "Pod"]
    url, _, certificate = pod["containers"][0]["args"]
    assert url.startswith("https://")
    (volume,) = [one for one in pod["volumes"] if one["secret"]["secretName"] == "api-tls"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == volume["name"]]
    (item,) = volume["secret"]["items"]
    assert item["key"] == "tls.crt"
    assert certificate == f"{mount['mountPath']}/{item['path']}"
