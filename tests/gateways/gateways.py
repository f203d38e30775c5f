"""The gateways, each started with its own file from `docs/gateways`: only addresses, ports and places of files are put in."""

import asyncio
import contextlib
import os
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from keyturn_dev.gateway_files import Kind, Ports, write_files
from keyturn_dev.gateway_programs import ensure_gateway
from keyturn_dev.progress import Progress
from tests.api.installation import free_port
from tests.gateways.upstream import TEST_ID, Seen, Upstream
from tests.gateways.wire import Answer, Connection, Header, Http2, request

START_TIMEOUT = 60.0
# How a request arrives.
Way = Literal["plain", "TLS", "HTTP/2"]
WAYS: tuple[Way, ...] = ("plain", "TLS", "HTTP/2")


@dataclass
class Outcome:
    """What the caller got, and what reached the API: None where nothing did."""

    answer: Answer
    seen: Seen | None

    @property
    def passed(self) -> bool:
        return self.seen is not None


class RunningGateway:
    """A gateway process between callers and the API."""

    def __init__(self, kind: Kind, ports: Ports, upstream: Upstream, folder: Path, certificates: Path) -> None:
        self.kind = kind
        self.ports = ports
        self._upstream = upstream
        write_files(kind, ports, folder, certificates)
        self._log = folder / "gateway.log"
        self._connections: dict[Way, Connection | Http2] = {}
        program = ensure_gateway(kind.program, os.environ, Progress())
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                kind.command(program, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            )

    async def started(self) -> "RunningGateway":
        """Waits until both ports answer."""
        for port in (self.ports.http, self.ports.https):
            try:
                async with asyncio.timeout(START_TIMEOUT):
                    while self._process.poll() is None:
                        with contextlib.suppress(OSError):
                            (await asyncio.open_connection("127.0.0.1", port))[1].close()
                            break
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise AssertionError(f"{self.kind.name} opened no port in time:\n{self.output()}") from None
        assert self._process.poll() is None, f"{self.kind.name} ended:\n{self.output()}"
        return self

    def output(self) -> str:
        return self._log.read_text("utf-8", "replace")[-4000:]

    def end(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    async def ask(
        self,
        method: str,
        target: str | bytes,
        *headers: Header,
        token: str | None = None,
        body: bytes = b"",
        host: str | None = "shop.example",
        way: Way = "plain",
        version: str = "1.1",
    ) -> Outcome:
        """One request. Requests of one way follow one another on a connection as long as the gateway keeps it."""
        target = target.encode("latin-1") if isinstance(target, str) else target
        mark = uuid.uuid4().hex
        sent = [*headers, (TEST_ID, mark)]
        if token is not None:
            sent.insert(0, ("Authorization", f"Bearer {token}"))
        for _ in range(2):
            connection, fresh = await self._connection(way)
            if isinstance(connection, Http2):
                answer = await connection.ask(method, target, sent, body, authority=host)
            else:
                named = sent if host is None else [("Host", host), *sent]
                await connection.send(request(method, target, named, body, version))
                answer = await connection.answer()
            if not connection.reusable:
                connection.close()
                del self._connections[way]
            # A connection that was kept may have come to its end just before.
            if answer.status or fresh:
                break
        return Outcome(answer, self._upstream.seen.pop(mark, None))

    async def _connection(self, way: Way) -> tuple[Connection | Http2, bool]:
        connection = self._connections.get(way)
        if connection is not None:
            return connection, False
        opened = await (
            Http2.open(self.ports.https)
            if way == "HTTP/2"
            else Connection.open(self.ports.https if way == "TLS" else self.ports.http, tls=way == "TLS")
        )
        self._connections[way] = opened
        return opened, True

    def seen(self, mark: str) -> Seen | None:
        """What reached the API of the request with this X-Test-Id."""
        return self._upstream.seen.pop(mark, None)


def ports_for(keyturn: int, api: int) -> Ports:
    return Ports(free_port(), free_port(), keyturn, api)


def names(kinds: Sequence[Kind]) -> list[str]:
    return [kind.name for kind in kinds]
