"""The client of the Kubernetes API: where it is, what a failure means, that nothing leaks."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from keyturn_api.kubernetes import (
    Conflict,
    Kubernetes,
    KubernetesError,
    NotConfigured,
    Refused,
    Unreachable,
    find_access,
    path,
)
from tests.unit.api.kubernetes_api import KubernetesApi, status

SECRETS = "/api/v1/namespaces/team/secrets"


@pytest.fixture
def api(tmp_path: Path) -> KubernetesApi:
    return KubernetesApi(tmp_path)


def pod(tmp_path: Path) -> Path:
    for name, content in (("token", "t"), ("ca.crt", "c"), ("namespace", "team\n")):
        (tmp_path / name).write_text(content)
    return tmp_path


def find(directory: Path, environ: dict[str, str] | None = None, **given: Any) -> Any:
    unset = {"url": None, "token_file": None, "ca_file": None, "namespace": None}
    return find_access(**{**unset, **given}, environ=environ or {}, directory=directory)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"},
            "https://10.96.0.1:443",
            id="IPv4",
        ),
        pytest.param({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "https://[fd00::1]:443", id="IPv6, no port told"),
    ],
)
def test_a_pod_needs_no_settings(environ: dict[str, str], url: str, tmp_path: Path) -> None:
    found = find(pod(tmp_path), environ)
    assert (found.url, found.namespace, found.token_file, found.ca_file) == (
        *(url, "team", tmp_path / "token", tmp_path / "ca.crt"),
    )


def test_settings_go_before_what_the_pod_has(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("t")
    found = find(pod(tmp_path), url="https://api/", token_file=own, ca_file=own, namespace="other")
    assert (found.url, found.namespace, found.token_file, found.ca_file) == ("https://api", "other", own, own)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        pytest.param({}, "KEYTURN_KUBERNETES_URL", id="nowhere to call"),
        pytest.param({"url": "https://api"}, "token", id="nothing to show"),
    ],
)
def test_outside_of_a_pod_what_is_missing_is_named(given: dict[str, Any], missing: str, tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match=missing):
        find(tmp_path, **given)


def test_a_token_without_a_namespace_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    with pytest.raises(NotConfigured, match="KEYTURN_NAMESPACE"):
        find(tmp_path, url="https://api")


async def test_the_token_is_read_again_when_its_file_changes(api: KubernetesApi) -> None:
    api.answers["POST", SECRETS] = lambda body: body
    client = api.client()
    await client.create(SECRETS, {})
    renewed = api.token_file.with_name("renewed")
    renewed.write_text("next-token")
    renewed.replace(api.token_file)
    await client.create(SECRETS, {})
    await client.close()
    assert [headers["authorization"] for headers in api.headers] == ["Bearer own-token", "Bearer next-token"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(httpx2.ConnectError("secret-words"), Unreachable, id="no connection"),
        pytest.param(httpx2.ReadTimeout("secret-words"), Unreachable, id="no answer in time"),
        pytest.param(status(500, "InternalError"), Unreachable, id="a failure of its own"),
        pytest.param(status(429, "TooManyRequests"), Unreachable, id="too many requests"),
        pytest.param(httpx2.Response(404, text="<html>"), Unreachable, id="a page of something else"),
        pytest.param(httpx2.Response(302, headers={"location": "http://evil/"}), Unreachable, id="a redirect"),
        pytest.param(httpx2.Response(200, text="[]"), Unreachable, id="an answer that is no object"),
        pytest.param(httpx2.Response(200, content=b" " * 3_000_000), Unreachable, id="an answer without end"),
        pytest.param(status(403, "Forbidden"), Refused, id="forbidden"),
        pytest.param(status(422, "Invalid"), Refused, id="invalid"),
        pytest.param(status(409, "AlreadyExists"), Conflict, id="there already"),
    ],
)
async def test_a_failure_is_one_of_three_kinds_and_tells_nothing_of_bodies_and_tokens(
    answer: httpx2.Response | Exception, kind: type[KubernetesError], api: KubernetesApi
) -> None:
    api.answers["POST", SECRETS] = lambda _: answer
    with pytest.raises(KubernetesError) as failed:
        await api.client().create(SECRETS, {"data": "secret-words"})
    assert type(failed.value) is kind
    assert "secret-words" not in repr(failed.value) + str(failed.value)
    assert "own-token" not in repr(failed.value) + str(failed.value)


async def test_a_document_is_read_without_a_body(api: KubernetesApi) -> None:
    api.answers["GET", "/openid/v1/jwks"] = lambda body: {"keys": [] if body is None else [body]}
    assert await api.client().get("/openid/v1/jwks") == {"keys": []}
    assert "content-type" not in api.headers[0]
    assert api.headers[0]["authorization"] == "Bearer own-token"


async def test_a_refusal_has_its_status_and_reason(api: KubernetesApi) -> None:
    api.answers["POST", SECRETS] = lambda _: status(403, "Forbidden")
    with pytest.raises(Refused) as refused:
        await api.client().create(SECRETS, {})
    assert (refused.value.status, refused.value.reason) == (403, "Forbidden")


async def test_a_missing_token_is_no_reason_to_call_without(api: KubernetesApi) -> None:
    api.token_file.unlink()
    with pytest.raises(Unreachable):
        await api.client().create(SECRETS, {})
    assert api.calls == []


async def test_a_deletion_names_what_it_means_and_forgives_what_is_gone(api: KubernetesApi) -> None:
    api.answers["DELETE", f"{SECRETS}/a"] = lambda _: {"kind": "Status"}
    api.answers["DELETE", f"{SECRETS}/b"] = lambda _: status(404, "NotFound")
    api.answers["DELETE", f"{SECRETS}/c"] = lambda _: status(403, "Forbidden")
    client: Kubernetes = api.client()
    assert await client.delete(f"{SECRETS}/a", uid="u1", resource_version="7")
    assert api.calls[0][2]["preconditions"] == {"uid": "u1", "resourceVersion": "7"}
    assert not await client.delete(f"{SECRETS}/b", uid="u2")
    with pytest.raises(Refused):
        await client.delete(f"{SECRETS}/c")


def test_names_cannot_lead_elsewhere() -> None:
    assert path("v1", "secrets", namespace="a/../b", name="x?y") == "/api/v1/namespaces/a%2F..%2Fb/secrets/x%3Fy"
