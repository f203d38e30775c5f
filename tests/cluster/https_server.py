"""A web server with TLS on loopback, for keys that are fetched: it answers as the test says and notes what it was asked."""

from __future__ import annotations

import datetime
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from keyturn_dev.certificates import Authority

Handler = http.server.BaseHTTPRequestHandler


def answer(status: int, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    """Answers every request like this."""

    def send(request: Handler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return send


@dataclass
class HttpsServer:
    """`answer` is what it does with a request; `asked` are the paths, `hosts` the Host headers, `names` those of TLS (SNI)."""

    address: str
    port: int
    ca_file: Path
    answer: Callable[[Handler], None]
    asked: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)


@contextmanager
def https_server(
    folder: Path, *, address: str = "127.0.0.1", port: int = 0, names: tuple[str, ...] = ("127.0.0.1", "localhost")
) -> Iterator[HttpsServer]:
    """Serves with a certificate for these names, by an authority of its own (in `ca_file`)."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority("keys-for-tests", datetime.datetime.now(datetime.UTC))
    issued = authority.issue("keys", names=names)
    ca_file, certificate, key = folder / "ca.crt", folder / "server.crt", folder / "server.key"
    ca_file.write_bytes(authority.certificate)
    certificate.write_bytes(issued.certificate)
    key.write_bytes(issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Requests(Handler):
        def do_GET(self) -> None:  # noqa: N802
            own.asked.append(self.path)
            own.hosts.append(self.headers.get("Host", ""))
            own.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing on the test's output."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that goes away in between is what some tests are about."""

    server = Server((address, port), Requests)
    own = HttpsServer(address, server.server_address[1], ca_file, answer(404))
    context.sni_callback = lambda _socket, name, _context: own.names.append(name)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield own
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
