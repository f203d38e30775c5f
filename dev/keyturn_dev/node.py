"""A real Kubernetes node on this machine: kubelet, containerd, kube-proxy, scheduler and CoreDNS beside the local cluster's servers.

`python -m keyturn_dev.node up|down|status` as root. Pods are real, images are built here, and no registry is asked. There is one node
on a machine: its addresses and bridges are fixed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keyturn_dev import process
from keyturn_dev.certificates import ClusterCertificates, make_certificates
from keyturn_dev.cluster import CONTENTS, Cluster
from keyturn_dev.errors import DevError
from keyturn_dev.kubeconfig import certificate_user, kubeconfig_document, run_kubectl, write_kubeconfig
from keyturn_dev.node_components import (
    CONTAINERD_SOCKET,
    DATA,
    NODE_NAME,
    default_storage_class,
    dns_service,
    kubelet_command,
    proxy_command,
    scheduler_command,
    write_configuration,
)
from keyturn_dev.node_images import NodeImages
from keyturn_dev.node_network import (
    KUBERNETES_SERVICE,
    NETWORK,
    NODE_ADDRESS,
    ROOT_PATH,
    make_bridge,
    remove_bridges,
)
from keyturn_dev.node_programs import NodeBinaries, ensure_node_binaries
from keyturn_dev.node_remains import clear_mounts, clear_network_namespaces, end_containers, end_orphans, quietly
from keyturn_dev.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn_dev.progress import Progress

NODE_STATE: Final = PROJECT / ".run" / "node"


class NodeCluster(Cluster):
    """A local cluster with one node that runs pods."""

    contents = (
        *CONTENTS,
        "addresses",
        "cni",
        "containerd.toml",
        "Corefile",
        "kubelet.json",
        "kubelet.kubeconfig",
    )
    network = NETWORK
    controllers: tuple[str, ...] = ("*",)

    def __init__(
        self,
        state: Path = NODE_STATE,
        *,
        environ: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(state, environ=environ, progress=progress)
        self.images = NodeImages(self._progress)
        self._node: NodeBinaries | None = None

    def up(self) -> Path:
        """Start everything and return the administrator's kubeconfig; images are built before. Needs root."""
        if os.geteuid() != 0:
            raise DevError("a node needs root: it makes bridges, mounts and namespaces")
        self._node = ensure_node_binaries(self._environ, self._progress)
        self.images.build()
        return super().up()

    def _make_certificates(self) -> ClusterCertificates:
        now = datetime.datetime.now(datetime.UTC)
        return make_certificates(now, addresses=(NODE_ADDRESS, KUBERNETES_SERVICE), node=NODE_NAME)

    def _start(self, binaries: Any, lock: int) -> None:
        # The API server listens on the node's address.
        make_bridge()
        super()._start(binaries, lock)

    def _start_more(self, cluster: dict[str, str], certificates: ClusterCertificates, lock: int) -> None:
        assert self._node is not None
        assert certificates.kubelet is not None
        user = certificate_user(certificates.kubelet)
        kubelet = kubeconfig_document(cluster, user, user_name=f"system:node:{NODE_NAME}")
        write_kubeconfig(self.state / "kubelet.kubeconfig", kubelet)
        write_configuration(self.state)
        for folder in (DATA, str(Path(CONTAINERD_SOCKET).parent)):
            Path(folder).mkdir(mode=0o711, parents=True, exist_ok=True)
        containerd = shutil.which("containerd", path=ROOT_PATH)
        if containerd is None:
            raise DevError("containerd is needed for a node; on Debian: apt-get install containerd")
        self._spawn("containerd", [containerd, "--config", str(self.state / "containerd.toml")], lock, path=ROOT_PATH)
        self._wait(self._containerd_answers, "containerd to answer")
        # Of a node before, which was ended halfway.
        end_containers()
        self.images.load_all()
        self._spawn("kube-scheduler", scheduler_command(self._node, self.kubeconfig), lock)
        self._spawn("kubelet", kubelet_command(self._node, self.state), lock, path=ROOT_PATH)
        self._spawn("kube-proxy", proxy_command(self._node, self.kubeconfig), lock, path=ROOT_PATH)
        self._spawn("coredns", [str(self._node.coredns), "-conf", str(self.state / "Corefile")], lock)
        objects = self.state / "cni" / "objects.json"
        items = [*dns_service(), default_storage_class()]
        objects.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), encoding="utf-8")
        run_kubectl(self.kubectl, self.kubeconfig, "apply", "-f", str(objects))
        self._wait(self._node_is_ready, "the node to be ready")

    def _containerd_answers(self) -> bool:
        return quietly(["ctr", "--address", CONTAINERD_SOCKET, "version"]) is not None

    def _node_is_ready(self) -> bool:
        command = ["wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=1s"]
        return quietly([str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *command]) is not None

    def _clear(self) -> bool:
        records = {record.name: record for record in process.read_records(self.state / "processes")}
        if "kubelet" in records and self.kubeconfig.exists():
            self._delete_pods(records)
        if "containerd" in records and process.is_alive(records["containerd"]):
            end_containers()
        if records:
            node = self._node or ensure_node_binaries(self._environ, self._progress)
            quietly([str(node.proxy), "--cleanup"])
        stopped = super()._clear()
        if records:
            end_orphans()
            clear_network_namespaces()
            clear_mounts()
            remove_bridges()
        return stopped

    def _delete_pods(self, records: Mapping[str, process.ProcessRecord]) -> None:
        """Only the kubelet takes a pod's mounts, namespaces and addresses away; and nothing starts new pods meanwhile."""
        for name in ("kube-controller-manager", "kube-scheduler"):
            if name in records:
                process.stop(records[name])
        needed = [records.get(name) for name in ("kubelet", "etcd", "kube-apiserver", "containerd")]
        if all(one is not None and process.is_alive(one) for one in needed):
            command = ["delete", "pods", "--all-namespaces", "--all", "--grace-period=1", "--timeout=30s"]
            quietly([str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *command], 60)
        for name in ("kubelet", "kube-proxy"):
            if name in records:
                process.stop(records[name], grace=5.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 wrongly called, 3 (status) not up."""
    parser = argparse.ArgumentParser(prog="python -m keyturn_dev.node", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--state", type=Path, default=NODE_STATE, help="state folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cluster = NodeCluster(options.state)
    try:
        if options.command == "up":
            cluster.up()
            print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
        elif options.command == "down":
            print("the node is down" if cluster.down() else "no node was running", file=sys.stderr)
        else:
            print("up" if cluster.is_up() else "not up")
            return 0 if cluster.is_up() else 3
    except DevError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
