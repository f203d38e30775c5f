"""How each server of the local cluster is called."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from keyturn_dev.loopback import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keyturn_dev.binaries import Binaries

SERVICE_ACCOUNT_ISSUER = "https://kubernetes.default.svc"
# What a cluster without nodes needs: cascading deletion, namespaces, ServiceAccounts, roles, quotas, policies.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "validatingadmissionpolicy-status-controller",
)


@dataclasses.dataclass(frozen=True)
class Network:
    """Where the API server listens, by which address pods find it, and the Services' range."""

    bind: str
    advertise: str
    services: str
    pods: bool


# Endpoints may not be loopback addresses, and without nodes nothing reaches the API server by its Service: an address of the
# documentation range, announced to nobody.
WITHOUT_NODES = Network(bind=LOOPBACK, advertise="192.0.2.1", services="198.18.0.0/24", pods=False)


@dataclasses.dataclass(frozen=True)
class Ports:
    """The loopback ports of one cluster."""

    etcd: int
    etcd_peer: int
    api_server: int


def etcd_command(binaries: Binaries, state: Path, ports: Ports) -> list[str]:
    """Return etcd's command line. Its data is thrown away with the cluster, so it need not reach the disk."""
    certs = state / "certs"
    client = f"https://{LOOPBACK}:{ports.etcd}"
    peer = f"https://{LOOPBACK}:{ports.etcd_peer}"
    return [
        str(binaries.etcd),
        f"--data-dir={state / 'etcd'}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        # Loopback is open to every user of the machine; the cluster's Secrets are not.
        "--client-cert-auth",
        f"--trusted-ca-file={certs / 'etcd-ca.crt'}",
        f"--cert-file={certs / 'etcd.crt'}",
        f"--key-file={certs / 'etcd.key'}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={certs / 'etcd-ca.crt'}",
        f"--peer-cert-file={certs / 'etcd.crt'}",
        f"--peer-key-file={certs / 'etcd.key'}",
    ]


def api_server_command(binaries: Binaries, state: Path, ports: Ports, network: Network = WITHOUT_NODES) -> list[str]:
    """Return the API server's command line: RBAC, ServiceAccount tokens, default admission."""
    certs = state / "certs"
    for_nodes = [
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--kubelet-client-certificate={certs / 'admin.crt'}",
        f"--kubelet-client-key={certs / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",
    ]
    return [
        str(binaries.apiserver),
        f"--bind-address={network.bind}",
        f"--secure-port={ports.api_server}",
        f"--advertise-address={network.advertise}",
        f"--service-cluster-ip-range={network.services}",
        *(for_nodes if network.pods else ["--endpoint-reconciler-type=none", "--authorization-mode=RBAC"]),
        f"--etcd-servers=https://{LOOPBACK}:{ports.etcd}",
        f"--etcd-cafile={certs / 'etcd-ca.crt'}",
        f"--etcd-certfile={certs / 'etcd-client.crt'}",
        f"--etcd-keyfile={certs / 'etcd-client.key'}",
        f"--tls-cert-file={certs / 'api-server.crt'}",
        f"--tls-private-key-file={certs / 'api-server.key'}",
        f"--cert-dir={certs}",
        f"--client-ca-file={certs / 'ca.crt'}",
        "--anonymous-auth=false",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-jwks-uri=https://{network.bind}:{ports.api_server}/openid/v1/jwks",
        f"--service-account-key-file={certs / 'service-account.pub'}",
        f"--service-account-signing-key-file={certs / 'service-account.key'}",
        "--profiling=false",
    ]


def controller_manager_command(binaries: Binaries, state: Path, controllers: Sequence[str] = CONTROLLERS) -> list[str]:
    """Return the controller manager's command line; it serves nothing."""
    certs = state / "certs"
    return [
        str(binaries.controller_manager),
        f"--kubeconfig={state / 'controller-manager.kubeconfig'}",
        "--secure-port=0",
        "--leader-elect=false",
        f"--controllers={','.join(controllers)}",
        f"--root-ca-file={certs / 'ca.crt'}",
        f"--service-account-private-key-file={certs / 'service-account.key'}",
        "--profiling=false",
    ]
