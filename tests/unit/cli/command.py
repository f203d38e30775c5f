"""Calling the `keyturn` command in the process, with a token service that is a function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
from typer.testing import CliRunner

from keyturn_cli.main import app

if TYPE_CHECKING:
    from typer.testing import Result

ISSUER = "https://tokens.example.org"
METADATA = {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/oauth/token"}
GRANTED = {"access_token": "abc.DEF-1_2.ghi", "token_type": "Bearer", "expires_in": 900}


def keyturn(*arguments: str, env: dict[str, str] | None = None, stdin: bytes | None = None) -> Result:
    """Runs the command as a shell would; a wide terminal, so that no sentence is broken. KEYTURN_URL is unset unless given."""
    environment = {"COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1", "KEYTURN_URL": None, **(env or {})}
    return CliRunner().invoke(app, list(arguments), env=environment, input=stdin)


@dataclass
class TokenService:
    """Answers as told and remembers the requests. `failure` is raised instead of any answer."""

    metadata: tuple[int, Any] = (200, METADATA)
    answer: tuple[int, Any] = (200, GRANTED)
    headers: dict[str, str] = field(default_factory=dict)
    failure: type[httpx2.TransportError] | None = None
    requests: list[httpx2.Request] = field(default_factory=list)

    def open_client(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self.handle))

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure(f"no connection for {request.content!r}", request=request)
        status, body = self.metadata if request.method == "GET" else self.answer
        if callable(body):
            body = body(request)
        if isinstance(body, bytes):
            return httpx2.Response(status, content=body, headers=self.headers)
        return httpx2.Response(status, json=body, headers=self.headers)

    @property
    def form(self) -> list[tuple[str, str]]:
        """The fields of the one token request."""
        (request,) = [request for request in self.requests if request.method == "POST"]
        assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
        return httpx2.QueryParams(request.content).multi_items()
