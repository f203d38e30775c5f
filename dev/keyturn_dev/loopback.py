"""This machine's loopback address: free ports on it, and the question whether an API server answers there."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "127.0.0.1"
SHARE_VARIABLE = "KEYTURN_DEV_PORTS"
"""`1/2`: of all pairs of ports only every second one, from the second on."""


def free_ports(count: int) -> list[int]:
    """Return ports that are free on loopback now. Whoever uses them must be ready to find one taken after all.

    Processes that look for some at the same time keep out of one another's way by `SHARE_VARIABLE`.
    """
    part, _, parts = os.environ.get(SHARE_VARIABLE, "0/1").partition("/")
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            # Held until the end, or it would be offered again.
            one = stack.enter_context(socket.socket())
            one.bind((LOOPBACK, 0))
            port: int = one.getsockname()[1]
            # Linux gives odd numbers to those who bind and even ones to those who connect: pairs are shared out.
            if port // 2 % int(parts) == int(part):
                found.append(port)
    return found


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
