"""kubectl as a person calls it, on the node's cluster."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keyturn_dev.kubeconfig import run_kubectl
from keyturn_dev.waiting import wait_until


class Kubectl:
    """Calls in one namespace."""

    def __init__(self, program: Path, kubeconfig: Path, namespace: str, folder: Path) -> None:
        self._program = program
        self._kubeconfig = kubeconfig
        self.namespace = namespace
        self._folder = folder

    def __call__(self, *arguments: str, seconds: float = 120) -> str:
        return run_kubectl(
            self._program, self._kubeconfig, f"--namespace={self.namespace}", *arguments, seconds=seconds
        )

    def get(self, *arguments: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self("get", *arguments, "--output=json"))
        return document

    def apply(self, *objects: dict[str, Any], seconds: float = 120) -> None:
        path = self._folder / f"{self.namespace}-apply.json"
        items: Sequence[dict[str, Any]] = objects
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), encoding="utf-8")
        self("apply", "--validate=strict", "-f", str(path), seconds=seconds)

    def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        """The object as the API server answers; a review is answered and not kept."""
        path = self._folder / f"{self.namespace}-create.json"
        path.write_text(json.dumps(obj), encoding="utf-8")
        answer: dict[str, Any] = json.loads(self("create", "-f", str(path), "--output=json"))
        return answer

    def wait_ready(self, resource: str, seconds: int = 120) -> None:
        """As the documents say it; a failure shows the object as someone on call would see it."""
        try:
            self("wait", "--for=condition=Ready", resource, f"--timeout={seconds}s", seconds=seconds + 30)
        except Exception as error:
            raise AssertionError(f"{error}\n{self('describe', resource)[-3000:]}") from error

    def wait_gone(self, resource: str, seconds: float = 60) -> None:
        wait_until(
            lambda: not self("get", resource, "--ignore-not-found", "--output=name").strip(),
            f"{resource} to be gone",
            seconds=seconds,
            interval=0.5,
        )

    def python(self, pod: str, code: str, *arguments: str, seconds: float = 60) -> str:
        """Runs Python in a pod and returns what it prints."""
        return self("exec", pod, "--", "python", "-c", code, *arguments, seconds=seconds)
