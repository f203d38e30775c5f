"""The charts against a real API server: every manifest that they render is accepted, with strict validation."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from keyturn_dev.go_modules import module_folder
from keyturn_dev.kubeconfig import run_kubectl
from keyturn_dev.paths import GATEWAYS
from keyturn_dev.progress import Progress
from tests.charts.rendering import CRD_VALUE_SETS, NAMESPACE, VALUE_SETS, objects, render, render_crds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyturn_dev.cluster import Cluster

# The kinds of other projects that the chart can make objects of, by their own schemas.
_MONITORING = "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml"
FOREIGN = {
    "github.com/prometheus-operator/prometheus-operator": [
        _MONITORING.format(plural) for plural in ("servicemonitors", "prometheusrules")
    ],
    "sigs.k8s.io/gateway-api": ["config/crd/experimental/gateway.networking.k8s.io_httproutes.yaml"],
}
NAMESPACES = (NAMESPACE, "payments")


@pytest.fixture(scope="module")
def server(crds: Cluster) -> Iterator[Cluster]:
    def kubectl(*arguments: str) -> str:
        return run_kubectl(crds.kubectl, crds.kubeconfig, *arguments)

    sums = GATEWAYS / "schemas.sum"
    folders = {module: module_folder(module, sums, os.environ, Progress()) for module in FOREIGN}
    files = [f"-f={folders[module] / path}" for module, paths in FOREIGN.items() for path in paths]
    kubectl("apply", "--server-side", "--force-conflicts", *files)
    kubectl("wait", "--for=condition=Established", "--timeout=60s", *files)
    for name in NAMESPACES:
        kubectl("create", "namespace", name)
    yield crds
    kubectl("delete", "--wait=false", *files)
    kubectl("delete", "--wait=false", *(f"namespace/{name}" for name in NAMESPACES))


@pytest.mark.parametrize("name", VALUE_SETS)
def test_the_api_server_accepts_every_manifest_strictly(name: str, server: Cluster, tmp_path: Path) -> None:
    rendered = objects(render(tmp_path, name))
    for namespace in {one["metadata"].get("namespace", NAMESPACE) for one in rendered}:
        here = [one for one in rendered if one["metadata"].get("namespace", NAMESPACE) == namespace]
        path = tmp_path / f"{namespace}.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": here}), encoding="utf-8")
        command = ["apply", "--server-side", "--dry-run=server", "--validate=strict", f"--namespace={namespace}"]
        accepted = run_kubectl(server.kubectl, server.kubeconfig, *command, "--output=name", "-f", str(path))
        assert len(accepted.split()) == len(here)


@pytest.mark.parametrize("name", CRD_VALUE_SETS)
def test_the_api_server_accepts_the_kinds_and_roles_strictly(name: str, server: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "rendered.yaml"
    path.write_text(render_crds(tmp_path, name), encoding="utf-8")
    command = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--output=name"]
    accepted = run_kubectl(server.kubectl, server.kubeconfig, *command, "-f", str(path))
    assert len(accepted.split()) == len(objects(path.read_text(encoding="utf-8")))
