"""Client secrets (RFC 6749 section 2.3.1): read from Basic, verified off the event loop, and never hashed slowly twice."""

import asyncio
import base64
import binascii
import hmac
import os
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

    One secret of one client is hashed once, however many requests bring it meanwhile. A client that does not exist takes as long as one
    whose secret is wrong, up to hashes of a cost higher than `cost`.
    """

    def __init__(self, *, cost: int, queue: int, capacity: int, threads: int = 1) -> None:
        self._key = os.urandom(32)
        self._matched: GenerationCache[bytes, bool] = GenerationCache(capacity)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="secrets", initializer=_stand_back)
        self._limit = queue
        self._under_way: dict[bytes, asyncio.Future[SecretHash | None]] = {}
        self._cost = cost

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def is_under_way(self, client_id: str, client: ClientState | None, secret: bytes, now: float) -> bool:
        """Whether `verify` would wait for the hashing that another request began with the same secret: not one guess more."""
        if not self._under_way:
            return False
        return self._fingerprint(client_id, _current(client, now), secret) in self._under_way

    async def verify(self, client_id: str, client: ClientState | None, secret: bytes, now: float) -> SecretHash | None:
        """The client's hash that the secret matches; always as costly, whatever is wrong. Raises `ApiError` 503 when too many wait.

        `client` None: there is no client of this id that may prove itself by a secret.
        """
        hashes = _current(client, now)
        known = self._match_at_once(client_id, hashes, secret)
        if known is not None:
            return known
        # The same secret against other hashes, after a rotation, is another question.
        question = self._fingerprint(client_id, hashes, secret)
        under_way = self._under_way.get(question)
        if under_way is None:
            under_way = self._begin(question, client_id, hashes, secret)
        # A caller that goes takes nothing from those who wait for the same.
        return await asyncio.shield(under_way)

    def _match_at_once(self, client_id: str, hashes: tuple[SecretHash, ...], secret: bytes) -> SecretHash | None:
        """The hash that this secret is known to match, or can be seen to match without slow hashing.

        At once, so that a crowd of right secrets after a start or a rotation waits in no queue and looks like no crowd of guesses.
        """
        for known in hashes:
            # A fast hash costs no more than the look for what was remembered of it.
            if not secrets.is_slow(known.hash):
                matches = secrets.verify(secret, known.hash)
            else:
                matches = self._matched.get(self._fingerprint(client_id, (known,), secret)) is not None
            if matches:
                return known
        return None

    def _begin(
        self, question: bytes, client_id: str, hashes: tuple[SecretHash, ...], secret: bytes
    ) -> asyncio.Future[SecretHash | None]:
        if len(self._under_way) >= self._limit:
            raise unavailable("too many secrets are being checked", reason="hash_queue_full")
        begun = asyncio.get_running_loop().run_in_executor(self._pool, self._check, secret, hashes)
        self._under_way[question] = begun

        def ended(done: asyncio.Future[SecretHash | None]) -> None:
            del self._under_way[question]
            matched = None if done.cancelled() or done.exception() is not None else done.result()
            if matched is not None:
                self._matched.put(self._fingerprint(client_id, (matched,), secret), True)

        begun.add_done_callback(ended)
        return begun

    def _check(self, secret: bytes, hashes: tuple[SecretHash, ...]) -> SecretHash | None:
        for known in hashes:
            if secrets.verify(secret, known.hash):
                return known
        # A secret that no hash takes was not hashed at all, and is replaced, so that it costs the same.
        usable = 0 < len(secret) <= secrets.MAX_SECRET_BYTES
        spent = sum(1 << secrets.bcrypt_cost(known.hash) for known in hashes if usable and secrets.is_slow(known.hash))
        left = (1 << self._cost) - spent
        # Each cost is twice the one below it: the costs whose bits are set make up what is left.
        for cost in range(secrets.MIN_COST, self._cost + 1):
            if left > 0 and left >> cost & 1:
                secrets.hash_secret(secret if usable else b"x", cost)
        return None

    def _fingerprint(self, client_id: str, hashes: tuple[SecretHash, ...], secret: bytes) -> bytes:
        digest = hmac.new(self._key, digestmod="sha256")
        for part in (client_id.encode("utf-8", "surrogatepass"), *(known.hash.encode() for known in hashes), secret):
            digest.update(b"%d:%b" % (len(part), part))
        return digest.digest()


def _current(client: ClientState | None, now: float) -> tuple[SecretHash, ...]:
    if client is None or client.auth_method not in SECRET_METHODS:
        return ()
    return tuple(known for known in client.secrets if known.is_current(now))


def _stand_back() -> None:
    """Lowers the thread's priority (on Linux each has its own), so that a storm of wrong secrets slows no other request."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
