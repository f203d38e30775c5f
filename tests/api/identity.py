"""Real HTTP servers on loopback that know users: a userinfo endpoint, and an OpenID Connect issuer with its keys."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt

from keyturn.jose.signing import PrivateKey


@dataclass
class Served:
    """What a server answers by path, and the headers that it was asked with."""

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, Any]:
        self.asked.append((path, headers))
        if path in self.answers:
            return self.answers[path]
        if path == "/userinfo":
            user = self.users.get(headers.get("authorization", "") or headers.get("cookie", ""))
            return (401, {"error": "unknown"}) if user is None else (200, user)
        return 404, {}


@contextmanager
def served(port: int = 0) -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = state.answer(self.path, {name.lower(): value for name, value in self.headers.items()})
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.send_header("set-cookie", "session=somebody; Path=/")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Issuer:
    """An issuer of users' tokens over a server."""

    def __init__(self, server: Served, *keys: PrivateKey) -> None:
        self.server = server
        self.url = server.url
        server.answers["/.well-known/openid-configuration"] = (
            200,
            {"issuer": server.url, "jwks_uri": f"{server.url}/keys"},
        )
        self.publish(*keys)

    def publish(self, *keys: PrivateKey) -> None:
        self.server.answers["/keys"] = (200, {"keys": [dict(key.public.jwk) for key in keys]})

    def token(self, key: PrivateKey, *, typ: str = "at+jwt", **claims: Any) -> str:
        """Made by an independent library."""
        now = int(time.time())
        body = {"iss": self.url, "sub": "ann", "aud": "orders", "iat": now, "exp": now + 300, **claims}
        return jwt.encode(body, key.to_pem().decode(), key.algorithm, {"kid": key.kid, "typ": typ})
