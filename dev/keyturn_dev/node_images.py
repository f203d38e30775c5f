"""Images for the node without a registry: built by buildah from Debian's packages, handed to the node's containerd."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keyturn_dev import images
from keyturn_dev.errors import DevError
from keyturn_dev.go_programs import GoPrograms, ensure_programs
from keyturn_dev.locking import exclusive
from keyturn_dev.node_components import CONTAINERD_SOCKET, PAUSE_IMAGE
from keyturn_dev.node_network import ROOT_PATH
from keyturn_dev.paths import PROJECT, cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keyturn_dev.progress import Progress

REPOSITORY: Final = "localhost/keyturn"
TAG: Final = "node"
# Stands in for the public image of Python.
BASE_IMAGE: Final = "localhost/keyturn-base:bookworm"
POSTGRESQL_IMAGE: Final = "localhost/keyturn-postgresql:15"
# A gateway for the tests' pods.
NGINX_IMAGE: Final = "localhost/keyturn-nginx:1"
_PACKAGES: Final = "python3,python3-venv,python3-pip,ca-certificates"
_SECONDS: Final = 1800


class NodeImages:
    """Builds each image once and loads it into the node."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._environ = {**os.environ, "BUILDAH_ISOLATION": "chroot", "PATH": f"{os.environ['PATH']}:{ROOT_PATH}"}

    def build(self) -> None:
        """Builds all that is missing: the base, PostgreSQL, nginx, the sandbox; and our own two, whose unchanged layers are kept."""
        lock = cache_folder(os.environ) / "images.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(lock, "building images", seconds=_SECONDS, on_wait=self._progress.say):
            if not self._has(PAUSE_IMAGE):
                self._pause()
            if not self._has(BASE_IMAGE):
                with self._step("building the base image (debootstrap)"):
                    self._base()
            with self._step("building PostgreSQL's image"):
                self._bud(PROJECT / "dev" / "node" / "postgresql", POSTGRESQL_IMAGE)
            with self._step("building nginx's image"):
                self._bud(PROJECT / "dev" / "node" / "nginx", NGINX_IMAGE)
            for part in images.PARTS:
                with self._step(f"building the {part}'s image"):
                    name = images.image_name(part, TAG, REPOSITORY)
                    images.build(part, name, engine="buildah", base=BASE_IMAGE, options=_TRUST, environ=self._environ)

    def load(self, image: str) -> None:
        """Hands an image to the node's containerd under the same name."""
        with tempfile.TemporaryDirectory() as folder:
            archive = f"{folder}/image.tar"
            self._run("buildah", "push", "--quiet", image, f"docker-archive:{archive}:{image}")
            self._ctr("images", "import", archive)

    def load_all(self) -> None:
        """Hands all of them over."""
        ours = [images.image_name(part, TAG, REPOSITORY) for part in images.PARTS]
        for image in (PAUSE_IMAGE, POSTGRESQL_IMAGE, NGINX_IMAGE, *ours):
            self.load(image)

    def tag(self, image: str, name: str) -> None:
        """Gives an image of the node a second name."""
        self._ctr("images", "tag", "--force", image, name)

    def _pause(self) -> None:
        folder = PROJECT / "dev" / "pause"
        program = GoPrograms(
            module=folder,
            packages={"pause": "keyturn.dev/dev/pause"},
            key=f"pause-{hashlib.sha256((folder / 'main.go').read_bytes()).hexdigest()[:16]}",
            link_flags="-s -w",
            what="the sandbox",
            cost="seconds",
        )
        built = ensure_programs(program, ["pause"], os.environ, self._progress) / "pause"
        with self._container("scratch") as container:
            self._run("buildah", "copy", "--quiet", container, str(built), "/pause")
            self._run("buildah", "config", "--entrypoint", '["/pause"]', container)
            self._run("buildah", "commit", "--quiet", container, PAUSE_IMAGE)

    def _base(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "root"
            self._run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root))
            (root / "usr" / "bin" / "python").symlink_to("python3")
            # As in the public image, pip may install there.
            for mark in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
                mark.unlink()
            with self._container("scratch") as container:
                self._run("buildah", "add", "--quiet", container, str(root), "/")
                self._run("buildah", "config", "--cmd", '["python3"]', container)
                self._run("buildah", "commit", "--quiet", container, BASE_IMAGE)

    def _bud(self, context: Path, name: str) -> None:
        command = ["buildah", "build", "--layers", "--build-arg", f"BASE={BASE_IMAGE}", *_TRUST]
        self._run(*command, "--tag", name, str(context))

    def _has(self, image: str) -> bool:
        found = subprocess.run(
            [self._program("buildah"), "images", "--quiet", image], env=self._environ, capture_output=True, check=False
        )
        return found.returncode == 0

    @contextlib.contextmanager
    def _container(self, image: str) -> Iterator[str]:
        container = self._run("buildah", "from", image).strip()
        try:
            yield container
        finally:
            self._run("buildah", "rm", container)

    @contextlib.contextmanager
    def _step(self, text: str) -> Iterator[None]:
        self._progress.begin(text)
        try:
            yield
        except BaseException:
            self._progress.abandon()
            raise
        self._progress.end(text)

    def _ctr(self, *arguments: str) -> str:
        return self._run("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._program(program), *arguments],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise DevError(f"{program} {arguments[0]} failed:\n{(done.stderr or done.stdout)[-3000:]}")
        return done.stdout

    def _program(self, name: str) -> str:
        found = shutil.which(name, path=self._environ["PATH"])
        if found is None:
            raise DevError(f"{name} is needed for a node; on Debian: apt-get install {' '.join(DEBIAN_PACKAGES)}")
        return found


# What installs inside a build trusts what this machine trusts. An overlay, since packages write there; it is thrown away.
_TRUST: Final[Sequence[str]] = ("--pull-never", "--volume=/etc/ssl/certs:/etc/ssl/certs:O")
DEBIAN_PACKAGES: Final = (
    "buildah",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "debootstrap",
    "iproute2",
    "iptables",
    "runc",
)
