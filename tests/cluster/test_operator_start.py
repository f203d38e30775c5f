"""How the operator starts: what it waits for, what it says, and how it recovers."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation, apply_crds
from keyturn_dev.kubeconfig import run_kubectl
from keyturn_dev.waiting import wait_until
from tests.cluster.clients import Objects
from tests.cluster.conftest import signing_key


@pytest.fixture
def bare(cluster: Cluster, tmp_path: Path) -> Iterator[Installation]:
    """An installation on an API server of its own, without our CRDs. (`cluster` has seen to it that the programs are built.)"""
    own = Cluster(tmp_path / "cluster")
    installation = Installation(own, "bare", tmp_path / "installation")
    try:
        own.up()
        installation.prepare()
        kinds = [f"{plural}.keyturn.dev" for plural in ("clientcredentials", "signingkeys", "accessrules")]
        run_kubectl(own.kubectl, own.kubeconfig, "delete", "crd", *kinds)
        yield installation
    finally:
        installation.stop()
        own.down()


def test_without_crds_it_says_so_once_is_alive_but_not_ready_and_recovers(bare: Installation) -> None:
    bare.start_operator()
    probes = f"http://127.0.0.1:{bare.operator_port}"

    def probe(path: str) -> tuple[int, str]:
        try:
            answer = httpx2.get(probes + path, timeout=2, trust_env=False)
        except httpx2.HTTPError:
            return 0, ""
        return answer.status_code, answer.text

    wait_until(lambda: "does not serve" in probe("/readyz")[1], "the reason to be told", seconds=15)
    assert probe("/readyz")[0] == 503
    assert "install" in probe("/readyz")[1]
    assert probe("/livez")[0] == 200
    lines = [json.loads(line) for line in bare.log("operator-0").read_text().splitlines()]
    assert len([line for line in lines if line["event"] == "waiting for the Kubernetes API"]) == 1

    apply_crds(bare.target)
    wait_until(lambda: probe("/readyz")[0] == 200, "the operator to be ready", seconds=20)
    bare.apply([signing_key(bare.namespace)])
    objects = Objects(bare)
    try:
        # No API replica runs here, so nothing can be ready, and the object says why.
        objects.wait_for("signingkeys", "keyturn", "Unknown", reason="NoReplica")
        assert objects.get("secrets", "keyturn")["type"] == "Opaque"
    finally:
        objects.close()
    bare.check_alive()
