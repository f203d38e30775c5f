"""Small JSON documents from other services: bounded in time and size, no redirects, no cookies kept."""

import asyncio
import ssl
from collections.abc import Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx2

from keyturn_api.errors import Header

_KEEP_ALIVE: Final = 30.0


class FetchFailed(Exception):
    """No usable answer. The text is for the log: it holds nothing of request or answer."""


class Fetcher:
    """One pool of connections; the trusted authorities are the machine's (`SSL_CERT_FILE` names others)."""

    def __init__(self, *, connections: int, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._connections = connections
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None

    async def get(
        self, url: str, *, headers: Sequence[Header] = (), max_bytes: int, seconds: float
    ) -> tuple[int, bytes]:
        """Status and body of a GET; the time is for all of it, the wait for a connection included. Raises FetchFailed."""
        try:
            async with asyncio.timeout(seconds):
                request = self._open().build_request("GET", url, headers=[(b"accept", b"application/json"), *headers])
                answer = await self._open().send(request, stream=True)
                try:
                    return answer.status_code, await _read(answer, max_bytes)
                finally:
                    await answer.aclose()
        except TimeoutError:
            raise FetchFailed(f"no answer within {seconds:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            # The kind alone: the text of an exception may hold parts of the request.
            raise FetchFailed(type(error).__name__) from None

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            client = httpx2.AsyncClient(
                transport=self._transport,
                verify=ssl.create_default_context(),
                follow_redirects=False,
                timeout=None,
                trust_env=False,
                limits=httpx2.Limits(
                    max_connections=self._connections,
                    max_keepalive_connections=self._connections,
                    keepalive_expiry=_KEEP_ALIVE,
                ),
            )
            # A cookie that one caller's answer sets must never go out with another's request.
            client.cookies.jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
            self._client = client
        return self._client


async def _read(answer: httpx2.Response, limit: int) -> bytes:
    parts, size = [], 0
    async for chunk in answer.aiter_bytes():
        size += len(chunk)
        if size > limit:
            raise FetchFailed(f"the answer is longer than {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)
