"""docs/install.md as a script: its commands section by section, its files, and a shell to type them into."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from keyturn_dev.node import NodeCluster
from tests.documents import PROJECT, RUN_BY, Block, blocks

PAGE = PROJECT / "docs" / "install.md"
_HEADING = re.compile(r"^##+ (.+)$", re.MULTILINE)


def section(title: str) -> list[Block]:
    """The blocks below a heading, up to the next one."""
    text = PAGE.read_text(encoding="utf-8")
    (begin,) = [found.end() for found in _HEADING.finditer(text) if found[1] == title]
    end = min((found.start() for found in _HEADING.finditer(text) if found.start() > begin), default=len(text))
    return [block for block in blocks(PAGE) if block.text in text[begin:end]]


def commands(title: str) -> list[str]:
    """What a section tells the reader to type, block by block."""
    return [block.text for block in section(title) if RUN_BY.fullmatch(block.mark)]


def shown(title: str, language: str) -> str:
    """The one block of this language in a section that carries a mark."""
    (text,) = [block.text for block in section(title) if block.language == language and block.mark]
    return text


def shown_object(title: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(shown(title, "yaml"))
    return loaded


class Shell:
    """A person's shell in a checkout, whose cluster is the node's. The page's project `shop` may have another name here.

    The one thing that differs from what the page says: Helm gets one more values file for the project's chart, which names this machine's
    images in place of the published ones.
    """

    def __init__(
        self, node: NodeCluster, helm: Path, folder: Path, values: dict[str, Any], *, project: str = "shop"
    ) -> None:
        self.folder = folder
        self.project = project
        for name in ("charts", "docs", "examples"):
            (folder / name).symlink_to(PROJECT / name)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "kubectl").symlink_to(node.kubectl)
        (folder / "machine.json").write_text(json.dumps(values), encoding="utf-8")
        ours = shlex.quote(str(folder / "machine.json"))
        wrapper = (
            f'#!/bin/sh\ncase " $* " in *" upgrade "*" charts/keyturn "*) set -- "$@" --values {ours} ;; esac\n'
            f'exec {shlex.quote(str(helm))} "$@"\n'
        )
        (programs / "helm").write_text(wrapper, encoding="utf-8")
        (programs / "helm").chmod(0o755)
        self._environ = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "KUBECONFIG": str(node.kubeconfig),
        }

    def __call__(self, script: str, seconds: float = 400) -> str:
        """What the commands print; fails with all of it when one of them does."""
        if self.project != "shop":
            script = re.sub(r"\bshop\b(?!\.yaml)", self.project, script)
        done = subprocess.run(
            ["/bin/sh", "-eu"],
            input=script,
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    @contextlib.contextmanager
    def newer_charts(self, version: str) -> Iterator[None]:
        """A checkout of a later version: charts that bear its number."""
        charts = self.folder / "charts"
        charts.unlink()
        shutil.copytree(PROJECT / "charts", charts)
        try:
            for path in charts.glob("*/Chart.yaml"):
                described = yaml.safe_load(path.read_text(encoding="utf-8"))
                later = {**described, "version": version, "appVersion": version}
                path.write_text(yaml.safe_dump(later), encoding="utf-8")
            yield
        finally:
            shutil.rmtree(charts)
            charts.symlink_to(PROJECT / "charts")

    def scripts(self, title: str) -> list[str]:
        """What a section tells the reader to type, block by block."""
        return commands(title)

    def section(self, title: str, seconds: float = 400) -> str:
        """Types everything that a section says."""
        scripts = commands(title)
        assert scripts, title
        return "".join(self(script, seconds) for script in scripts)

    def save_values(self) -> str:
        """The page's values file, as the reader saves it; returns the issuer in it."""
        text = shown("A project", "yaml")
        issuer: str = yaml.safe_load(text)["issuer"]
        own = issuer.replace("shop", self.project)
        (self.folder / "shop.yaml").write_text(text.replace(issuer, own), encoding="utf-8")
        return own
