"""What a node, the charts and their tests need besides the local cluster's programs, built from pinned Go modules into the user's cache."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from typing import TYPE_CHECKING

from keyturn_dev.binaries import link_flags
from keyturn_dev.errors import DevError
from keyturn_dev.go_programs import BUILD_FLAGS, GoPrograms, ensure_programs, module_version
from keyturn_dev.paths import CONTROL_PLANE, COREDNS, HELM
from keyturn_dev.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NODE_PACKAGES: Mapping[str, str] = {
    name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kubelet", "kube-proxy", "kube-scheduler")
}


@dataclasses.dataclass(frozen=True)
class NodeBinaries:
    """Where the node's programs are."""

    kubelet: Path
    proxy: Path
    scheduler: Path
    coredns: Path


def ensure_helm(environ: Mapping[str, str], progress: Progress) -> Path:
    """Return Helm; raise `DevError` with the compiler's words."""
    kubernetes = module_version((CONTROL_PLANE / "go.mod").read_text(encoding="utf-8"), "k8s.io/kubernetes")
    major, minor = kubernetes.lstrip("v").split(".")[:2]
    chartutil = "helm.sh/helm/v3/pkg/chartutil"
    # What charts are rendered for where no cluster is asked.
    flags = f"{link_flags(kubernetes)} -X {chartutil}.k8sVersionMajor={major} -X {chartutil}.k8sVersionMinor={minor}"
    programs = _programs(HELM, {"helm": "helm.sh/helm/v3/cmd/helm"}, "helm.sh/helm/v3", "helm", flags)
    return ensure_programs(programs, ["helm"], environ, progress) / "helm"


def ensure_node_binaries(environ: Mapping[str, str], progress: Progress) -> NodeBinaries:
    """Return the node's programs, building those that the cache lacks; raise `DevError` with the compiler's words."""
    kubernetes = module_version((CONTROL_PLANE / "go.mod").read_text(encoding="utf-8"), "k8s.io/kubernetes")
    node = _programs(CONTROL_PLANE, NODE_PACKAGES, "k8s.io/kubernetes", "node", link_flags(kubernetes))
    folder = ensure_programs(node, NODE_PACKAGES, environ, progress)
    dns = _programs(
        COREDNS, {"coredns": "github.com/coredns/coredns"}, "github.com/coredns/coredns", "coredns", "-s -w"
    )
    return NodeBinaries(
        kubelet=folder / "kubelet",
        proxy=folder / "kube-proxy",
        scheduler=folder / "kube-scheduler",
        coredns=ensure_programs(dns, ["coredns"], environ, progress) / "coredns",
    )


def _programs(module: Path, packages: Mapping[str, str], pinned: str, name: str, flags: str) -> GoPrograms:
    go_mod = (module / "go.mod").read_text(encoding="utf-8")
    go_sum = (module / "go.sum").read_text(encoding="utf-8")
    version = module_version(go_mod, pinned)
    decisive = [go_mod, go_sum, flags, *BUILD_FLAGS, *sorted(packages.values())]
    digest = hashlib.sha256("\0".join(decisive).encode()).hexdigest()
    return GoPrograms(
        module=module,
        packages=packages,
        key=f"{name}-{version}-{digest[:16]}",
        link_flags=flags,
        what=f"{name} {version}",
        cost="1 to 4 minutes",
    )


def main() -> int:
    """`python -m keyturn_dev.node_programs [helm]`: have all of them ready, or Helm alone, and print where they are."""
    progress = Progress()
    try:
        print(ensure_helm(os.environ, progress))
        if sys.argv[1:] == ["helm"]:
            return 0
        for path in dataclasses.astuple(ensure_node_binaries(os.environ, progress)):
            print(path)
    except DevError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
