"""A real node for all tests of this folder, with the CRDs' chart installed; one project after the other comes and goes on it."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from keyturn_dev.node import NodeCluster
from keyturn_dev.node_components import NODE_NAME
from keyturn_dev.node_programs import ensure_helm
from keyturn_dev.progress import Progress
from keyturn_dev.waiting import wait_until
from tests.node.helm import Helm
from tests.node.kubectl import Kubectl
from tests.node.load import Caller
from tests.node.page import Shell
from tests.sample_keys import sample_key

VOLUMES = Path("/var/lib/keyturn-node/volumes")
IMAGES: dict[str, Any] = {
    "operator": {"image": {"repository": "localhost/keyturn-operator", "tag": "node", "pullPolicy": "Never"}},
    "api": {"image": {"repository": "localhost/keyturn-api", "tag": "node", "pullPolicy": "Never"}},
    "postgresql": {"image": {"repository": "localhost/keyturn-postgresql", "tag": "15", "pullPolicy": "Never"}},
}


# Less than a production's ten seconds: a node's own proxy notices at once.
QUICK: dict[str, Any] = {"api": {"shutdownDelay": 3}}
# Pods of one replica start sooner, and end sooner.
SMALL: dict[str, Any] = {"operator": {"replicas": 1}, "api": {"replicas": 1}}
SHOP = "shop"
# What follows needs the installation of the page, and leaves it as it should be.
_ORDER = ("test_install", "test_images", "test_under_load", "test_kubernetes_away", "test_memory")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        # The first one waits for images to be built and for the node.
        item.add_marker(pytest.mark.timeout(1800))
    places = [place for place, item in enumerate(items) if item in ours]
    ours.sort(key=lambda item: _ORDER.index(item.path.stem) if item.path.stem in _ORDER else len(_ORDER))
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def merged(*values: dict[str, Any]) -> dict[str, Any]:
    """Values files laid over one another, as Helm does it."""
    result: dict[str, Any] = {}
    for each in values:
        for key, value in each.items():
            inner = result.get(key)
            result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeCluster]:
    """The cluster with its node; KEYTURN_KEEP_NODE=1 uses one that is up, and leaves it up."""
    cluster = NodeCluster()
    kept = os.environ.get("KEYTURN_KEEP_NODE") == "1"
    if kept and cluster.is_up():
        cluster.images.build()
        cluster.images.load_all()
    else:
        cluster.down()
        cluster.up()
    yield cluster
    if not kept:
        cluster.down()


@pytest.fixture(scope="session")
def helm(node: NodeCluster, kubectl_in: Callable[[str], Kubectl], tmp_path_factory: pytest.TempPathFactory) -> Helm:
    program = Helm(node.kubeconfig, tmp_path_factory.mktemp("helm"))
    if not kubectl_in("default")("get", "crd", "--output=name").strip():
        program.install("keyturn-crds", "keyturn-system", {}, chart="keyturn-crds")
    return program


@pytest.fixture(scope="session")
def kubectl_in(node: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kubectl]:
    folder = tmp_path_factory.mktemp("kubectl")
    return lambda namespace: Kubectl(node.kubectl, node.kubeconfig, namespace, folder)


@pytest.fixture(scope="session")
def make_shell(node: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shell]:
    """A shell for the commands of docs/install.md, about the project of this name."""

    def make(project: str = SHOP, values: dict[str, Any] | None = None) -> Shell:
        folder = tmp_path_factory.mktemp(f"{project}-checkout")
        program = ensure_helm(os.environ, Progress())
        return Shell(node, program, folder, merged(IMAGES, QUICK, values or {}), project=project)

    return make


@pytest.fixture(scope="session")
def shop_shell(make_shell: Callable[..., Shell]) -> Shell:
    return make_shell()


@pytest.fixture(scope="session")
def shop(helm: Helm, shop_shell: Shell, kubectl_in: Callable[[str], Kubectl], node: NodeCluster) -> Iterator[Kubectl]:
    """The page's project, installed by the page's commands up to a first client."""
    kubectl = kubectl_in(SHOP)
    with volume_for(kubectl):
        shop_shell.save_values()
        try:
            for title in ("The kinds", "A project", "A first client"):
                shop_shell.section(title)
            yield kubectl
        finally:
            remove(kubectl, helm)


@pytest.fixture(scope="session")
def caller(shop: Kubectl, shop_shell: Shell) -> Caller:
    """A client of the page's project that is asked for under load."""
    return make_caller(shop, "caller", "https://tokens.shop.example")


@pytest.fixture(scope="session")
def make_project(
    helm: Helm, kubectl_in: Callable[[str], Kubectl]
) -> Callable[..., contextlib.AbstractContextManager[Kubectl]]:
    """A namespace that admits restricted pods only, a volume for its database, and one small installation in it."""

    @contextlib.contextmanager
    def make(namespace: str, values: dict[str, Any] | None = None) -> Iterator[Kubectl]:
        kubectl = kubectl_in(namespace)
        with volume_for(kubectl):
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
            issuer = {"issuer": f"https://tokens.{namespace}.example"}
            try:
                helm.install("keyturn", namespace, merged(IMAGES, QUICK, SMALL, issuer, values or {}))
                kubectl.wait_ready("signingkey/keyturn", 180)
                yield kubectl
            finally:
                remove(kubectl, helm)

    return make


def make_caller(kubectl: Kubectl, name: str, issuer: str) -> Caller:
    """A ClientCredential with a key of the test's own, Ready, and how to call its installation from the node."""
    key = sample_key("ES256", abs(hash((kubectl.namespace, name))))
    spec = {"publicKeys": [{"jwk": dict(key.public.jwk)}], "permissions": ["orders:read"]}
    kubectl.apply(client(name, spec))
    kubectl.wait_ready(f"clientcredential/{name}")
    service = kubectl.get("service/keyturn-api")["spec"]["clusterIP"]
    made = Caller(f"http://{service}", issuer, f"{kubectl.namespace}.{name}", key)
    # A new installation's API says that it knows the client a moment before its pod counts as ready and the node leads there.
    wait_until(lambda: answers(made.url), "the API's Service to lead to a pod", seconds=60, interval=0.5)
    return made


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def client(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientCredential", "metadata": {"name": name}, "spec": spec}


def remove(kubectl: Kubectl, helm: Helm) -> None:
    """Takes away what a test has left of a project, in whatever state it is."""
    with contextlib.suppress(AssertionError):
        helm.uninstall("keyturn", kubectl.namespace)
    kubectl("delete", "namespace", kubectl.namespace, "--ignore-not-found", "--timeout=90s", seconds=120)
    cluster_wide = [f"keyturn.{kubectl.namespace}.keyturn.{part}" for part in ("api", "operator")]
    kinds = "clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding"
    kubectl("delete", kinds, *cluster_wide, "--ignore-not-found")


@contextlib.contextmanager
def volume_for(kubectl: Kubectl) -> Iterator[None]:
    """A volume on the node's disk for the database of the release `keyturn` in this namespace."""
    name = f"keyturn-{kubectl.namespace}"
    folder = VOLUMES / kubectl.namespace
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chown(folder, 999, 999)
    kubectl("delete", "persistentvolume", name, "--ignore-not-found")
    kubectl.apply(volume(kubectl.namespace, folder))
    try:
        yield
    finally:
        kubectl("delete", "persistentvolume", name, "--ignore-not-found", "--wait=false")
        shutil.rmtree(folder, ignore_errors=True)


def volume(namespace: str, folder: Path) -> dict[str, Any]:
    """A volume on the node's own disk, for the claim of this namespace's database."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"keyturn-{namespace}"},
        "spec": {
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace, "name": "data-keyturn-postgresql-0"},
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
