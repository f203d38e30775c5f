"""Requests as a caller writes them: no library in between that would mend a path, a header or a host."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import httptools

Header = tuple[str, str]
WAIT = 15.0


@dataclass
class Answer:
    """What came back; `status` 0 where the connection ended without an answer."""

    status: int = 0
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""

    def value(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


def trusting() -> ssl.SSLContext:
    """For a certificate that the test made; HTTP/2 is offered by the connections that speak it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection:
    """An HTTP/1.1 connection to a gateway. Requests may follow one another on it, or be sent at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._answers = _Answers()

    @classmethod
    async def open(cls, port: int, *, tls: bool = False) -> "Connection":
        context = trusting() if tls else None
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return self._answers.keeps_alive and not self._writer.is_closing()

    async def answer(self) -> Answer:
        """The next answer."""
        async with asyncio.timeout(WAIT):
            while not self._answers.whole and await self._read():
                pass
        if self._answers.whole:
            return self._answers.whole.pop(0)
        self._answers.keeps_alive = False
        return self._answers.begun

    async def _read(self) -> bool:
        try:
            data = await self._reader.read(65536)
            self._answers.parser.feed_data(data)
        except (ConnectionError, ssl.SSLError, httptools.HttpParserError):
            return False
        return bool(data)

    def close(self) -> None:
        self._writer.transport.abort()


class _Answers:
    """What httptools found so far: whole answers, and the one that has begun."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.whole: list[Answer] = []
        self.begun = Answer()
        self.keeps_alive = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self.begun.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.begun.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.begun.body += body

    def on_message_complete(self) -> None:
        if self.begun.status >= 200:
            self.whole.append(self.begun)
            self.keeps_alive = self.parser.should_keep_alive()
        self.begun = Answer()


def request(method: str, target: bytes, headers: Sequence[Header], body: bytes = b"", version: str = "1.1") -> bytes:
    """An HTTP/1 request, byte for byte as told."""
    lines = [method.encode() + b" " + target + b" HTTP/" + version.encode()]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in headers]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Http2:
    """An HTTP/2 connection over TLS, without the checks that a well-meaning client makes of what it sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        config = h2.config.H2Configuration(
            header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._h2 = h2.connection.H2Connection(config)
        self._answers: dict[int, Answer] = {}
        self._ended: set[int] = set()
        self._over = False

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return not self._over and not self._writer.is_closing()

    @classmethod
    async def open(cls, port: int) -> "Http2":
        context = trusting()
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        selected = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        assert selected == "h2", f"the gateway speaks no HTTP/2 but {selected}"
        connection = cls(reader, writer)
        connection._h2.initiate_connection()
        await connection._flush()
        return connection

    async def ask(
        self,
        method: str,
        target: bytes,
        headers: Sequence[Header],
        body: bytes = b"",
        *,
        authority: str | None = "shop.example",
    ) -> Answer:
        """One stream from its request to its answer."""
        stream = self._h2.get_next_available_stream_id()
        fields = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            *([] if authority is None else [(b":authority", authority.encode())]),
            (b":path", target),
            *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers),
        ]
        self._answers[stream] = Answer()
        self._h2.send_headers(stream, fields, end_stream=not body)
        await self._flush()
        async with asyncio.timeout(WAIT):
            while body and stream not in self._ended:
                room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size, len(body))
                if room:
                    self._h2.send_data(stream, body[:room], end_stream=room == len(body))
                    body = body[room:]
                    await self._flush()
                else:
                    await self._receive()
            while stream not in self._ended:
                await self._receive()
        return self._answers[stream]

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        try:
            events = self._h2.receive_data(data) if data else [h2.events.ConnectionTerminated()]
        except h2.exceptions.ProtocolError:
            events = [h2.events.ConnectionTerminated()]
        for event in events:
            if isinstance(event, h2.events.ResponseReceived):
                headers = [(_text(name), _text(value)) for name, value in event.headers]
                self._answers[event.stream_id].headers = headers
                self._answers[event.stream_id].status = int(dict(headers)[":status"])
            elif isinstance(event, h2.events.DataReceived):
                self._answers[event.stream_id].body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self._ended.add(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self._over = True
                self._ended.update(self._answers)
        await self._flush()

    async def _flush(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(self._h2.data_to_send())
            await self._writer.drain()

    def close(self) -> None:
        self._writer.transport.abort()


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
