"""The way from a gateway to Keyturn, which a test can break."""

import asyncio
import contextlib
from typing import Literal

# `refused`: nothing listens; `silent`: nobody answers; `busy`: Keyturn's own 503; `junk`: what answers is not Keyturn;
# `cut`: it ends in the middle.
State = Literal["up", "refused", "silent", "busy", "junk", "cut"]
_KEPT = 65_536
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nmia-allowed: 0\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"


class Relay:
    """Hands bytes on between a port of its own and Keyturn's. `asked`: the last of what went to Keyturn, as it went."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.asked = bytearray()
        self._target = target
        self._state: State = "up"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> "Relay":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def turn(self, state: State) -> None:
        """From now on; connections that are open end."""
        self._state = state
        await self.close()
        if state != "refused":
            await self.open()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError):
                await self._handle(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._state != "up":
            await reader.read(1)
            if self._state == "junk":
                writer.write(b"220 mail.example ESMTP\r\n")
            elif self._state == "busy":
                writer.write(_BUSY)
            elif self._state == "cut":
                writer.write(b"HTTP/1.1 200 OK\r\nmia-allowed: 1\r\nmia-us")
            else:
                await reader.read()
            await writer.drain()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(back)
        try:
            await asyncio.gather(_pass(reader, back, self.asked), _pass(there, writer))
        finally:
            self._writers.discard(back)
            back.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray | None = None) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            if seen is not None:
                seen += data
                del seen[:-_KEPT]
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()
