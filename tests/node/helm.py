"""Helm as a person calls it, on the node's cluster."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keyturn_dev.node_programs import ensure_helm
from keyturn_dev.progress import Progress
from tests.crd_schemas import PROJECT

CHARTS = PROJECT / "charts"


class HelmFailed(AssertionError):
    """Helm's own words."""


class Helm:
    """Calls Helm with the administrator's kubeconfig; `values` go through a file, as people keep theirs."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._program = ensure_helm(os.environ, Progress())
        self._folder = folder
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "KUBECONFIG": str(kubeconfig),
        }

    def run(self, *arguments: str, seconds: float = 300) -> str:
        done = subprocess.run(
            [self._program, *arguments],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise HelmFailed(f"helm {' '.join(arguments)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def install(
        self, release: str, namespace: str, values: Mapping[str, Any], *more: str, chart: str = "keyturn"
    ) -> str:
        """Installs or upgrades, and waits for nothing unless `--wait` is among `more`."""
        path = self._folder / f"{namespace}-{release}.json"
        path.write_text(json.dumps(values), encoding="utf-8")
        command: Sequence[str] = ("upgrade", "--install", release, str(CHARTS / chart), "--namespace", namespace)
        return self.run(*command, "--create-namespace", "--values", str(path), *more)

    def test(self, release: str, namespace: str) -> str:
        return self.run("test", release, "--namespace", namespace, "--timeout", "3m")

    def uninstall(self, release: str, namespace: str, *more: str) -> str:
        return self.run("uninstall", release, "--namespace", namespace, "--wait", "--timeout", "2m", *more)
