"""The programs of the local cluster, built once from pinned Go modules into the user's cache."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.golang import build_environment, find_go, required_go
from keyturn_dev.locking import exclusive
from keyturn_dev.paths import CONTROL_PLANE, cache_folder

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
_BUILD_FLAGS = ("-trimpath", "-buildvcs=false", "-v")
_BUILD_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class Binaries:
    """Where the programs are. `kubectl` is the person's own where that is recent enough."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    kubectl: Path


def module_version(go_mod: str, module: str) -> str:
    """Return the version at which a go.mod pins a module, such as `v1.34.4`."""
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise DevError(f"go.mod does not pin {module}")
    return found[1]


def link_flags(kubernetes: str) -> str:
    """Return the linker's flags for a Kubernetes version; without them no client can parse the server's version."""
    major, minor = kubernetes.lstrip("v").split(".")[:2]
    values = {"gitVersion": kubernetes, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def cache_key(go_mod: str, go_sum: str) -> str:
    """Return the name under which the programs are cached: versions for people, a hash of all that decides it."""
    kubernetes = module_version(go_mod, "k8s.io/kubernetes")
    etcd = module_version(go_mod, "go.etcd.io/etcd/server/v3")
    decisive = [go_mod, go_sum, link_flags(kubernetes), *_BUILD_FLAGS, *sorted(PACKAGES.values())]
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
    folder = cache_folder(environ) / "bin" / cache_key(go_mod, go_sum)

    def missing() -> list[str]:
        return [name for name in names if not (folder / name).exists()]

    if not missing():
        return folder
    lock = folder.with_name(folder.name + ".lock")
    with exclusive(lock, "building the cluster's programs", seconds=_BUILD_SECONDS, on_wait=progress.say) as descriptor:
        if todo := missing():
            folder.mkdir(exist_ok=True)
            for stale in folder.glob("*.partial"):
                stale.unlink()
            go = find_go(required_go(go_mod), environ, progress)
            kubernetes = module_version(go_mod, "k8s.io/kubernetes")
            progress.say(
                f"Building {', '.join(todo)} (Kubernetes {kubernetes}) with {go}:"
                " 3 to 10 minutes and 6 GB of Go's caches, once. They are kept in"
                f" {folder}."
            )
            for name in todo:
                _build(go, name, folder, link_flags(kubernetes), environ, progress, descriptor)
    return folder


def _build(
    go: Path, name: str, folder: Path, flags: str, environ: Mapping[str, str], progress: Progress, lock: int
) -> None:
    """Build one program; it appears under its name at once, whole, or not at all."""
    partial = folder / f"{name}.partial"
    command = [str(go), "build", *_BUILD_FLAGS, f"-ldflags={flags}", "-o", str(partial), PACKAGES[name]]
    progress.begin(f"building {name}")
    # The compiler keeps the lock too: if this process is killed, the next one waits for it and starts cleanly.
    child = subprocess.Popen(
        command,
        cwd=CONTROL_PLANE,
        env=build_environment(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        pass_fds=(lock,),
    )
    try:
        assert child.stderr is not None
        output = _CompilerOutput(child.stderr)
        for _ in range(_BUILD_SECONDS):
            try:
                child.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                progress.update(f"building {name}: {output.doing()}")
        else:
            raise DevError(f"building {name} took longer than an hour")
        output.finish()
        if child.returncode != 0:
            raise DevError(f"building {name} failed:\n" + "\n".join(output.tail))
        os.replace(partial, folder / name)  # noqa: PTH105 - the name of the atomic operation
    except BaseException:
        progress.abandon()
        child.terminate()
        child.wait()
        partial.unlink(missing_ok=True)
        raise
    finally:
        if child.stderr is not None:
            child.stderr.close()
    progress.end(f"building {name}")


class _CompilerOutput:
    """What `go build -v` says: a line per module downloaded and per package compiled, and its errors."""

    def __init__(self, stream: IO[str]) -> None:
        self.tail: collections.deque[str] = collections.deque(maxlen=30)
        self._downloads = 0
        self._packages = 0
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def doing(self) -> str:
        if self._packages:
            return f"{self._packages} packages compiled"
        return f"{self._downloads} modules downloaded" if self._downloads else "looking at what is there"

    def finish(self) -> None:
        self._reader.join(timeout=10)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            text = line.rstrip()
            self.tail.append(text[:500])
            if text.startswith("go: downloading "):
                self._downloads += 1
            elif re.fullmatch(r"[a-z0-9][\w.\-~/]*", text):
                self._packages += 1
