"""The API behind a gateway: it tells what reached it, as it was on the wire."""

import asyncio
import contextlib
import hashlib
import json
from dataclasses import dataclass

TEST_ID = "x-test-id"


@dataclass(frozen=True)
class Seen:
    """A request as the gateway handed it on. `headers` with names in lower case, in their order."""

    method: str
    target: bytes
    headers: tuple[tuple[str, str], ...]
    length: int
    digest: str

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def host(self) -> str | None:
        return next(iter(self.values("host")), None)

    def as_cgi(self) -> dict[str, list[str]]:
        """The headers under the names that CGI and WSGI give them: there a hyphen is an underscore."""
        named: dict[str, list[str]] = {}
        for key, value in self.headers:
            named.setdefault(key.upper().replace("-", "_"), []).append(value)
        return named


class Upstream:
    """A small HTTP/1.1 server that takes whatever a gateway sends. What it saw is kept by the header X-Test-Id."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head[:-4].split(b"\r\n")
        method, _, rest = line.partition(b" ")
        target, _, version = rest.rpartition(b" ")
        headers = []
        for field in fields:
            name, _, value = field.partition(b":")
            headers.append((name.decode("latin-1").lower(), value.strip().decode("latin-1")))
        named = dict(headers)
        if named.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _body(reader, named)
        request = Seen(method.decode("latin-1"), target, tuple(headers), len(body), hashlib.sha256(body).hexdigest())
        self.seen[named.get(TEST_ID, "")] = request
        answer = json.dumps({"target": target.decode("latin-1"), "length": len(body)}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-upstream: reached\r\ncontent-length: %d\r\n\r\n"
            % len(answer)
        )
        if method != b"HEAD":
            writer.write(answer)
        await writer.drain()
        return version == b"HTTP/1.1" and named.get("connection", "").lower() != "close"


async def _body(reader: asyncio.StreamReader, named: dict[str, str]) -> bytes:
    if named.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(named.get("content-length", "0")))
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass  # trailers
    return b"".join(parts)
