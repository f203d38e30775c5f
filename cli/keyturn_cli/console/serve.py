"""The web server: on loopback, without an access log, and gone as soon as it is told to."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import uvicorn

from .site import site

if TYPE_CHECKING:
    import socket

    from .app import Console


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, console: Console) -> None:
        super().__init__(config)
        self._console = console

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Open pages listen for changes; they would hold it up.
        self._console.stop()
        await super().shutdown(sockets)


def serve(console: Console, listening: socket.socket) -> None:
    """Answers until Ctrl-C."""
    config = uvicorn.Config(
        site(console),
        # The path is a secret.
        access_log=False,
        log_level="warning",
        http="h11",
        ws="none",
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=128,
        timeout_graceful_shutdown=3,
    )
    console.start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _Server(config, console).run([listening])
    finally:
        console.stop()
