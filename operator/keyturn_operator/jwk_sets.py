"""JWK Sets at clients' `jwksUri`: fetched under tight bounds, by tasks of their own, the last good copy kept."""

import asyncio
import ipaddress
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from keyturn import reasons
from keyturn.clients.fetched import COPY_COUNTS, FetchedKeys, read_jwk_set
from keyturn.clients.sources import uri_fault
from keyturn.timestamps import format_rfc3339
from keyturn_operator.allowed_addresses import AddressPolicy, AddressRefused, CheckedResolver
from keyturn_operator.logs import get_logger
from keyturn_operator.queue import Key, Priority
from keyturn_operator.settings import OperatorSettings

log = get_logger("jwk_sets")

MAX_BYTES: Final = 64 * 1024
TIMEOUT: Final = 5.0
AT_ONCE: Final = 4
RETRY_FIRST: Final = 10.0

_POOL: Final = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="resolve")


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """Why there is no (newer) copy: a reason for the condition, and words that hold nothing of what was answered."""

    reason: str
    message: str


class FetchFailed(Exception):
    """A fetch came to nothing."""

    def __init__(self, message: str, reason: str = reasons.JWKS_URI_UNAVAILABLE) -> None:
        super().__init__(message)
        self.failure = FetchFailure(reason, message)


Fetch = Callable[[str], Awaitable[bytes]]


class SafeFetch:
    """GETs a document over https: port 443, no redirect, 64 KiB, 5 s, and only from addresses that the policy permits.

    `port` is 443 everywhere but in tests.
    """

    def __init__(self, policy: AddressPolicy, *, ca_file: str | None = None, port: int = 443) -> None:
        self._policy = policy
        self._port = port
        self._tls = ssl.create_default_context()
        if ca_file is not None:
            self._tls.load_verify_locations(cafile=ca_file)

    async def __call__(self, uri: str) -> bytes:
        """The document. Raises FetchFailed, whose text quotes nothing of the answer."""
        host = urlsplit(uri).hostname or ""
        if _is_address(host) and not self._policy.permits(host):
            # aiohttp asks no resolver for an address.
            raise FetchFailed(_refused(host), reasons.JWKS_URI_NOT_ALLOWED)
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._policy, _POOL), use_dns_cache=False, ssl=self._tls, force_close=True
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    connector_owner=False,
                    trust_env=False,
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                ) as session,
                session.get(
                    self._with_port(uri),
                    allow_redirects=False,
                    headers={"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"},
                ) as answer,
            ):
                return await _body(answer)
        except FetchFailed:
            raise
        except aiohttp.ClientConnectorDNSError as error:
            cause = error.os_error
            if isinstance(cause, AddressRefused):
                raise FetchFailed(str(cause), reasons.JWKS_URI_NOT_ALLOWED) from None
            raise FetchFailed(f"the name {host} cannot be resolved") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise FetchFailed(f"the certificate of {host} cannot be verified") from error
        except TimeoutError as error:
            raise FetchFailed(f"no whole answer within {TIMEOUT:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchFailed(f"the connection failed ({type(error).__name__})") from error
        finally:
            # Without waiting for the other side to say farewell.
            await connector.close(abort_ssl=True)

    def _with_port(self, uri: str) -> str:
        if self._port == 443:
            return uri
        parts = urlsplit(uri)
        return parts._replace(netloc=f"{parts.netloc}:{self._port}").geturl()


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    # A redirect would lead where nobody has looked; anything but 200 is no document.
    if answer.status != 200:
        raise FetchFailed(f"it answered with status {answer.status}, expected 200")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed("the answer is compressed")
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_BYTES:
            raise FetchFailed(f"the answer is longer than {MAX_BYTES // 1024} KiB")
    return bytes(body)


@dataclass
class _Entry:
    uri: str
    next_at: float
    fetched: FetchedKeys | None = None
    failure: FetchFailure | None = None
    failures: int = 0
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Latest:
    """What is known of a URL: the copy fetched by this process, why the last try failed, and in how many seconds to look again."""

    fetched: FetchedKeys | None
    failure: FetchFailure | None
    again: float | None


class JwkSets:
    """The documents of all clients' URLs. Fetches at intervals with jitter, after failures with backoff; few at a time."""

    def __init__(
        self,
        settings: OperatorSettings,
        enqueue: Callable[[Key, Priority], None],
        *,
        fetch: Fetch | None = None,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(0.9, 1.1),  # noqa: S311
    ) -> None:
        self._hosts = settings.jwks_uri_hosts
        self._interval = settings.jwks_uri_refresh
        policy = AddressPolicy(settings.jwks_uri_networks, settings.cluster_networks)
        self._fetch: Fetch = fetch or SafeFetch(policy, ca_file=settings.jwks_uri_ca_file)
        self._enqueue = enqueue
        self._now = now
        self._jitter = jitter
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._entries: dict[Key, _Entry] = {}

    def forbidden(self, uri: str) -> FetchFailure | None:
        """Why nothing is fetched from this URL in this installation."""
        host = urlsplit(uri).hostname or ""
        if not self._hosts:
            text = "this installation fetches no keys: it lists no hosts for it (KEYTURN_JWKS_URI_HOSTS)"
            return FetchFailure(reasons.JWKS_URI_NOT_ALLOWED, text)
        if uri_fault(uri) is not None or not any(_matches(host, allowed) for allowed in self._hosts):
            text = f"the host {host} is not among those that this installation fetches from (KEYTURN_JWKS_URI_HOSTS)"
            return FetchFailure(reasons.JWKS_URI_NOT_ALLOWED, text)
        return None

    def look(self, key: Key, uri: str, copy_fetched_at: float | None) -> Latest:
        """What is known now; begins a fetch when one is due, after which the object is queued again.

        `copy_fetched_at`: of the row's copy.
        """
        now = self._now()
        entry = self._entries.get(key)
        if entry is None or entry.uri != uri:
            self.forget(key)
            # A restart asks nobody anew for what is fresh.
            next_at = now if copy_fetched_at is None else min(now + self._interval, copy_fetched_at + self._interval)
            entry = self._entries[key] = _Entry(uri, next_at)
        if entry.task is None and now >= entry.next_at:
            entry.task = asyncio.get_running_loop().create_task(self._one(key, entry), name=f"JWK Set of {key}")
        again = None if entry.task is not None else max(0.05, entry.next_at - now)
        return Latest(entry.fetched, entry.failure, again)

    def forget(self, key: Key) -> None:
        """The object names no URL any more, or another one."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    async def _one(self, key: Key, entry: _Entry) -> None:
        try:
            async with self._slots:
                document = await self._fetch(entry.uri)
            entry.fetched = read_jwk_set(document, uri=entry.uri, fetched_at=self._now())
            entry.failure, entry.failures = None, 0
            pause = self._interval
        except Exception as error:  # noqa: BLE001 - whatever it is, the object is told and it is tried again
            entry.failures += 1
            entry.failure = _failure_of(error)
            pause = min(self._interval, RETRY_FIRST * 2.0 ** min(entry.failures - 1, 16))
            log.warning("a JWK Set was not fetched", object=str(key), cause=entry.failure.message)
        entry.next_at = self._now() + pause * self._jitter()
        entry.task = None
        self._enqueue(key, Priority.CHANGE)


def describe(failure: FetchFailure, copy_until: float | None, now: float) -> str:
    """The condition's message: what failed, and until when the last good copy counts."""
    text = failure.message.rstrip(".")
    if copy_until is None or copy_until <= now:
        return f"{text}. No copy of the keys counts any more: the client cannot authenticate with them."
    return f"{text}. The last good copy counts until {format_rfc3339(copy_until)}, {COPY_COUNTS / 3600:g} hours after it was fetched."


def _failure_of(error: Exception) -> FetchFailure:
    if isinstance(error, FetchFailed):
        return error.failure
    if isinstance(error, ValueError):
        return FetchFailure(reasons.JWKS_URI_INVALID, str(error))
    return FetchFailure(reasons.JWKS_URI_UNAVAILABLE, f"the fetch failed ({type(error).__name__})")


def _refused(host: str) -> str:
    return f"{host} has an address that is not public, or belongs to the cluster"


def _matches(host: str, allowed: str) -> bool:
    return host.endswith(allowed[1:]) and len(host) > len(allowed) - 1 if allowed.startswith("*.") else host == allowed


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
