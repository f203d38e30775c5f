"""Callers by tokens of issuers that the installation trusts: verified here, by keys fetched beforehand."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from keyturn.tokens.foreign import ForeignToken, Keys, read_foreign_token
from keyturn.tokens.issuers import InvalidIssuers, parse_issuers
from keyturn.tokens.refusal import UNKNOWN_KEY, TokenRefused
from keyturn_api.answers import Caller
from keyturn_api.cache import GenerationCache
from keyturn_api.callers import CannotIdentify, NotIdentified
from keyturn_api.errors import INVALID_TOKEN
from keyturn_api.fetching import Fetcher
from keyturn_api.http import Scope
from keyturn_api.identities import NoUser, make_caller
from keyturn_api.issuer_keys import IssuerKeys
from keyturn_api.logs import get_logger
from keyturn_api.profiles import Question
from keyturn_api.verified import bearer, unverified

_log = get_logger("trusted_issuers")
MAX_FILE_BYTES: Final = 256 * 1024
_CAPACITY: Final = 10_000
_TICK: Final = 0.5
_READ_AT_LEAST_EVERY: Final = 30.0
# How long a request waits for keys. Gateways wait two seconds for the whole check; the fetch goes on for the requests after it.
WAIT_SECONDS: Final = 1.5
NO_KEYS: Final = "IssuerKeysUnavailable"
NO_USER: Final = "NoUser"


@dataclass(slots=True)
class _Verified:
    """A token that held, under these keys of this issuer's entry; both are compared by identity."""

    token: ForeignToken
    caller: Caller
    source: IssuerKeys
    keys: Keys


class TrustedIssuers:
    """Follows the file and the issuers' keys. A damaged file changes nothing: what was read last stays, and a line is logged."""

    def __init__(
        self,
        path: Path,
        fetcher: Fetcher,
        *,
        own_issuer: str,
        clock_skew: float,
        knows_kid: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._fetcher = fetcher
        self._own_issuer = own_issuer
        self._clock_skew = clock_skew
        self._knows_kid = knows_kid
        self._clock = clock
        self._sources: dict[str, IssuerKeys] = {}
        self._known: GenerationCache[bytes, _Verified] = GenerationCache(_CAPACITY)
        self._mark: object = None
        self._document: Any = None
        self._complaint = ""

    @property
    def issuers(self) -> tuple[str, ...]:
        return tuple(self._sources)

    def identify(
        self,
        scope: Scope,
        question: Question,
        now: float,
        *,
        public: bool,
    ) -> Caller | Awaitable[Caller] | None:
        """See `OtherSource`. Looks at Bearer tokens that name one of the issuers; no other source is asked about those.

        A request that passes anyway fetches no keys and waits for none.
        """
        authorization = question.authorization
        if authorization is None:
            return None
        found = self.known(authorization, now)
        if found is not None:
            return found
        issuer = unverified(authorization)[1]
        source = None if issuer is None else self._sources.get(issuer)
        if source is None:
            return None
        if source.at(now) is None:
            if public or not source.may_help(now):
                raise CannotIdentify(NO_KEYS, cause=f"no keys of {source.issuer.issuer[:200]}")
            return self._after_refresh(authorization, source, now)
        try:
            return self._verify(authorization, source, now)
        except TokenRefused as refused:
            if public or refused.reason != UNKNOWN_KEY or not source.may_help(now):
                raise _not_identified(refused) from None
        return self._after_refresh(authorization, source, now)

    def known(self, authorization: bytes, now: float) -> Caller | None:
        """Somebody whose token was verified before, if it would be so now."""
        found = self._known.get(hashlib.sha256(authorization).digest())
        if found is None:
            return None
        source, token = found.source, found.token
        if (
            self._sources.get(token.issuer) is not source
            or source.at(now) is not found.keys
            or not token.not_before <= now < token.expires_at
            or self._knows_kid(token.kid)
        ):
            return None
        return found.caller

    def start(self) -> None:
        """The first read. Raises InvalidIssuers: a process does not begin without what it is told to trust."""
        self._mark = _mark(self._path)
        self._document = load(self._path)
        self.use(self._document)

    def use(self, document: Any) -> None:
        """Puts another list in the place of the one before. Raises InvalidIssuers, and then changes nothing."""
        sources: dict[str, IssuerKeys] = {}
        for issuer in parse_issuers(document, own_issuer=self._own_issuer):
            former = self._sources.get(issuer.issuer)
            if former is not None and former.issuer == issuer:
                sources[issuer.issuer] = former
                continue
            sources[issuer.issuer] = IssuerKeys(issuer, self._fetcher)
            if former is not None:
                sources[issuer.issuer].take_over(former)
        gone = [source for name, source in self._sources.items() if sources.get(name) is not source]
        self._sources = sources
        for source in gone:
            source.cancel()
        _log.info("issuers_trusted", issuers=sorted(sources))

    async def run(self) -> None:
        """Reads the file anew when it changes, and fetches keys when it is time, until cancelled."""
        loop = asyncio.get_running_loop()
        read_at = loop.time()
        fetches: set[asyncio.Task[None]] = set()
        try:
            while True:
                mark = _mark(self._path)
                if mark != self._mark or loop.time() - read_at >= _READ_AT_LEAST_EVERY:
                    self._mark, read_at = mark, loop.time()
                    await self._reload()
                now = self._clock()
                for source in self._sources.values():
                    if source.due(now):
                        # Beside one another: one that does not answer holds up no other.
                        task = loop.create_task(source.refresh(now))
                        fetches.add(task)
                        task.add_done_callback(fetches.discard)
                await asyncio.sleep(_TICK)
        finally:
            for task in fetches:
                task.cancel()
            for source in self._sources.values():
                source.cancel()
            await self._fetcher.close()

    async def _reload(self) -> None:
        try:
            document = await asyncio.to_thread(load, self._path)
            if document != self._document:
                self.use(document)
                self._document = document
        except InvalidIssuers as error:
            if self._complaint != str(error):
                self._complaint = str(error)
                _log.error("issuers_unreadable", path=str(self._path), cause=str(error))
            return
        self._complaint = ""

    async def _after_refresh(self, authorization: bytes, source: IssuerKeys, now: float) -> Caller:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await source.refresh(now)
        except TimeoutError:
            raise CannotIdentify(
                NO_KEYS, cause=f"the keys of {source.issuer.issuer[:200]} are still being fetched"
            ) from None
        now = self._clock()
        if source.at(now) is None:
            raise CannotIdentify(NO_KEYS, cause=f"no keys of {source.issuer.issuer[:200]}")
        try:
            return self._verify(authorization, source, now)
        except TokenRefused as refused:
            raise _not_identified(refused) from None

    def _verify(self, authorization: bytes, source: IssuerKeys, now: float) -> Caller:
        keys = source.at(now)
        assert keys is not None
        token = read_foreign_token(
            bearer(authorization), issuer=source.issuer, keys=keys, now=now, clock_skew=self._clock_skew
        )
        try:
            caller = make_caller(
                user_id=token.user_id,
                groups=[token.groups] if isinstance(token.groups, str) else token.groups,
                permissions=token.permissions,
                user_properties=token.user_properties,
                audiences=token.audiences,
            )
        except NoUser as error:
            raise TokenRefused(NO_USER, "the access token names no user", cause=str(error)) from None
        self._known.put(hashlib.sha256(authorization).digest(), _Verified(token, caller, source, keys))
        return caller


def load(path: Path) -> Any:
    """The file's document. Raises InvalidIssuers where it cannot be read."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidIssuers(f"the file cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise InvalidIssuers(f"the file is longer than {MAX_FILE_BYTES} bytes")
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InvalidIssuers("the file is no YAML") from None


def _mark(path: Path) -> object:
    """Changes when the file does, also where a link is put in another's place."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _not_identified(refused: TokenRefused) -> NotIdentified:
    return NotIdentified(refused.reason, INVALID_TOKEN, refused.description, cause=refused.cause)
