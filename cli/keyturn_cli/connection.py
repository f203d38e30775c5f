"""A connection to one API server whose credentials are read anew before they end, and when the API server knows them no more."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import httpx2

from keyturn import __version__

from .errors import CommandError
from .kubeconfig import unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .kubeconfig import Access

TIMEOUT_SECONDS: Final = 15.0
# How long before their end credentials are read anew, at most.
AHEAD_SECONDS: Final = 30.0
# A credential plugin may ask its person, and may know nothing better: it isn't run for each request.
PAUSE_SECONDS: Final = 10.0
# Connections under a certificate that has been replaced stay open for what still runs on them, such as a watch.
LINGER_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Held:
    """Credentials, the client that connects with them, and when they were read, in epoch seconds."""

    access: Access
    client: httpx2.Client
    read_at: float

    @property
    def due(self) -> float:
        """When they are to be read anew."""
        expires = self.access.expires
        if expires is None:
            return float("inf")
        ahead = min(AHEAD_SECONDS, max(expires - self.read_at, 0.0) / 4)
        return max(expires - ahead, self.read_at + PAUSE_SECONDS)


class Connection:
    """Sends requests as whom `access` says; `read_again` finds the same cluster's access anew. For any number of threads.

    Like kubectl: a credential plugin is run again when its credentials end, files are read again, and HTTP 401 makes both be
    tried once more.
    """

    def __init__(
        self,
        access: Access,
        read_again: Callable[[], Access],
        *,
        connect: Callable[[Access], httpx2.Client] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._read_again = read_again
        self._connect = connect or open_api_client
        self._clock = clock
        self._lock = threading.Lock()
        self._held = _Held(access, self._connect(access), clock())
        self._tried_after_401 = float("-inf")
        self._retired: list[tuple[float, httpx2.Client]] = []

    @property
    def token(self) -> str | None:
        """The bearer token that requests carry now."""
        return self._current().access.token

    def build_request(self, method: str, url: str, **options: Any) -> httpx2.Request:
        """A request to the API server, as httpx2's own client makes it."""
        return self._held.client.build_request(method, url, **options)

    def send(self, request: httpx2.Request, *, stream: bool = False) -> httpx2.Response:
        """Sends it, and once more under new credentials if the API server does not know who asks.

        Raises:
            CommandError: the API server does not know who asks, and new credentials can't be read.
            httpx2.HTTPError: no answer.
        """
        held = self._current()
        answer = held.client.send(_as(held.access, request), stream=stream)
        if answer.status_code != 401 or (renewed := self._after_401(held)) is None:
            return answer
        answer.close()
        return renewed.client.send(_as(renewed.access, request), stream=stream)

    def close(self) -> None:
        with self._lock:
            for client in (self._held.client, *(client for _, client in self._retired)):
                client.close()
            self._retired.clear()

    def _current(self) -> _Held:
        with self._lock:
            held, now = self._held, self._clock()
            if now < held.due:
                return held
            try:
                return self._renew(now)
            except CommandError:
                # Those at hand may be good for longer; if not, HTTP 401 says so, and then this failure is told.
                self._held = replace(held, read_at=now)
                return self._held

    def _after_401(self, refused: _Held) -> _Held | None:
        """Other credentials than those that were refused; None where there are none to be had."""
        with self._lock:
            if self._held is refused:
                now = self._clock()
                if now < self._tried_after_401 + PAUSE_SECONDS:
                    return None
                self._tried_after_401 = now
                self._renew(now)
            return self._held if _proof(self._held.access) != _proof(refused.access) else None

    def _renew(self, now: float) -> _Held:
        before = self._held
        access = self._read_again()
        if _place(access) != _place(before.access):
            # What was read under one cluster's name must not be changed in another.
            raise unusable("The kubeconfig's context leads to another cluster than before.")
        client = before.client
        # TLS shows a certificate once a connection: another one needs connections of its own.
        if (access.certificate, access.key) != (before.access.certificate, before.access.key):
            client = self._connect(access)
            self._retire(before.client, now)
        self._held = _Held(access, client, now)
        return self._held

    def _retire(self, client: httpx2.Client, now: float) -> None:
        for since, old in self._retired:
            if now >= since + LINGER_SECONDS:
                old.close()
        self._retired = [one for one in self._retired if now < one[0] + LINGER_SECONDS]
        self._retired.append((now, client))


def open_api_client(access: Access) -> httpx2.Client:
    """A client for the API server, under the client certificate if there is one. A token goes with each request instead."""
    return httpx2.Client(
        base_url=access.server,
        verify=_tls(access),
        headers={"User-Agent": f"keyturn/{__version__}"},
        timeout=TIMEOUT_SECONDS,
        follow_redirects=False,
        proxy=access.proxy,
    )


def _as(access: Access, request: httpx2.Request) -> httpx2.Request:
    request.headers.pop("Authorization", None)
    if access.token:
        request.headers["Authorization"] = f"Bearer {access.token}"
    return request


def _proof(access: Access) -> tuple[str | None, ...]:
    return access.token, access.certificate, access.key


def _place(access: Access) -> tuple[object, ...]:
    return access.server, access.authority, access.verify, access.tls_name, access.proxy


def _tls(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=access.authority)
    except (ssl.SSLError, ValueError):
        raise unusable("The kubeconfig's certificate authority is no certificate in PEM.") from None
    if not access.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.certificate is not None and access.key is not None:
        with _passing_file(f"{access.certificate}\n{access.key}") as path:
            try:
                context.load_cert_chain(path)
            except (ssl.SSLError, OSError):
                raise unusable("The kubeconfig's client certificate and key can't be used.") from None
    return context


@contextlib.contextmanager
def _passing_file(content: str) -> Iterator[str]:
    """A file that only its owner can read and that is gone afterwards: OpenSSL takes a key from nothing else."""
    descriptor, path = tempfile.mkstemp(prefix="keyturn-")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(content)
        yield path
    finally:
        os.unlink(path)  # noqa: PTH108
