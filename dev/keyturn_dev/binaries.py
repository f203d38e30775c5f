"""The programs of the local cluster, built once from pinned Go modules into the user's cache."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.go_programs import BUILD_FLAGS, GoPrograms, ensure_programs, module_version
from keyturn_dev.paths import CONTROL_PLANE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from keyturn_dev.progress import Progress

PACKAGES: Mapping[str, str] = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
SERVERS = ("etcd", "kube-apiserver", "kube-controller-manager")
OLDEST_KUBECTL = (1, 32)


@dataclasses.dataclass(frozen=True)
class Binaries:
    """Where the programs are. `kubectl` is the person's own where that is recent enough."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    kubectl: Path


def link_flags(kubernetes: str) -> str:
    """Return the linker's flags for a Kubernetes version; without them no client can parse the server's version."""
    major, minor = kubernetes.lstrip("v").split(".")[:2]
    values = {"gitVersion": kubernetes, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def cache_key(go_mod: str, go_sum: str) -> str:
    """Return the name under which the programs are cached: versions for people, a hash of all that decides it."""
    kubernetes = module_version(go_mod, "k8s.io/kubernetes")
    etcd = module_version(go_mod, "go.etcd.io/etcd/server/v3")
    decisive = [go_mod, go_sum, link_flags(kubernetes), *BUILD_FLAGS, *sorted(PACKAGES.values())]
    digest = hashlib.sha256("\0".join(decisive).encode()).hexdigest()
    return f"kubernetes-{kubernetes}-etcd-{etcd}-{digest[:16]}"


def parse_kubectl_version(output: str) -> tuple[int, int] | None:
    """Read `kubectl version --client -o json`; None if it is something else (its `minor` may read `32+`)."""
    try:
        text = json.loads(output)["clientVersion"]["gitVersion"]
        found = re.match(r"v(\d+)\.(\d+)\.", text)
    except (ValueError, KeyError, TypeError):
        return None
    return (int(found[1]), int(found[2])) if found else None


def kubectl_on_path(environ: Mapping[str, str]) -> Path | None:
    """Return the person's own kubectl if it is recent enough for the cluster."""
    found = shutil.which("kubectl", path=environ.get("PATH"))
    if found is None:
        return None
    try:
        command = [found, "version", "--client", "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=dict(environ))
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = parse_kubectl_version(done.stdout)
    return Path(found) if version is not None and version >= OLDEST_KUBECTL else None


def ensure_binaries(environ: Mapping[str, str], progress: Progress) -> Binaries:
    """Return all programs, building those that the cache lacks; raise `DevError` with the compiler's words."""
    kubectl = kubectl_on_path(environ)
    folder = _ensure(SERVERS if kubectl else (*SERVERS, "kubectl"), environ, progress)
    return Binaries(
        etcd=folder / "etcd",
        apiserver=folder / "kube-apiserver",
        controller_manager=folder / "kube-controller-manager",
        kubectl=kubectl or folder / "kubectl",
    )


def ensure_kubectl(environ: Mapping[str, str], progress: Progress) -> Path:
    """Return a kubectl: the person's own, else one built into the cache."""
    return kubectl_on_path(environ) or _ensure(("kubectl",), environ, progress) / "kubectl"


def _ensure(names: Iterable[str], environ: Mapping[str, str], progress: Progress) -> Path:
    go_mod = (CONTROL_PLANE / "go.mod").read_text(encoding="utf-8")
    go_sum = (CONTROL_PLANE / "go.sum").read_text(encoding="utf-8")
    kubernetes = module_version(go_mod, "k8s.io/kubernetes")
    programs = GoPrograms(
        module=CONTROL_PLANE,
        packages=PACKAGES,
        key=cache_key(go_mod, go_sum),
        link_flags=link_flags(kubernetes),
        what=f"the cluster's programs, Kubernetes {kubernetes}",
        cost="3 to 10 minutes and 6 GB of Go's caches",
    )
    return ensure_programs(programs, names, environ, progress)
