"""A TCP proxy before a server that a test can close, open again, or make silent."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """`async with Proxy(url) as proxy`: `proxy.url` is the same database through the proxy."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._parts = parts
        self._port = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._swallowed = 0
        self._accepted = 0

    @property
    def url(self) -> str:
        credentials, at, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))

    async def __aenter__(self) -> Self:
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.resume()
        await self.cut()

    async def cut(self) -> None:
        """As when the server is gone: connections are reset, new ones refused."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None
            await asyncio.gather(*self._serving)

    async def restore(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def silence(self) -> None:
        """As when the network swallows everything: connections stay, nothing passes."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def swallow(self) -> None:
        """As when something on the way has forgotten its connections: those of now stay open, and nothing passes on them ever again."""
        self._swallowed = self._accepted

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._writers.add(writer)
        self._accepted += 1
        number = self._accepted
        try:
            upstream_reader, upstream = await asyncio.open_connection(*self._target)
            self._writers.add(upstream)
            try:
                await asyncio.gather(self._pump(reader, upstream, number), self._pump(upstream_reader, writer, number))
            finally:
                upstream.transport.abort()
                self._writers.discard(upstream)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                if number <= self._swallowed:
                    continue
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Outage:
    """The proxy, run by an event loop in a thread, for tests that wait for other processes."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._proxy = Proxy(url)
        self._run(self._proxy.restore())

    @property
    def url(self) -> str:
        return self._proxy.url

    def begin(self) -> None:
        self._run(self._proxy.cut())

    def end(self) -> None:
        self._run(self._proxy.restore())

    def silence(self) -> None:
        """Connections stay, and nothing passes."""
        self._loop.call_soon_threadsafe(self._proxy.silence)

    def swallow(self) -> None:
        """Nothing passes ever again on the connections of now; new ones work."""
        self._loop.call_soon_threadsafe(self._proxy.swallow)

    def resume(self) -> None:
        """What was held back in silence passes, but for what was swallowed."""
        self._loop.call_soon_threadsafe(self._proxy.resume)

    def close(self) -> None:
        self.resume()
        self._run(self._proxy.cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=15)
