"""The `keyturn` command as a person calls it: a process with their kubeconfig, in a folder of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.cluster.clients import World


def keyturn(
    world: World, *arguments: str, stdin: str = "", folder: Path | None = None, url: bool = True, seconds: float = 90
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "KUBECONFIG": str(kubeconfig(world)),
        "XDG_CACHE_HOME": str(world.installation.state / "cache"),
        "COLUMNS": "400",
        "TERM": "dumb",
        **({"KEYTURN_URL": world.replicas[0].url} if url else {}),
    }
    return subprocess.run(
        [sys.executable, "-m", "keyturn_cli.main", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env=environment,
        cwd=folder,
    )


def kubeconfig(world: World) -> Path:
    """The administrator's, with this installation's namespace as the context's."""
    path = world.installation.state / "people.kubeconfig"
    if not path.exists():
        document = yaml.safe_load(world.installation.target.kubeconfig.read_text("utf-8"))
        for context in document["contexts"]:
            context["context"]["namespace"] = world.namespace
        path.write_text(yaml.safe_dump(document), "utf-8")
        path.chmod(0o600)
    return path


def metrics(world: World) -> list[str]:
    return [
        word for one in world.installation.apis for word in ("--metrics-url", f"http://127.0.0.1:{one.metrics}/metrics")
    ]
