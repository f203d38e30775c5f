"""The charts against a real API server: every manifest that they render is accepted, with strict validation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from keyturn_dev.kubeconfig import run_kubectl
from tests.charts.rendering import NAMESPACE, VALUE_SETS, objects, render

if TYPE_CHECKING:
    from pathlib import Path

    from keyturn_dev.cluster import Cluster

# Kinds of other projects, whose CRDs an ordinary cluster lacks.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}


@pytest.fixture(scope="module")
def namespaces(crds: Cluster) -> None:
    for name in (NAMESPACE, "payments"):
        run_kubectl(crds.kubectl, crds.kubeconfig, "create", "namespace", name)


@pytest.mark.parametrize("name", VALUE_SETS)
@pytest.mark.usefixtures("namespaces")
def test_the_api_server_accepts_every_manifest_strictly(name: str, crds: Cluster, tmp_path: Path) -> None:
    rendered = [one for one in objects(render(tmp_path, name)) if one["kind"] not in FOREIGN]
    for namespace in {one["metadata"].get("namespace", NAMESPACE) for one in rendered}:
        here = [one for one in rendered if one["metadata"].get("namespace", NAMESPACE) == namespace]
        path = tmp_path / f"{namespace}.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": here}), encoding="utf-8")
        command = ["apply", "--server-side", "--dry-run=server", "--validate=strict", f"--namespace={namespace}"]
        accepted = run_kubectl(crds.kubectl, crds.kubeconfig, *command, "--output=name", "-f", str(path))
        assert len(accepted.split()) == len(here)
