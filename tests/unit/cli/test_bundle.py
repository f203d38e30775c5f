"""`keyturn bundle`: what is in it, that Secrets' data is never asked for, and that nothing is written where a secret is found."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

from keyturn_cli import secret_scan
from keyturn_cli.commands import bundle, doctor
from keyturn_cli.secret_scan import scan, works
from keyturn_cli.support import LEFT_OUT, without_secrets
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
        pytest.param("Secret x: expected the member client_secret, found: password, user", id="a condition's message"),
    ],
)
def test_what_is_no_secret_is_none(text: str) -> None:
    assert scan({"log": text}) == []


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
    env = [
        {"name": "KEYTURN_STORE_PASSWORD", "value": "hidden"},
        {"name": "KEYTURN_STORE_URL", "value": "postgresql://keyturn:hidden@db/k"},
        {"name": "KEYTURN_REGISTRATION_TOKENS_DIRECTORY", "value": "/var/run/tokens"},
    ]
    copied = {"kubectl.kubernetes.io/last-applied-configuration": "hidden", "mine": "stays"}
    kept = without_secrets(
        {
            "metadata": {"name": "x", "annotations": copied, "managedFields": []},
            "data": {"a": "hidden"},
            "spec": {"env": env},
        }
    )
    assert kept["metadata"] == {"name": "x", "annotations": {"mine": "stays"}}
    assert [one["value"] for one in kept["spec"]["env"]] == [
        LEFT_OUT,
        f"postgresql://keyturn:{LEFT_OUT}@db/k",
        "/var/run/tokens",
    ]
    assert "hidden" not in str(kept)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    made = FakeCluster()
    for module in (bundle, doctor):
        monkeypatch.setattr(module, "open_kube", made.open)
    monkeypatch.chdir(tmp_path)
    made.add("clientcredentials", "billing", permissions=["orders:read"])
    pod = {"metadata": {"name": "api-0"}, "spec": {"containers": [{"name": "api"}]}}
    made.answers["GET", "/version"] = (200, {"gitVersion": "v1.34.0"})
    made.answers["GET", f"{CORE}/pods"] = (200, {"kind": "PodList", "apiVersion": "v1", "items": [pod]})
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
