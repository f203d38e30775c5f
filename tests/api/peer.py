"""Small servers of the test's own, for what the service calls."""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Answer = tuple[int, Any]


class Peer:
    """`async with Peer(answer) as peer`: answers each request with a status and a JSON document, after `delay` seconds."""

    def __init__(self, answer: Callable[[Asked], Answer], *, context: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._context = context
        self.asked: list[Asked] = []
        self.delay = 0.0
        self.most_at_once = 0
        self._now = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._context else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        return self._now > 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            asked = Asked(method, path, headers, body)
            self.asked.append(asked)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            await asyncio.sleep(self.delay)
            self._now -= 1
            status, document = self._answer(asked)
            content = json.dumps(document).encode()
            writer.write(
                b"HTTP/1.1 %d x\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, len(content), content)
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class TlsFront:
    """Speaks TLS in front of a PostgreSQL server that does not, and counts its connections."""

    _SSL_REQUEST = bytes((0, 0, 0, 8, 4, 210, 22, 47))

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._backend = port
        self._context = context
        self.port = 0
        self.most_at_once = 0
        self._now = 0
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            try:
                assert await reader.readexactly(8) == self._SSL_REQUEST
                writer.write(b"S")
                await writer.start_tls(self._context)
                behind, before = await asyncio.open_connection("127.0.0.1", self._backend)
                self._now += 1
                self.most_at_once = max(self.most_at_once, self._now)
                try:
                    await asyncio.gather(_pipe(reader, before), _pipe(behind, writer))
                finally:
                    self._now -= 1
                    before.close()
            finally:
                writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
