"""A collector of traces: takes OTLP over HTTP as JSON and keeps the spans."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.secrecy.planted import PLANTED


@dataclass(frozen=True)
class Received:
    """One span, with the service that sent it."""

    service: str
    name: str
    trace: str
    parent: str
    attributes: dict[str, Any]
    text: str


class Collector:
    """What has arrived so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.paths: set[str] = set()
        self._spans: list[Received] = []
        self._lock = threading.Lock()

    def take(self, path: str, body: bytes) -> None:
        found = []
        for resource in json.loads(body)["resourceSpans"]:
            service = _attributes(resource["resource"])["service.name"]
            found += [
                Received(
                    service,
                    span["name"],
                    span["traceId"],
                    span.get("parentSpanId", ""),
                    _attributes(span),
                    json.dumps([resource["resource"], span]),
                )
                for scope in resource["scopeSpans"]
                for span in scope["spans"]
            ]
        with self._lock:
            self.paths.add(path)
            self._spans += found

    def spans(self, **wanted: str) -> list[Received]:
        """Those whose members are as wanted."""
        with self._lock:
            return [one for one in self._spans if all(getattr(one, name) == value for name, value in wanted.items())]


def _attributes(holder: dict[str, Any]) -> dict[str, Any]:
    """OTLP writes 64-bit integers as text, as JSON's protobuf mapping has it."""
    told = {}
    for one in holder.get("attributes", ()):
        ((kind, value),) = one["value"].items()
        told[one["key"]] = int(value) if kind == "intValue" else value
    return told


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.path, self.rfile.read(int(self.headers["content-length"])))
            body = b"{}"
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the test says what is missing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector = Collector(f"http://127.0.0.1:{server.server_address[1]}/v1/traces")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join(timeout=10)
            PLANTED.keep("traces", "\n".join(one.text for one in collector.spans()))
