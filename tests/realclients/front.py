"""TLS in front of a service, as an ingress ends it: libraries talk to nothing else by default."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

from keyturn_dev.certificates import Authority

TRUSTSTORE_PASSWORD = "changeit"


@dataclass(frozen=True)
class Trust:
    """An authority for one run, with a server's certificate for loopback, in the forms that the languages read."""

    authority: Path
    truststore: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_trust(folder: Path) -> Trust:
    own = Authority("keyturn-tests", datetime.datetime.now(datetime.UTC))
    server = own.issue("localhost", names=["localhost", "127.0.0.1"], client=False)
    made = Trust(folder / "ca.pem", folder / "ca.p12", folder / "server.pem", folder / "server.key")
    made.authority.write_bytes(own.certificate)
    made.certificate.write_bytes(server.certificate)
    made.key.write_bytes(server.key)
    trusted = PKCS12Certificate(x509.load_pem_x509_certificate(own.certificate), b"keyturn-tests")
    made.truststore.write_bytes(
        serialize_java_truststore([trusted], BestAvailableEncryption(TRUSTSTORE_PASSWORD.encode()))
    )
    return made


class TlsFront:
    """Ends TLS on one port of loopback and passes the bytes on to another; in a thread, so that blocking tests don't hold it up."""

    def __init__(self, context: ssl.SSLContext, port: int, backend: int) -> None:
        self._context, self._port, self._backend = context, port, backend
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> TlsFront:
        self._thread.start()
        assert self._started.wait(10), "the TLS front did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        connections: set[asyncio.Task[None]] = set()

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._pass_on(reader, writer)
            finally:
                connections.discard(task)

        server = await asyncio.start_server(accepted, "127.0.0.1", self._port, ssl=self._context)
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._backend)
        try:
            ways = [asyncio.create_task(copied(reader, back)), asyncio.create_task(copied(there, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            for one in (writer, back):
                one.close()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await one.wait_closed()


async def copied(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65_536):
            target.write(piece)
            await target.drain()
