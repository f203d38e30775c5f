"""How each program of a node is called, and its configuration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from keyturn_dev.node_network import (
    CNI_PROGRAMS,
    DNS_SERVICE,
    NODE_ADDRESS,
    POD_RANGE,
    cni_configuration,
)

if TYPE_CHECKING:
    from pathlib import Path

    from keyturn_dev.node_programs import NodeBinaries

NODE_NAME: Final = "keyturn-node"
PAUSE_IMAGE: Final = "localhost/keyturn-pause:1"
# Not below the state folder: mounts in there outlive a removal of it.
DATA: Final = "/var/lib/keyturn-node"
CONTAINERD_SOCKET: Final = "/run/keyturn-node/containerd.sock"


def containerd_configuration(state: Path) -> str:
    """containerd's TOML: everything in folders of our own, beside whatever else runs containers on this machine."""
    return f"""\
version = 2
root = "{DATA}/containerd"
state = "/run/keyturn-node/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # In a container of its own the node may not lower anybody's score: runc would fail to start the sandbox.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{state / "cni"}"
"""


def kubelet_configuration(state: Path) -> dict[str, Any]:
    """The kubelet's configuration object."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(state / "certs" / "ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        # A full disk of the developer's machine must not evict pods in the middle of a test.
        "evictionHard": dict.fromkeys(("memory.available", "nodefs.available", "imagefs.available"), "0%"),
        "imageGCHighThresholdPercent": 100,
        # Changed Secrets reach their mounts within this, plus the watch's delay: the default is a minute.
        "syncFrequency": "5s",
    }


def corefile(kubeconfig: Path) -> str:
    """CoreDNS's configuration: the cluster's names, and for all others the answer that they do not exist."""
    return f"""\
cluster.local:53 in-addr.arpa:53 {{
  bind {NODE_ADDRESS}
  errors
  kubernetes {{
    kubeconfig {kubeconfig}
  }}
  cache 5
}}
.:53 {{
  bind {NODE_ADDRESS}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


def write_configuration(state: Path) -> None:
    """Writes what the node's programs read."""
    (state / "cni").mkdir(mode=0o700, exist_ok=True)
    network = cni_configuration(state / "addresses")
    (state / "cni" / "10-keyturn.conflist").write_text(json.dumps(network), encoding="utf-8")
    (state / "containerd.toml").write_text(containerd_configuration(state), encoding="utf-8")
    (state / "kubelet.json").write_text(json.dumps(kubelet_configuration(state)), encoding="utf-8")
    (state / "Corefile").write_text(corefile(state / "kubeconfig"), encoding="utf-8")


def scheduler_command(binaries: NodeBinaries, kubeconfig: Path) -> list[str]:
    """The scheduler's command line."""
    return [str(binaries.scheduler), f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]


def kubelet_command(binaries: NodeBinaries, state: Path) -> list[str]:
    """The kubelet's command line."""
    return [
        str(binaries.kubelet),
        f"--kubeconfig={state / 'kubelet.kubeconfig'}",
        f"--config={state / 'kubelet.json'}",
        f"--root-dir={DATA}/kubelet",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def proxy_command(binaries: NodeBinaries, kubeconfig: Path) -> list[str]:
    """kube-proxy's command line."""
    return [
        str(binaries.proxy),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NODE_NAME}",
        f"--cluster-cidr={POD_RANGE}",
        "--proxy-mode=iptables",
        # It may set neither in a container; neither matters to a test's few connections.
        "--conntrack-max-per-core=0",
    ]


def dns_service() -> list[dict[str, Any]]:
    """The Service `kube-dns`, which leads to CoreDNS on the node's own address."""
    ports = [{"name": f"dns-{each.lower()}", "port": 53, "protocol": each} for each in ("UDP", "TCP")]
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"clusterIP": DNS_SERVICE, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        },
    ]


def default_storage_class() -> dict[str, Any]:
    """A class for volumes that somebody makes by hand, as tests do."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
