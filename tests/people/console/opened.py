"""Consoles as people start them, with the kubeconfig of whoever they are, and the browser that looks at them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from tests.documents import PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import Page

    from tests.cluster.clients import World

IMAGES = PROJECT / "docs" / "images"
RBAC = "rbac.authorization.k8s.io"


@dataclass
class Opened:
    """A running console: its address, and what the browser complained of. `foreign`: it was shown other pages, too."""

    url: str
    process: subprocess.Popen[str]
    complaints: list[str] = field(default_factory=list)
    foreign: bool = False

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


def start(world: World, *options: str, kubeconfig: Path | None = None) -> Opened:
    """Starts `keyturn console` and waits for the address that it prints."""
    command = [sys.executable, "-m", "keyturn_cli.main", "console", "--no-browser", "--namespace", world.namespace]
    access = kubeconfig or world.installation.target.kubeconfig
    process = subprocess.Popen(
        [*command, "--kubeconfig", str(access), "--url", world.replicas[0].url, *options],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")},
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), url
    return Opened(url, process)


def end(opened: Opened) -> None:
    """As Ctrl-C does."""
    opened.process.terminate()
    opened.process.wait(timeout=20)
    assert opened.process.stdout is not None
    opened.process.stdout.close()


def kubeconfig_of(world: World, name: str, folder: Path, rules: Sequence[dict[str, Any]]) -> Path:
    """The kubeconfig of somebody who may do this in the namespace, and nothing else."""
    metadata = {"name": name, "namespace": world.namespace}
    world.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        },
    )
    document = yaml.safe_load((world.installation.state / "operator.kubeconfig").read_text(encoding="utf-8"))
    document["users"][0]["user"] = {"token": world.kubectl("create", "token", name).strip()}
    path = folder / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def watch_over(page: Page, opened: Opened) -> None:
    """Notes errors, refusals of the Content-Security-Policy, dialogs, and requests that go elsewhere."""

    def told(message: Any) -> None:
        # A page that says why something was not done is no failure of its own.
        if message.type == "error" and "status of 409" not in message.text:
            opened.complaints.append(message.text)

    page.on("console", told)
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))

    def dialog(shown: Any) -> None:
        opened.complaints.append(f"a dialog: {shown.message}")
        shown.dismiss()

    page.on("dialog", dialog)

    def requested(request: Any) -> None:
        if not request.url.startswith(f"{opened.origin}/"):
            opened.complaints.append(f"asked for {request.url}")

    page.on("request", requested)


def picture(page: Page, name: str) -> None:
    """Writes a picture of the page for the documents, where such files are to be written."""
    page.set_viewport_size({"width": 1100, "height": 760})
    shot = page.screenshot(full_page=True, animations="disabled", caret="hide")
    assert shot.startswith(b"\x89PNG")
    if os.environ.get("UPDATE_GOLDEN") == "1":
        (IMAGES / f"console-{name}.png").write_bytes(shot)
