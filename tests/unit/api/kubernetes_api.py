"""A Kubernetes API that answers what a test says, and remembers what it was asked."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson

from keyturn_api.kubernetes import Access, Kubernetes

Answer = httpx2.Response | Exception
NAMESPACE = "team"


class KubernetesApi:
    """`answers` maps (method, path) to a function of the request's body, whose result is the answer (a dict: 200)."""

    def __init__(self, tmp_path: Path) -> None:
        self.token_file = tmp_path / "token"
        self.token_file.write_text("own-token\n")
        self.answers: dict[tuple[str, str], Callable[[Any], dict[str, Any] | Answer]] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.headers: list[httpx2.Headers] = []

    def client(self) -> Kubernetes:
        access = Access("http://kubernetes.test", NAMESPACE, self.token_file)
        return Kubernetes(access, transport=httpx2.MockTransport(self._answer))

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0)
        body = orjson.loads(request.content) if request.content else None
        self.calls.append((request.method, request.url.path, body))
        self.headers.append(request.headers)
        asked = (request.method, request.url.path)
        answer = self.answers[asked](body) if asked in self.answers else status(404, "NotFound")
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, dict):
            answer = httpx2.Response(200, json=answer)
        # Unread, as it comes from a network.
        return httpx2.Response(answer.status_code, headers=answer.headers, stream=httpx2.ByteStream(answer.content))


def status(code: int, reason: str = "") -> httpx2.Response:
    """A Kubernetes Status."""
    return httpx2.Response(code, json={"kind": "Status", "code": code, "reason": reason, "message": "secret-words"})
