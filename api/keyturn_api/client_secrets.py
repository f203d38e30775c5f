"""Client secrets (RFC 6749 section 2.3.1): read from Basic, verified off the event loop, and never hashed slowly twice."""

import asyncio
import base64
import binascii
import hmac
import os
import secrets as random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final
from urllib.parse import unquote_to_bytes

from keyturn import secrets
from keyturn.clients.state import SECRET_METHODS, ClientState, SecretHash
from keyturn_api.cache import GenerationCache
from keyturn_api.errors import INVALID_CLIENT, ApiError, unavailable

_MAX_CREDENTIALS: Final = 4096
_NICE: Final = 5


def parse_basic(authorization: bytes) -> tuple[str, bytes]:
    """Client id and secret of `Basic …`, both form-decoded. Raises `ApiError` invalid_client."""
    scheme, _, encoded = authorization.partition(b" ")
    encoded = encoded.strip(b" ")
    if scheme.lower() != b"basic" or not encoded or len(encoded) > _MAX_CREDENTIALS:
        raise invalid_client("the Authorization header must be Basic with client id and secret", reason="malformed")
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise invalid_client("the Basic credentials are not base64", reason="malformed") from None
    name, colon, secret = decoded.partition(b":")
    if not colon:
        raise invalid_client("the Basic credentials hold no colon", reason="malformed")
    try:
        # RFC 6749 section 2.3.1: both are encoded as form values before they are joined.
        client_id = unquote_to_bytes(name.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise invalid_client("the client id is not UTF-8", reason="malformed") from None
    return client_id, unquote_to_bytes(secret.replace(b"+", b" "))


def invalid_client(description: str, *, reason: str, cause: str = "") -> ApiError:
    """RFC 6749 section 5.2: 401 with the scheme that may be used."""
    return ApiError(
        401,
        INVALID_CLIENT,
        description,
        reason=reason,
        cause=cause,
        headers=[(b"www-authenticate", b'Basic realm="keyturn", charset="UTF-8"')],
    )


class SecretVerifier:
    """Verifies secrets in a bounded pool. Remembers which secret matched which hash, keyed by an HMAC under a key of this process.

    `dummy` costs what a real hash costs: a client that does not exist takes as long as one whose secret is wrong.
    """

    def __init__(self, *, cost: int, queue: int, capacity: int, threads: int = 1) -> None:
        self._key = os.urandom(32)
        self._matched: GenerationCache[bytes, bool] = GenerationCache(capacity)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="secrets", initializer=_stand_back)
        self._limit = queue
        self._waiting = 0
        self._dummy = ""
        self._cost = cost

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def matches_at_once(self, client: ClientState | None, secret: bytes, now: float) -> SecretHash | None:
        """The hash, still this client's, that this secret is known to match, or can be seen to match without slow hashing.

        At once, so that a crowd of right secrets after a start or a rotation waits in no queue and looks like no crowd of guesses.
        """
        if client is None or client.auth_method not in SECRET_METHODS:
            return None
        for known in client.secrets:
            if not known.is_current(now):
                continue
            # A fast hash costs no more than the look for what was remembered of it.
            if not secrets.is_slow(known.hash):
                matches = secrets.verify(secret, known.hash)
            else:
                matches = self._matched.get(self._fingerprint(client, known.hash, secret)) is not None
            if matches:
                return known
        return None

    async def verify(self, client: ClientState | None, secret: bytes, now: float) -> SecretHash | None:
        """The client's hash that the secret matches; always as costly, whatever is wrong. Raises `ApiError` 503 when too many wait."""
        if self._waiting >= self._limit:
            raise unavailable("too many secrets are being checked", reason="hash_queue_full")
        hashes: tuple[SecretHash, ...] = ()
        if client is not None and client.auth_method in SECRET_METHODS:
            hashes = tuple(known for known in client.secrets if known.is_current(now))
        self._waiting += 1
        try:
            matched = await asyncio.get_running_loop().run_in_executor(self._pool, self._check, secret, hashes)
        finally:
            self._waiting -= 1
        if matched is None or client is None:
            return None
        self._matched.put(self._fingerprint(client, matched.hash, secret), True)
        return matched

    def _check(self, secret: bytes, hashes: tuple[SecretHash, ...]) -> SecretHash | None:
        for known in hashes:
            if secrets.verify(secret, known.hash):
                return known
        usable = 0 < len(secret) <= secrets.MAX_SECRET_BYTES
        if not usable or not any(secrets.is_slow(known.hash) for known in hashes):
            # Nothing slow was done yet. A secret that no hash takes is replaced, so that it costs the same.
            if not self._dummy:
                self._dummy = secrets.hash_secret(random.token_bytes(32).hex().encode(), self._cost)
            secrets.verify(secret if usable else b"x", self._dummy)
        return None

    def _fingerprint(self, client: ClientState, hashed: str, secret: bytes) -> bytes:
        name, stored = client.client_id.encode(), hashed.encode()
        return hmac.digest(self._key, b"%d:%b%d:%b%b" % (len(name), name, len(stored), stored, secret), "sha256")


def _stand_back() -> None:
    """Lowers the thread's priority (on Linux each has its own), so that a storm of wrong secrets slows no other request."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
