"""This machine's loopback address: free ports on it, and the question whether an API server answers there."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return ports that are free on loopback now. Whoever uses them must be ready to find one taken after all."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def accepts(port: int) -> bool:
    """Tell whether something on loopback takes connections on this port now."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


class ApiServerProbe:
    """The least client that can ask whether the API server is ready."""

    def __init__(self, certs: Path, port: int, host: str = LOOPBACK) -> None:
        self._host = host
        self._port = port
        self._context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
        self._context.load_cert_chain(certs / "admin.crt", certs / "admin.key")

    def get(self, path: str) -> int | None:
        """Return the status of a GET as the administrator, or None while nobody answers."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=5, context=self._context)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
