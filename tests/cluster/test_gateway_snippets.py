"""The objects that `docs/gateways` shows for gateways in a cluster: a real API server takes them by those projects' own schemas."""

import copy
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyturn_dev.cluster import Cluster
from keyturn_dev.go_modules import module_folder
from keyturn_dev.paths import GATEWAYS
from keyturn_dev.progress import Progress

FILES = Path(__file__).parents[2] / "docs" / "gateways" / "kubernetes"
SUMS = GATEWAYS / "schemas.sum"
# Where each project keeps its CRDs in its module.
SCHEMAS = {
    "sigs.k8s.io/gateway-api": (
        "config/crd/experimental/gateway.networking.k8s.io_httproutes.yaml",
        "config/crd/experimental/gateway.networking.k8s.io_referencegrants.yaml",
    ),
    "github.com/envoyproxy/gateway": (
        "charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml",
        "charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_clienttrafficpolicies.yaml",
    ),
    "istio.io/api": ("kubernetes/customresourcedefinitions.gen.yaml",),
    "github.com/traefik/traefik/v3": (
        "docs/content/reference/dynamic-configuration/traefik.io_middlewares.yaml",
        "docs/content/reference/dynamic-configuration/traefik.io_ingressroutes.yaml",
    ),
}
OBJECTS = ("gateway-api", "envoy-gateway", "istio", "ingress-nginx", "traefik")
NAMESPACES = ("shop", "gateways", "ingress-nginx", "keyturn")
IDENTITY = ("mia-userid", "mia-groups", "mia-userproperties", "mia-clientid")


class Kubectl:
    def __init__(self, cluster: Cluster) -> None:
        self._command = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}"]

    def __call__(self, *arguments: str, given: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self._command, *arguments], input=given, capture_output=True, text=True, timeout=120, check=False
        )

    def apply(self, documents: list[dict[str, Any]]) -> "subprocess.CompletedProcess[str]":
        """What the API server says of these objects; nothing is stored."""
        options = ("--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts")
        return self("apply", *options, "-f", "-", given=yaml.safe_dump_all(documents))


def folder(module: str) -> Path:
    return module_folder(module, SUMS, os.environ, Progress())


def shown(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FILES / f"{name}.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """An API server that knows the kinds of those gateways, and has the namespaces of the files."""
    run = Kubectl(cluster)
    files = [f"-f={folder(module) / path}" for module, paths in SCHEMAS.items() for path in paths]
    applied = run("apply", "--server-side", "--force-conflicts", *files)
    assert applied.returncode == 0, applied.stderr
    waited = run("wait", "--for=condition=Established", "--timeout=60s", *files)
    assert waited.returncode == 0, waited.stderr
    made = [name for name in NAMESPACES if run("create", "namespace", name).returncode == 0]
    yield run
    # The kinds go again: other tests list what the API server has.
    run("delete", "--wait=false", *files)
    for name in made:
        run("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("name", OBJECTS)
def test_the_api_server_takes_the_objects_and_knows_each_of_their_fields(kubectl: Kubectl, name: str) -> None:
    said = kubectl.apply(shown(name))
    assert said.returncode == 0, said.stderr
    assert "Warning" not in said.stderr


@pytest.mark.parametrize("name", OBJECTS)
def test_a_field_that_does_not_exist_would_be_found(kubectl: Kubectl, name: str) -> None:
    """The schemas are really in force."""
    documents = copy.deepcopy(shown(name))
    part = documents[0]["spec"]
    part["keyturnDoesNotExist"] = True
    said = kubectl.apply(documents[:1])
    assert said.returncode != 0
    assert "keyturnDoesNotExist" in said.stderr


def test_every_file_is_tried() -> None:
    assert {path.stem for path in FILES.iterdir()} == {*OBJECTS, "istio-mesh-config"}


def test_the_mesh_configuration_has_fields_that_istio_knows() -> None:
    text = (folder("istio.io/api") / "mesh" / "v1alpha1" / "config.proto").read_text(encoding="utf-8")
    (document,) = shown("istio-mesh-config")
    messages = {
        "MeshConfig": document["meshConfig"],
        "ProxyPathNormalization": document["meshConfig"]["pathNormalization"],
        "ExtensionProvider": document["meshConfig"]["extensionProviders"][0],
        "EnvoyExternalAuthorizationGrpcProvider": document["meshConfig"]["extensionProviders"][0]["envoyExtAuthzGrpc"],
    }
    for message, given in messages.items():
        body = text[re.search(rf"message {message} {{", text).end() :]  # type: ignore[union-attr]
        for field in given:
            snake = re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", field)
            assert re.search(rf"\b{snake} = \d+", body), f"{message} has no {field}"
    assert re.search(r"\bMERGE_SLASHES = \d+", text)


def test_the_annotations_are_those_of_ingress_nginx() -> None:
    module = folder("k8s.io/ingress-nginx")
    documented = (module / "docs" / "user-guide" / "nginx-configuration" / "annotations.md").read_text(encoding="utf-8")
    ingress, _, controller = shown("ingress-nginx")
    for annotation in ingress["metadata"]["annotations"]:
        assert f"`{annotation}" in documented or f"[{annotation}]" in documented, annotation
    options = (module / "docs" / "user-guide" / "nginx-configuration" / "configmap.md").read_text(encoding="utf-8")
    for option in controller["data"]:
        assert f"[{option}]" in options, option
    template = (module / "rootfs" / "etc" / "nginx" / "template" / "nginx.tmpl").read_text(encoding="utf-8")
    assert re.search(r"proxy_set_header\s+X-Original-URL\s+\$scheme://\$http_host\$request_uri;", template)
    assert re.search(r"proxy_set_header\s+X-Original-Method\s+\$request_method;", template)


def test_each_takes_over_the_whole_identity() -> None:
    ingress = shown("ingress-nginx")[0]["metadata"]["annotations"]
    taken = ingress["nginx.ingress.kubernetes.io/auth-response-headers"].split(",")
    middleware = shown("traefik")[1]["spec"]["forwardAuth"]["authResponseHeaders"]
    assert tuple(taken) == tuple(middleware) == IDENTITY
    removed = shown("envoy-gateway")[1]["spec"]["headers"]["earlyRequestHeaders"]["remove"]
    assert set(IDENTITY) < set(removed)
