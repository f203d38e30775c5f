"""Helm against a real API server: older kinds become newer ones, and a project is installed without rights on the cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from keyturn_dev.errors import DevError
from keyturn_dev.kubeconfig import run_kubectl
from keyturn_dev.waiting import wait_until
from tests.charts.rendering import CHARTS, helm, objects, run_helm
from tests.documents import PROJECT, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyturn_dev.cluster import Cluster

# Helm has to be built first on a machine that has none.
pytestmark = pytest.mark.timeout(1500)
# The kinds under another group, since the other tests of this server use ours.
GROUP = "older.keyturn.test"
CLIENT: dict[str, Any] = {
    "apiVersion": f"{GROUP}/v1alpha1",
    "kind": "ClientCredential",
    "metadata": {"name": "billing", "namespace": "default"},
    "spec": {
        "clientName": "Billing",
        "generateKey": {"secretName": "billing-key", "rotateEvery": "720h"},
        "permissions": ["orders:read"],
        "audiences": ["orders"],
        "tokenLifetime": "5m",
    },
}
CONTACTS = ["ops@shop.example"]


class Helm:
    """Helm with the administrator's kubeconfig."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(cluster.kubeconfig)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [helm(), *arguments], env=self._environ, capture_output=True, text=True, timeout=120, check=False
        )

    def ok(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(crds, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def kubectl(crds: Cluster) -> Callable[..., str]:
    return lambda *arguments: run_kubectl(crds.kubectl, crds.kubeconfig, *arguments)


def kinds_chart(folder: Path, *, older: bool) -> Path:
    """The chart with the kinds of another group; the older one does not know a client's contacts yet."""
    shutil.copytree(CHARTS / "keyturn-crds", folder)
    for path in (folder / "files").glob("*.yaml"):
        text = path.read_text(encoding="utf-8").replace("keyturn.dev", GROUP)
        # What `kubectl get keyturn` lists is for other tests to try.
        text = text.replace("    categories: [keyturn]\n", "")
        if older and "kind: ClientCredential\n" in text:
            # By lines: PyYAML would write the members `n` and `y` of a JWK without quotes, which are booleans to Kubernetes.
            text, count = re.subn(r"^( *)contacts:\n(?:\1 +.*\n)+", "", text, count=1, flags=re.MULTILINE)
            assert count
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def charts(tmp_path: Path, kubectl: Callable[..., str]) -> Iterator[tuple[Path, Path]]:
    """The older one and the newer one."""
    yield kinds_chart(tmp_path / "older", older=True), kinds_chart(tmp_path / "newer", older=False)
    names = [f"crd/{plural}.{GROUP}" for plural in ("clientcredentials", "signingkeys", "accessrules")]
    kubectl("delete", *names, "--ignore-not-found", "--timeout=60s")


def apply(kubectl: Callable[..., str], folder: Path, document: dict[str, Any]) -> None:
    path = folder / "object.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    kubectl("apply", "--server-side", "--validate=strict", "-f", str(path))


def established(kubectl: Callable[..., str]) -> None:
    kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/clientcredentials.{GROUP}")


def spec(kubectl: Callable[..., str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("get", f"clientcredentials.{GROUP}/billing", "--output=json"))["spec"]
    return found


@pytest.mark.parametrize("by_helm", [True, False], ids=["the chart", "kubectl apply"])
def test_an_upgrade_reaches_older_kinds_that_came_by(
    by_helm: bool, installed: Helm, kubectl: Callable[..., str], charts: tuple[Path, Path], tmp_path: Path
) -> None:
    older, newer = charts
    release = ("keyturn-crds-older", "--namespace", "default")

    def upgrade(chart: Path, *more: str) -> subprocess.CompletedProcess[str]:
        return installed.run(
            "upgrade", "--install", release[0], str(chart), *release[1:], "--set", "roles.create=false", *more
        )

    if by_helm:
        done = upgrade(older)
        assert done.returncode == 0, done.stderr
    else:
        kubectl("apply", "--server-side", "-f", str(older / "files"))
    established(kubectl)
    apply(kubectl, tmp_path, CLIENT)
    before = spec(kubectl)
    with_contacts = {**CLIENT, "spec": {**CLIENT["spec"], "contacts": CONTACTS}}
    with pytest.raises(DevError, match="contacts"):
        apply(kubectl, tmp_path, with_contacts)

    done = upgrade(newer)
    if not by_helm:
        assert "invalid ownership metadata" in done.stderr
        done = upgrade(newer, "--take-ownership")
    assert done.returncode == 0, done.stderr
    assert spec(kubectl) == before, "no field is pruned"

    def taken() -> bool:
        try:
            apply(kubectl, tmp_path, with_contacts)
        except DevError:
            return False
        return True

    wait_until(taken, "the server to serve the newer schema", seconds=30)
    assert spec(kubectl) == {**before, "contacts": CONTACTS}

    # The next upgrade needs no flag, and an uninstall keeps kinds and objects.
    assert upgrade(newer).returncode == 0
    installed.ok("uninstall", *release, "--wait")
    assert spec(kubectl) == {**before, "contacts": CONTACTS}


def claim(namespace: str, storage_class: str) -> list[dict[str, Any]]:
    """What the StatefulSet's controller would make on a cluster with nodes, of a StorageClass whose volumes grow."""
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": storage_class},
            "provisioner": "volumes.keyturn.test",
            "allowVolumeExpansion": True,
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-keyturn-postgresql-0", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": storage_class,
                "volumeName": "grows",
                "resources": {"requests": {"storage": "2Gi"}},
            },
        },
    ]


def test_a_larger_volume_comes_by_the_page_s_commands(
    installed: Helm, crds: Cluster, kubectl: Callable[..., str], tmp_path: Path
) -> None:
    namespace = "larger"
    (script,) = [one.text for one in blocks(PROJECT / "docs" / "install.md") if "--cascade=orphan" in one.text]
    values = tmp_path / "shop.yaml"
    values.write_text("issuer: https://tokens.shop.example\nclusterRights: false\n", encoding="utf-8")
    kubectl("create", "namespace", namespace)
    try:
        command = ("upgrade", "--install", "keyturn", str(CHARTS / "keyturn"), "--namespace", namespace)
        installed.ok(*command, "--values", str(values))
        for one in claim(namespace, "growing"):
            apply(kubectl, tmp_path, one)
        bound = '{"status":{"phase":"Bound","accessModes":["ReadWriteOnce"],"capacity":{"storage":"2Gi"}}}'
        where = (f"--namespace={namespace}", "persistentvolumeclaim/data-keyturn-postgresql-0")
        kubectl("patch", *where, "--subresource=status", "--type=merge", "--patch", bound)

        refused = installed.run(*command, "--values", str(values), "--set", "postgresql.storage.size=4Gi")
        assert "updates to statefulset spec" in refused.stderr
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "kubectl").symlink_to(crds.kubectl)
        (programs / "helm").symlink_to(helm())
        (tmp_path / "charts").symlink_to(CHARTS)
        done = subprocess.run(
            ["/bin/sh", "-eu"],
            input=script.replace("--namespace shop", f"--namespace {namespace}"),
            cwd=tmp_path,
            env={"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path), "KUBECONFIG": str(crds.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        path = "--output=jsonpath={.spec.volumeClaimTemplates[0].spec.resources.requests.storage}"
        assert kubectl("get", "statefulset/keyturn-postgresql", f"--namespace={namespace}", path) == "4Gi"
        assert kubectl("get", *where, "--output=jsonpath={.spec.resources.requests.storage}") == "4Gi"
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
        kubectl("delete", "storageclass/growing", "--ignore-not-found")


INSTALLER = "an-installer"


@pytest.fixture(scope="module")
def project(kubectl: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace whose installer has what docs/install.md says, and nothing else."""
    namespace = "by-an-installer"
    folder = tmp_path_factory.mktemp("installer")
    roles = run_helm("template", "keyturn-crds", str(CHARTS / "keyturn-crds"), "--show-only", "templates/roles.yaml")
    people = [one for one in objects(roles.stdout) if one["metadata"]["name"] == "keyturn-admin"]
    (shown,) = [one.text for one in blocks(PROJECT / "docs" / "install.md") if "kind: Role\n" in one.text]
    role = yaml.safe_load(shown)
    kubectl("create", "namespace", namespace)
    path = folder / "roles.json"
    items = [*people, role]
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), encoding="utf-8")
    kubectl("apply", "--server-side", "--force-conflicts", f"--namespace={namespace}", "-f", str(path))
    for name, bound in (
        ("admin", "--clusterrole=admin"),
        ("people", "--clusterrole=keyturn-admin"),
        ("more", f"--role={role['metadata']['name']}"),
    ):
        kubectl("create", "rolebinding", name, bound, f"--user={INSTALLER}", f"--namespace={namespace}")
    yield namespace
    kubectl("delete", "namespace", namespace, "--wait=false")
    kubectl("delete", "clusterrole/keyturn-admin", "--ignore-not-found")


def test_a_project_is_installed_upgraded_and_removed_without_rights_on_the_cluster(
    installed: Helm, project: str, kubectl: Callable[..., str]
) -> None:
    command = ["upgrade", "--install", "keyturn", str(CHARTS / "keyturn"), "--namespace", project]
    command += ["--kube-as-user", INSTALLER, "--set", "issuer=https://tokens.shop.example"]
    refused = installed.run(*command)
    assert refused.returncode != 0
    assert "cluster scope" in refused.stderr
    installed.run("uninstall", "keyturn", "--namespace", project)

    installed.ok(*command, "--set", "clusterRights=false")
    password = kubectl(
        "get", "secret/keyturn-postgresql", f"--namespace={project}", "--output=jsonpath={.data.password}"
    )
    installed.ok(*command, "--set", "clusterRights=false", "--set", "registration.mode=open,api.replicas=3")
    assert password == kubectl(
        "get", "secret/keyturn-postgresql", f"--namespace={project}", "--output=jsonpath={.data.password}"
    )
    installed.ok("uninstall", "keyturn", "--namespace", project, "--kube-as-user", INSTALLER)
