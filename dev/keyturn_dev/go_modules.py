"""The contents of Go modules: other projects publish their schemas there, and the module proxy's checksums pin them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.golang import build_environment, find_go

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn_dev.progress import Progress

# The newest that a pinned module asks for.
_GO = (1, 26, 3)
_DOWNLOAD_SECONDS = 600


def read_sums(text: str) -> dict[str, tuple[str, str]]:
    """Read lines of `module version h1:sum`, as in a go.sum; return version and sum by module."""
    found = {}
    for line in text.splitlines():
        module, version, checksum = line.split()
        found[module] = (version, checksum)
    return found


def module_folder(module: str, sums: Path, environ: Mapping[str, str], progress: Progress) -> Path:
    """Return the folder with a module's files, downloaded into Go's cache if need be.

    Raise `DevError` where it cannot be had, or is another one than `sums` pins.
    """
    pinned = read_sums(sums.read_text(encoding="utf-8"))
    if module not in pinned:
        raise DevError(f"{sums.name} does not pin {module}")
    version, checksum = pinned[module]
    go = find_go(_GO, environ, progress)
    # Outside of any module: nothing of ours is asked for, or changed.
    with tempfile.TemporaryDirectory(prefix="keyturn-module-") as elsewhere:
        try:
            done = subprocess.run(
                [str(go), "mod", "download", "-json", f"{module}@{version}"],
                cwd=elsewhere,
                env={**build_environment(environ), "GOFLAGS": "-mod=mod"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_DOWNLOAD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DevError(f"downloading {module} took longer than 10 minutes") from None
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise DevError(f"go does not download {module}:\n{done.stderr[-2000:].strip()}") from None
    if "Error" in told:
        raise DevError(f"go does not download {module}: {told['Error']}")
    if told["Sum"] != checksum:
        raise DevError(f"{module} {version} has the checksum {told['Sum']}, not the one that {sums.name} pins")
    return Path(told["Dir"])
