"""A real node for all tests of this folder, with the CRDs' chart installed; one project after the other comes and goes on it."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyturn_dev.node import NodeCluster
from keyturn_dev.node_components import NODE_NAME
from tests.node.helm import Helm
from tests.node.kubectl import Kubectl

VOLUMES = Path("/var/lib/keyturn-node/volumes")
IMAGES: dict[str, Any] = {
    "operator": {"image": {"repository": "localhost/keyturn-operator", "tag": "node", "pullPolicy": "Never"}},
    "api": {"image": {"repository": "localhost/keyturn-api", "tag": "node", "pullPolicy": "Never"}},
    "postgresql": {"image": {"repository": "localhost/keyturn-postgresql", "tag": "15", "pullPolicy": "Never"}},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


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
def helm(node: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    program = Helm(node.kubeconfig, tmp_path_factory.mktemp("helm"))
    program.install("keyturn-crds", "keyturn-system", {}, chart="keyturn-crds")
    return program


@pytest.fixture(scope="session")
def kubectl_in(node: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kubectl]:
    folder = tmp_path_factory.mktemp("kubectl")
    return lambda namespace: Kubectl(node.kubectl, node.kubeconfig, namespace, folder)


@pytest.fixture(scope="session")
def make_project(
    helm: Helm, kubectl_in: Callable[[str], Kubectl]
) -> Callable[..., contextlib.AbstractContextManager[Kubectl]]:
    """A namespace that admits restricted pods only, a volume for its database, and one installation in it."""

    @contextlib.contextmanager
    def make(namespace: str, values: dict[str, Any] | None = None, *, release: str = "keyturn") -> Iterator[Kubectl]:
        kubectl = kubectl_in(namespace)
        folder = VOLUMES / namespace
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        os.chown(folder, 999, 999)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        kubectl.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
            volume(namespace, folder),
        )
        issuer = {"issuer": f"http://{release}-api.{namespace}.svc" if release == "keyturn" else f"http://{release}"}
        helm.install(release, namespace, merged(IMAGES, {"api": {"shutdownDelay": 3}}, issuer, values or {}))
        try:
            kubectl.wait_ready("signingkey/keyturn", 180)
            yield kubectl
        finally:
            with contextlib.suppress(AssertionError):
                helm.uninstall(release, namespace)
            kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=90s", seconds=120)
            kubectl("delete", "persistentvolume", f"keyturn-{namespace}", "--ignore-not-found")
            shutil.rmtree(folder, ignore_errors=True)

    return make


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
