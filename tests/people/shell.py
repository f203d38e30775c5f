"""A person's shell: kubectl and keyturn on the PATH, and their kubeconfig."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.clients import World
from tests.documents import RUN_BY, blocks
from tests.people.command_line import kubeconfig


def shown(page: Path, beginning: str = "") -> str:
    """The one block of a page that a test runs and that begins so."""
    found = [one.text for one in blocks(page) if RUN_BY.fullmatch(one.mark) and one.text.startswith(beginning)]
    (text,) = found
    return text


def run(world: World, script: str, folder: Path, **environ: str) -> str:
    """What the commands print; fails with all of it when one of them does."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, program in {
        "kubectl": world.installation.target.kubectl,
        "keyturn": Path(sys.executable).parent / "keyturn",
    }.items():
        if not (programs / name).exists():
            (programs / name).symlink_to(program)
    done = subprocess.run(
        ["/bin/sh", "-eu"],
        input=script,
        cwd=folder,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "KUBECONFIG": str(kubeconfig(world)), **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout
