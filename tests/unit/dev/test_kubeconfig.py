"""Kubeconfig files: the local administrator's and a ServiceAccount's."""

from __future__ import annotations

import base64
import stat
from typing import TYPE_CHECKING

import pytest
import yaml

from keyturn_dev.certificates import Certificate
from keyturn_dev.errors import DevError
from keyturn_dev.kubeconfig import (
    certificate_user,
    kubeconfig_cluster,
    kubeconfig_document,
    run_kubectl,
    service_account_kubeconfig,
    write_kubeconfig,
)
from tests.unit.dev.programs import write_program

if TYPE_CHECKING:
    from pathlib import Path

# Stands in for kubectl: answers the two questions, and keeps what it was asked.
KUBECTL = """
echo "$@" >>"$0.calls"
case "$*" in
  *"create token"*) echo the-token ;;
  *"config view"*) echo '{"current-context": "home", "clusters": [{"name": "c", "cluster":
    {"server": "https://192.0.2.7:6443", "certificate-authority-data": "Y2E="}}]}' ;;
esac
"""


def test_a_kubeconfig_names_one_cluster_one_user_and_one_context() -> None:
    cluster = kubeconfig_cluster("https://127.0.0.1:1", b"authority")
    document = kubeconfig_document(cluster, certificate_user(Certificate(b"cert", b"key")), user_name="admin")
    assert document["current-context"] == document["contexts"][0]["name"]
    assert document["contexts"][0]["context"]["cluster"] == document["clusters"][0]["name"]
    assert document["contexts"][0]["context"]["user"] == document["users"][0]["name"] == "admin"
    assert document["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    assert base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"]) == b"authority"
    assert base64.b64decode(document["users"][0]["user"]["client-certificate-data"]) == b"cert"
    assert base64.b64decode(document["users"][0]["user"]["client-key-data"]) == b"key"


def test_a_kubeconfig_is_its_owners_only_wherever_it_is_written(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "a new folder" / "kubeconfig", {"kind": "Config"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert yaml.safe_load(path.read_text()) == {"kind": "Config"}


def test_a_service_accounts_kubeconfig_holds_its_token_and_the_same_cluster(tmp_path: Path) -> None:
    kubectl = write_program(tmp_path / "bin", "kubectl", KUBECTL)
    out = service_account_kubeconfig(
        kubectl, tmp_path / "admin", "team-a", "operator", tmp_path / "out", duration="10m", audiences=["keyturn"]
    )
    document = yaml.safe_load(out.read_text())
    assert document["users"] == [{"name": "system:serviceaccount:team-a:operator", "user": {"token": "the-token"}}]
    assert document["clusters"][0]["cluster"]["server"] == "https://192.0.2.7:6443"
    assert document["contexts"][0]["context"]["namespace"] == "team-a"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    asked = (tmp_path / "bin" / "kubectl.calls").read_text().splitlines()
    assert asked[0].split() == [
        f"--kubeconfig={tmp_path / 'admin'}",
        *("create", "token", "operator", "--namespace=team-a", "--duration=10m", "--audience=keyturn"),
    ]
    assert f"--kubeconfig={tmp_path / 'admin'}" in asked[1]


def test_what_kubectl_says_when_it_fails_is_passed_on(tmp_path: Path) -> None:
    kubectl = write_program(tmp_path, "kubectl", "echo 'serviceaccounts \"x\" not found' >&2; exit 1")
    with pytest.raises(DevError, match='kubectl create token failed: serviceaccounts "x" not found'):
        service_account_kubeconfig(kubectl, tmp_path / "admin", "n", "x", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_kubectl_that_hangs_is_given_up(tmp_path: Path) -> None:
    kubectl = write_program(tmp_path, "kubectl", "exec sleep 60")
    with pytest.raises(DevError, match=r"kubectl get pods gave no answer within 0\.1 s"):
        run_kubectl(kubectl, None, "get", "pods", seconds=0.1)
