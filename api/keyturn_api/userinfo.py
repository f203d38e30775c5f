"""Callers of other issuers by a userinfo endpoint: it gets their credentials and says who they are."""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from keyturn.jose.strict_json import InvalidJson, parse_object
from keyturn.tokens.claims import string_list
from keyturn_api.answers import Caller
from keyturn_api.cache import GenerationCache
from keyturn_api.callers import CannotIdentify, NotIdentified
from keyturn_api.errors import INVALID_TOKEN, Header
from keyturn_api.fetching import Fetcher, FetchFailed
from keyturn_api.http import Scope
from keyturn_api.identities import NoUser, make_caller
from keyturn_api.logs import get_logger
from keyturn_api.metrics import STARTED, Metrics
from keyturn_api.profiles import Question
from keyturn_api.user_settings import UserSettings
from keyturn_api.verified import unverified_expiry

_log = get_logger("userinfo")
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_CREDENTIAL_BYTES: Final = 16 * 1024
MAX_WAITING: Final = 1000
_CAPACITY: Final = 10_000
# Requests that pass anyway wait no longer for a name: a gateway gives up on the whole check after half a second or two.
PUBLIC_WAIT: Final = 0.3
# After a failure they do not begin another question for so long.
_PAUSE: Final = 1.0
_REFUSALS: Final = (400, 401, 403)
# RFC 9110 section 11.4: a scheme and credentials, in visible characters.
_AUTHORIZATION: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ +[\x21-\x7e]+(?:,? [\x21-\x7e]+)*+")

REFUSED: Final = "RefusedByUserinfo"
MALFORMED: Final = "MalformedCredentials"
FAILED: Final = "UserinfoFailed"
BUSY: Final = "UserinfoBusy"


class Userinfo:
    """Asks `url` once for each credential at a time, and remembers its yes for a while; each worker for itself.

    Only a 200 with a JSON object counts. 400, 401 and 403 mean that the credentials are not good; all else that nothing is known.
    """

    def __init__(
        self,
        url: str,
        settings: UserSettings,
        metrics: Metrics,
        fetcher: Fetcher,
        *,
        accepted: frozenset[str] = frozenset(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._settings = settings
        self._metrics = metrics
        self._fetcher = fetcher
        self._accepted = accepted
        self._monotonic = monotonic
        self._forwarded = tuple(name.encode("ascii") for name in settings.authorization_headers_to_proxy)
        self._known: GenerationCache[bytes, tuple[float, float, Caller]] = GenerationCache(_CAPACITY)
        self._flights: dict[bytes, asyncio.Task[Caller]] = {}
        self._failed_at = float("-inf")

    def identify(
        self, scope: Scope, question: Question, now: float, *, public: bool
    ) -> Caller | Awaitable[Caller] | None:
        """See `OtherSource`. Looks at the headers that are to be handed on; without any of them it is not asked."""
        credentials = self._credentials(scope)
        if not credentials:
            return None
        key = _key(credentials)
        known = self._known.get(key)
        if known is not None and known[0] <= now < known[1]:
            return known[2]
        flight = self._flights.get(key)
        if flight is None:
            if public and self._monotonic() - self._failed_at < _PAUSE:
                raise CannotIdentify(FAILED, cause="it failed a moment ago")
            if len(self._flights) >= MAX_WAITING:
                raise CannotIdentify(BUSY, cause="too many requests wait for it")
            flight = asyncio.get_running_loop().create_task(self._ask(key, credentials, question, now))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        # One that gives up waiting takes no one else's answer away.
        return _shortly(flight) if public else asyncio.shield(flight)

    async def close(self) -> None:
        for flight in list(self._flights.values()):
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._fetcher.close()

    def _credentials(self, scope: Scope) -> list[Header]:
        found: list[Header] = []
        size = 0
        for name in self._forwarded:
            values = [value for key, value in scope["headers"] if key == name and value]
            if not values:
                continue
            if name == b"authorization" and not _AUTHORIZATION.fullmatch(values[0]):
                raise NotIdentified(MALFORMED, INVALID_TOKEN, "the Authorization header cannot be read")
            # RFC 9113 section 8.2.3: cookies may come in several fields. Of another header only one can be meant.
            if name != b"cookie" and len(values) > 1:
                raise NotIdentified(MALFORMED, INVALID_TOKEN, "a header with credentials stands twice")
            value = b"; ".join(values)
            size += len(value)
            found.append((name, value))
        if size > MAX_CREDENTIAL_BYTES:
            raise NotIdentified(MALFORMED, INVALID_TOKEN, "the credentials are too long")
        return found

    async def _ask(self, key: bytes, credentials: Sequence[Header], question: Question, now: float) -> Caller:
        begun = {STARTED: time.perf_counter()}
        try:
            status, content = await self._fetcher.get(
                self._url, headers=credentials, max_bytes=MAX_ANSWER_BYTES, seconds=self._settings.userinfo_timeout
            )
        except FetchFailed as error:
            raise self._failed(str(error), begun) from None
        if status in _REFUSALS:
            self._metrics.count("userinfo", "refused", begun)
            raise NotIdentified(REFUSED, INVALID_TOKEN, "the credentials are not accepted", cause=f"it said {status}")
        if status != 200:
            raise self._failed(f"it said {status}", begun)
        try:
            caller = self._read(parse_object(content))
        except InvalidJson as error:
            raise self._failed(f"no JSON object: {error}", begun) from None
        self._metrics.count("userinfo", "ok", begun)
        until = now + self._settings.userinfo_cache_seconds
        if question.authorization is not None:
            until = min(until, unverified_expiry(question.authorization))
        # The time counts from before the question: whatever was taken away meanwhile is not kept for longer.
        self._known.put(key, (now, until, caller))
        return caller

    def _read(self, info: dict[str, Any]) -> Caller:
        settings = self._settings
        properties: object = info.get("userProperties")
        if settings.user_properties:
            properties = {name: info[name] for name in settings.user_properties if name in info}
        audiences = tuple(string_list(info.get("aud")) or ())
        if audiences and self._accepted and self._accepted.isdisjoint(audiences):
            raise NotIdentified(REFUSED, INVALID_TOKEN, "the credentials are not for this audience")
        try:
            return make_caller(
                user_id=info.get(settings.user_id_key),
                groups=info.get("groups"),
                permissions=info.get(settings.permissions_key),
                user_properties=properties,
                audiences=audiences,
            )
        except NoUser as error:
            self._metrics.count("userinfo", "refused")
            raise NotIdentified(REFUSED, INVALID_TOKEN, "the credentials name no user", cause=str(error)) from None

    def _failed(self, cause: str, begun: dict[str, float]) -> CannotIdentify:
        # The time of the failure, not of the question: one that times out takes longer than the pause.
        self._failed_at = self._monotonic()
        self._metrics.count("userinfo", "failed", begun)
        return CannotIdentify(FAILED, cause=cause)

    def _landed(self, key: bytes, done: "asyncio.Task[Caller]") -> None:
        self._flights.pop(key, None)
        error = None if done.cancelled() else done.exception()
        if error is not None and not isinstance(error, NotIdentified | CannotIdentify):
            _log.error("userinfo_broken", exc_info=error)


async def _shortly(flight: "asyncio.Task[Caller]") -> Caller:
    done, _ = await asyncio.wait((flight,), timeout=PUBLIC_WAIT)
    if not done:
        raise CannotIdentify(FAILED, cause="it has not answered yet, and the route is public")
    return flight.result()


def _key(credentials: Sequence[Header]) -> bytes:
    digest = hashlib.sha256()
    for part in (part for pair in credentials for part in pair):
        digest.update(b"%d:%b" % (len(part), part))
    return digest.digest()
