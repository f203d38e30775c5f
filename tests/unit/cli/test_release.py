"""Which objects of a namespace are the installation's, and what its Deployments say of it: the chart's own, as it renders them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from keyturn_cli import release
from keyturn_cli.admin_api import find_url
from tests.documents import PROJECT

from .cluster import NAMESPACE, FakeCluster

Obj = dict[str, Any]
# The chart of the kinds runs nothing.
RENDERED = sorted(
    path for path in (PROJECT / "tests/golden/charts").glob("*.yaml") if not path.stem.startswith("kinds")
)
WORKLOADS = ("Deployment", "StatefulSet")


def pod_of(workload: Obj) -> Obj:
    template = workload["spec"]["template"]
    return {"kind": "Pod", "metadata": {"name": "x", **template["metadata"]}, "spec": template["spec"]}


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.stem)
def test_what_the_chart_makes_is_ours_and_the_programs_are_told_from_the_database(path: Any) -> None:
    documents = [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one]
    made = [one for one in documents if one["kind"] in WORKLOADS]
    names = release.releases(made)
    for workloads in ([pod_of(one) for one in made], made):
        assert all(release.is_ours(one, names) for one in workloads)
        assert sorted(release.component(one) for one in release.parts(workloads)) == ["api", "operator"]
        for one in workloads:
            # Whoever installs without Helm may leave its labels out; the settings say it too.
            one["metadata"]["labels"].pop("helm.sh/chart", None)
            assert release.is_ours(one) == (release.component(one) in release.PARTS)
    api = release.part([one for one in documents if one["kind"] == "Deployment"], "api")
    # `doctor` and what is typed to forward a port go by the Deployment's name.
    assert api is not None
    services = [one for one in documents if one["kind"] == "Service" and release.component(one) == "api"]
    assert [one["metadata"]["name"] for one in services] == [api["metadata"]["name"]]
    assert "http" in [port["name"] for port in services[0]["spec"]["ports"]]


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({}, id="no labels"),
        pytest.param({"app.kubernetes.io/component": "api"}, id="an API of somebody else"),
        pytest.param({"helm.sh/chart": "keyturn-shop-1.0", "app.kubernetes.io/component": "api"}, id="another chart"),
    ],
)
def test_what_others_made_is_not_ours(labels: dict[str, str]) -> None:
    env = [{"name": "ISSUER", "value": "x"}]
    assert not release.is_ours({"metadata": {"name": "x", "labels": labels}, "spec": {"containers": [{"env": env}]}})


def deployment(*env: tuple[str, str], image: str = "r.example/keyturn-api:1.2.0") -> Obj:
    variables = [{"name": name, "value": value} for name, value in env]
    container = {"name": "api", "image": image, "env": variables}
    labels = {"app.kubernetes.io/component": "api"}
    return {"metadata": {"name": "x", "labels": labels}, "spec": {"template": {"spec": {"containers": [container]}}}}


ISSUER = ("KEYTURN_ISSUER", "https://tokens.example.org/")


@pytest.mark.parametrize(
    ("env", "url"),
    [
        pytest.param((ISSUER,), "https://tokens.example.org", id="the issuer"),
        pytest.param((ISSUER, ("KEYTURN_SERVICE_PREFIX", "/o/")), "https://tokens.example.org/o", id="with a prefix"),
        pytest.param((ISSUER, ("KEYTURN_PUBLIC_URL", "https://x.example/o")), "https://x.example/o", id="a public URL"),
        pytest.param((("KEYTURN_ISSUER", "keyturn"),), None, id="no URL"),
        pytest.param((), None, id="another program"),
    ],
)
def test_the_public_address_is_what_the_service_says_of_itself(
    env: tuple[tuple[str, str], ...], url: str | None
) -> None:
    cluster = FakeCluster()
    cluster.answers["GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"] = (200, {"items": [deployment(*env)]})
    assert find_url(cluster.open()) == url


@pytest.mark.parametrize(
    ("image", "version"),
    [
        pytest.param("registry.example:5000/keyturn-api:1.2.0-rc1", "1.2.0-rc1", id="a tag"),
        pytest.param("keyturn-api:v1.2.0@sha256:0f", "1.2.0", id="a tag with a digest"),
        pytest.param("registry.example:5000/keyturn-api", "", id="none"),
        pytest.param("keyturn-api@sha256:0f", "", id="a digest alone"),
        pytest.param("keyturn-api:latest", "", id="no version"),
    ],
)
def test_a_version_is_that_of_the_image(image: str, version: str) -> None:
    assert release.version(deployment(image=image)) == version
