"""`keyturn bundle`: what is in it, that Secrets' data is never asked for, and that nothing is written where a secret is found."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from keyturn_cli import secret_scan
from keyturn_cli.commands import bundle, doctor
from keyturn_cli.redaction import LEFT_OUT, without_secrets
from keyturn_cli.secret_scan import scan, works
from keyturn_cli.support import LOG_BYTES
from tests.manifests import private_jwk_members, private_pem, public_jwk, public_pem

from .cluster import FakeCluster
from .command import keyturn

TOKEN = ".".join(("ey" + "A" * 20, "ey" + "B" * 20, "C" * 40))
CORE = "/api/v1/namespaces/shop"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param(private_pem(), "a private key in PEM", id="PEM"),
        pytest.param(base64.b64encode(private_pem().encode()).decode(), "a private key in base64", id="PEM in base64"),
        pytest.param(str({"d": private_jwk_members()["d"]}), "a private JWK", id="JWK"),
        pytest.param('{\\"d\\": \\"' + "A" * 43 + '\\"}', "a private JWK", id="JWK in a JSON text"),
        pytest.param(f"token {TOKEN}", "a token", id="token"),
        pytest.param("authorization: Bearer " + "x" * 40, "an Authorization header", id="Bearer"),
        pytest.param("Authorization: Basic dXNlcjpwYXNzd29yZA==", "an Authorization header", id="Basic"),
        pytest.param("$2b$12$" + "a" * 53, "the hash of a secret", id="bcrypt"),
        pytest.param("postgresql://keyturn:hidden@db/keyturn", "a URL with a password", id="URL"),
        pytest.param("client_secret: hidden-value", "a secret's value", id="YAML"),
        pytest.param('{"client_secret":"hidden-value"}', "a secret's value", id="JSON"),
        pytest.param("- --api-key=hidden-value", "a secret's value", id="an option"),
        pytest.param("DB_PASSWORD=hidden-value", "a secret's value", id="a variable"),
        pytest.param("aws_secret_access_key: hidden-value", "a secret's value", id="a key by its name"),
        pytest.param("charged with " + "sk_" + "live_" + "0" * 24, "a key of another service", id="a key by its form"),
    ],
)
def test_each_kind_of_secret_is_found_and_not_repeated(text: str, kind: str) -> None:
    found = scan({"log": f"first\n{text}"})
    assert kind in {one.kind for one in found}
    assert found[0].line == 2
    assert "hidden" not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(public_pem(), id="a public key"),
        pytest.param(str(public_jwk("k1")), id="a public JWK"),
        pytest.param("spec.clientSecret.secretName: billing", id="the name of a Secret"),
        pytest.param("authMethod: client_secret_basic", id="the name of a method"),
        pytest.param('WWW-Authenticate: Bearer error="invalid_token"', id="a challenge"),
        pytest.param("https://tokens.example.org:8443/a@b", id="a URL with a port"),
        pytest.param("--password=$(POSTGRES_PASSWORD)", id="a reference to a variable"),
        pytest.param("KEYTURN_SIGNING_KEY: keyturn-signing", id="a SigningKey's name"),
        pytest.param("name: STRIPE_API_KEY\n  value: (left out)", id="a variable that was left out"),
        pytest.param("name: TLS_PRIVATE_API_KEY\n  value: /etc/tls.key", id="a file's name"),
        pytest.param("Secret x: expected the member client_secret, found: password, user", id="a condition's message"),
    ],
)
def test_what_is_no_secret_is_none(text: str) -> None:
    assert scan({"log": text}) == []


def test_a_variable_with_its_value_on_the_next_line_is_found() -> None:
    assert [one.line for one in scan({"pods": "- name: STRIPE_API_KEY\n  value: hidden-value"})] == [2]


@pytest.mark.parametrize(
    "text",
    ["a." * 200_000, "x" * 400_000, "pass-" * 80_000, "ey-" * 100_000, "\\" * 300_000, "d:" * 200_000, "=" * 300_000],
    ids=["dots", "letters", "names", "tokens", "backslashes", "members", "signs"],
)
def test_long_lines_are_looked_through_in_no_time(text: str) -> None:
    began = time.process_time()
    scan({"log": text})
    without_secrets({"metadata": {"name": "x", "annotations": {"a": text}}})
    assert time.process_time() - began < 10


def test_a_known_value_is_found_as_it_is_and_in_base64() -> None:
    value = b"correct horse battery"
    files = {"a": "x correct horse battery x", "b": base64.b64encode(value).decode(), "c": "nothing"}
    assert [one.file for one in scan(files, [value])] == ["a", "b"]


def test_the_scan_is_asked_whether_it_works(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster) -> None:
    assert works()
    monkeypatch.setattr(secret_scan, "PATTERNS", {})
    assert not works()
    assert keyturn("bundle").exit_code == 1
    assert cluster.requests == []


def test_objects_lose_data_copies_of_themselves_and_passwords() -> None:
    copied = {"kubectl.kubernetes.io/last-applied-configuration": "hidden", "mine": "stays"}
    metadata = {"name": "x", "annotations": copied, "managedFields": []}
    kept = without_secrets({"metadata": metadata, "data": {"a": "hidden"}, "spec": {"a": 1}})
    assert kept == {"metadata": {"name": "x", "annotations": {"mine": "stays"}}, "spec": {"a": 1}}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        pytest.param("KEYTURN_STORE_PASSWORD", "hidden", LEFT_OUT, id="our password"),
        pytest.param("KEYTURN_STORE_PASSWORD", "123456", LEFT_OUT, id="a password of digits"),
        pytest.param(
            "KEYTURN_STORE_URL",
            "postgresql://keyturn:hidden@db/k",
            f"postgresql://keyturn:{LEFT_OUT}@db/k",
            id="a password in a URL",
        ),
        pytest.param("KEYTURN_REGISTRATION_TOKENS_DIRECTORY", "/run/tokens", "/run/tokens", id="a directory"),
        pytest.param("KEYTURN_MAX_TOKEN_LIFETIME", "86400", "86400", id="a time"),
        pytest.param("KEYTURN_SIGNING_KEY", "keyturn", "keyturn", id="the SigningKey's name"),
        pytest.param("KEYTURN_ISSUER", "https://auth.x:8443/t", "https://auth.x:8443/t", id="a port of auth"),
        pytest.param("STRIPE_API_KEY", "hidden", LEFT_OUT, id="a key of others"),
        pytest.param("DB_PASS", "hidden", LEFT_OUT, id="a pass of others"),
        pytest.param("REDIS_AUTH", "hidden", LEFT_OUT, id="others' auth"),
        pytest.param("GREETING", "hidden", LEFT_OUT, id="what others call so that nobody knows"),
        pytest.param("TZ", "Europe/Rome", "Europe/Rome", id="what everybody knows"),
    ],
)
def test_of_variables_only_those_are_shown_that_hold_nothing_secret(name: str, value: str, shown: str) -> None:
    containers = [{"name": "x", "env": [{"name": name, "value": value}]}]
    for kept in (
        without_secrets({"metadata": {}, "spec": {"containers": containers}}),
        without_secrets({"metadata": {}, "spec": {"initContainers": containers}}),
    ):
        assert next(iter(kept["spec"].values()))[0]["env"] == [{"name": name, "value": shown}]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        pytest.param(["--api-key=hidden"], [f"--api-key={LEFT_OUT}"], id="one word"),
        pytest.param(["--token", "hidden", "run"], ["--token", LEFT_OUT, "run"], id="two words"),
        pytest.param(["--auth", "--port=80"], ["--auth", "--port=80"], id="a switch"),
        pytest.param(["sh", "-c", "DB_PASS=hidden x"], ["sh", "-c", f"DB_PASS={LEFT_OUT} x"], id="in a shell's words"),
        pytest.param(["--url=http://keyturn-api:80", "-x", 1], ["--url=http://keyturn-api:80", "-x", 1], id="none"),
        pytest.param(["--url=http://a:hidden@b"], [f"--url=http://a:{LEFT_OUT}@b"], id="in a URL"),
    ],
)
@pytest.mark.parametrize("field", ["args", "command"])
def test_a_command_line_loses_its_secrets(field: str, words: list[Any], shown: list[Any]) -> None:
    assert without_secrets({"metadata": {}, "spec": {"containers": [{field: words}]}})["spec"]["containers"] == [
        {field: shown}
    ]


def test_annotations_and_headers_lose_them_and_ours_stay() -> None:
    annotations = {"x.example/api-key": "hidden", "x.example/args": '{"token":"hidden"}', "keyturn.dev/rotate": "now"}
    headers = [{"name": "X-Api-Key", "value": "hidden"}, {"name": "X-Plain", "value": "shown"}]
    kept = without_secrets({"metadata": {"annotations": annotations}, "spec": {"httpHeaders": headers}})
    assert "hidden" not in str(kept)
    assert kept["metadata"]["annotations"]["keyturn.dev/rotate"] == "now"
    assert kept["spec"]["httpHeaders"][1]["value"] == "shown"


def pod(name: str, part: str, *containers: Any, chart: str = "keyturn-1.0.0", **env: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": part, "helm.sh/chart": chart}
    variables = [{"name": variable, "value": value} for variable, value in env.items()]
    own = {"name": part, "env": variables}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [own, *containers]}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    made = FakeCluster()
    for module in (bundle, doctor):
        monkeypatch.setattr(module, "open_kube", made.open)
    monkeypatch.chdir(tmp_path)
    made.add("clientcredentials", "billing", permissions=["orders:read"])
    made.answers["GET", "/version"] = (200, {"gitVersion": "v1.34.0"})
    made.answers["GET", f"{CORE}/pods"] = (200, {"kind": "PodList", "apiVersion": "v1", "items": [pod("api-0", "api")]})
    made.answers["GET", f"{CORE}/pods/api-0/log"] = (200, "a line of the log\n")
    made.answers["GET", f"{CORE}/secrets"] = secrets
    return made


def secrets(request: httpx2.Request) -> httpx2.Response:
    record = {"keyturn.dev/record": "$2b$12$" + "a" * 53}
    one: dict[str, Any] = {"metadata": {"name": "billing-secret", "annotations": record}}
    if "PartialObjectMetadataList" not in request.headers["Accept"]:
        one["data"] = {"client_secret": base64.b64encode(b"the-value-itself").decode()}
    return httpx2.Response(200, json={"items": [one]})


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes()), mode="r:gz") as tar:
        return {entry.name: (tar.extractfile(entry) or io.BytesIO()).read().decode() for entry in tar}


def test_the_archive_holds_what_helps_and_of_secrets_only_names(cluster: FakeCluster, tmp_path: Path) -> None:
    result = keyturn("bundle", "--out", "support.tar.gz")
    assert (result.exit_code, result.stdout) == (0, "support.tar.gz\n"), result.stderr
    files = unpacked(tmp_path / "support.tar.gz")
    assert "orders:read" in files["keyturn-shop/objects/clientcredentials.yaml"]
    assert "billing-secret" in files["keyturn-shop/objects/secrets.yaml"]
    assert "keyturn.dev/record" in files["keyturn-shop/objects/secrets.yaml"]
    assert files["keyturn-shop/logs/api-0-api.log"] == "a line of the log\n"
    assert "v1.34.0" in files["keyturn-shop/versions.json"]
    assert '"check": "CRDs"' in files["keyturn-shop/doctor.json"]
    assert "events" in files["keyturn-shop/unread.json"]
    assert (tmp_path / "support.tar.gz").stat().st_mode & 0o777 == 0o600
    asked = [one for one in cluster.requests if one.url.path.endswith("/secrets")]
    assert all("PartialObjectMetadataList" in one.headers["Accept"] for one in asked)
    assert keyturn("bundle", "--out", "support.tar.gz").exit_code == 1


@pytest.mark.parametrize(
    "planted", [private_pem(), TOKEN, "client_secret=hidden-value"], ids=["key", "token", "secret"]
)
def test_nothing_is_written_where_a_secret_was_planted(cluster: FakeCluster, tmp_path: Path, planted: str) -> None:
    cluster.answers["GET", f"{CORE}/pods/api-0/log"] = (200, f"a line\n{planted}\n")
    result = keyturn("bundle", "--out", "support.tar.gz")
    assert result.exit_code == 1
    assert "logs/api-0-api.log, line 2" in result.stderr
    assert planted not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_secrets_own_value_is_found_when_it_is_compared(cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "own.log").write_text("somebody wrote the-value-itself here\n", "utf-8")
    arguments = ("bundle", "--out", "support.tar.gz", "--log", "own.log")
    assert keyturn(*arguments, "--compare-secrets").exit_code == 1
    assert keyturn(*arguments).exit_code == 0


def listed(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"metadata": {"name": name}, **more} for name in names]


def test_what_others_have_in_the_namespace_is_not_taken_along(cluster: FakeCluster, tmp_path: Path) -> None:
    """Neither their objects and logs, nor what a sidecar in our pod writes."""
    labels = {"app.kubernetes.io/component": "api", "helm.sh/chart": "keyturn-1.0.0"}
    spec = {"template": {"spec": {"volumes": [{"secret": {"secretName": "keyturn-tls"}}], "containers": []}}}
    ours = {"metadata": {"name": "keyturn-api", "labels": labels}, "spec": spec}
    foreign = pod("stripe-7", "api", chart="stripe-1.0", STRIPE_API_KEY="hidden-value")
    sidecar = {"name": "sidecar", "env": [{"name": "DB_PASS", "value": "hidden-value"}]}
    apps = "/apis/apps/v1/namespaces/shop"
    cluster.add("clientcredentials", "orders", clientSecret={"secretName": "orders-secret"})
    events = [
        {"metadata": {"name": "a"}, "involvedObject": {"kind": "Pod", "name": "keyturn-api-5d-x"}},
        {"metadata": {"name": "b"}, "involvedObject": {"apiVersion": "keyturn.dev/v1alpha1", "name": "orders"}},
        {"metadata": {"name": "stripe-c"}, "involvedObject": {"kind": "Pod", "name": "stripe-7"}},
    ]
    secret_names = ("orders-secret", "keyturn-tls", "stripe-secret")
    leases = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"
    cluster.answers |= {
        ("GET", f"{apps}/deployments"): (200, {"items": [ours, *listed("stripe", spec={})]}),
        ("GET", f"{apps}/statefulsets"): (200, {"items": listed("stripe-db", spec={})}),
        ("GET", f"{CORE}/pods"): (
            200,
            {"items": [pod("api-0", "api", sidecar), foreign, pod("operator-0", "operator")]},
        ),
        ("GET", f"{CORE}/events"): (200, {"items": events}),
        ("GET", f"{CORE}/secrets"): (200, {"items": listed(*secret_names)}),
        ("GET", leases): (200, {"items": listed("keyturn-operator", "stripe-leader")}),
        ("GET", f"{CORE}/pods/operator-0:8081/proxy/metrics"): (200, "keyturn_operator_objects 1\n"),
    }
    result = keyturn("bundle", "--out", "support.tar.gz")
    assert result.exit_code == 0, result.stderr
    files = {name.partition("/")[2]: text for name, text in unpacked(tmp_path / "support.tar.gz").items()}
    everything = "".join(files.values())
    assert "stripe" not in everything.lower()
    assert "hidden-value" not in everything
    for name in ("orders-secret", "keyturn-tls"):
        assert name in files["objects/secrets.yaml"]
    assert "keyturn-api-5d-x" in files["events.yaml"]
    assert "name: orders" in files["events.yaml"]
    assert "keyturn-operator" in files["objects/leases.yaml"]
    assert files["metrics/operator-0.txt"] == "keyturn_operator_objects 1\n"
    asked = [one.url.path for one in cluster.requests]
    assert f"{CORE}/pods/api-0/log" in asked
    assert not [path for path in asked if "stripe" in path]
    assert not [one for one in cluster.requests if one.url.params.get("container") == "sidecar"]


def test_of_a_long_log_the_end_is_taken_and_it_says_so(cluster: FakeCluster, tmp_path: Path) -> None:
    """The newest lines are those that are wanted."""
    line = "x" * 99 + "\n"
    cluster.answers["GET", f"{CORE}/pods/api-0/log"] = (200, "the first\n" + line * 20_000 + "the last\n")
    assert keyturn("bundle", "--out", "support.tar.gz").exit_code == 0
    files = unpacked(tmp_path / "support.tar.gz")
    log = files["keyturn-shop/logs/api-0-api.log"]
    assert len(log) == LOG_BYTES
    assert log.endswith("the last\n")
    assert "logs/api-0-api.log" in json.loads(files["keyturn-shop/unread.json"])
