"""The published keys of one trusted issuer, and when they are fetched."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from keyturn.jose.strict_json import InvalidJson, parse_object
from keyturn.tokens.foreign import Keys, read_keys
from keyturn.tokens.issuers import InvalidIssuers, TrustedIssuer, check_secure
from keyturn_api.fetching import Fetcher, FetchFailed
from keyturn_api.logs import get_logger

_log = get_logger("trusted_issuers")
MAX_DOCUMENT_BYTES: Final = 256 * 1024
FETCH_SECONDS: Final = 5.0
REFRESH_EVERY: Final = 300.0
# The least time between two fetches, whatever asks for one: a flood of unknown key ids costs no more than this.
LEAST_PAUSE: Final = 10.0
# An issuer that cannot be asked for longer than this may have withdrawn its keys long ago.
MAX_AGE: Final = 86_400.0
FETCHES: Final = 8


class IssuerKeys:
    """The keys fetched last with success count until others have been fetched, a day at most. Times are those of `now`."""

    def __init__(self, issuer: TrustedIssuer, fetcher: Fetcher) -> None:
        self.issuer = issuer
        self._fetcher = fetcher
        self._keys: Keys | None = None
        self._fetched_at = 0.0
        self._tried_at = float("-inf")
        self._flight: asyncio.Task[None] | None = None
        self._complaint = ""

    def at(self, now: float) -> Keys | None:
        """The keys that count now; None where there are none to judge by."""
        if self._keys is None or now - self._fetched_at > MAX_AGE:
            return None
        return self._keys

    def due(self, now: float) -> bool:
        """Whether it is time to fetch without anybody asking; after a failure as soon as may be."""
        pause = REFRESH_EVERY if self._keys is not None and not self._complaint else LEAST_PAUSE
        return now - self._tried_at >= pause

    def may_help(self, now: float) -> bool:
        """Whether fresher keys are on their way, or may be fetched now."""
        return self._flight is not None or now - self._tried_at >= LEAST_PAUSE

    async def refresh(self, now: float) -> None:
        """Fetches, or waits for the fetch that goes on. Never raises; keeps what was there if it fails."""
        if self._flight is None:
            self._tried_at = now
            self._flight = asyncio.get_running_loop().create_task(self._fetch(now))
            self._flight.add_done_callback(lambda _: self._landed())
        await asyncio.shield(self._flight)

    def take_over(self, other: "IssuerKeys") -> None:
        """Starts with the keys of the same issuer under its former settings, if they come from the same place."""
        mine, its = self.issuer, other.issuer
        if (mine.issuer, mine.jwks_uri, mine.algorithms) == (its.issuer, its.jwks_uri, its.algorithms):
            self._keys, self._fetched_at, self._tried_at = other._keys, other._fetched_at, other._tried_at

    def cancel(self) -> None:
        if self._flight is not None:
            self._flight.cancel()

    def _landed(self) -> None:
        self._flight = None

    async def _fetch(self, now: float) -> None:
        try:
            uri = self.issuer.jwks_uri or await self._discover()
            keys = read_keys(await self._document(uri), self.issuer)
            if not keys:
                raise FetchFailed("no key that can be used with the allowed algorithms")
        except (FetchFailed, InvalidIssuers, ValueError) as error:
            if self._complaint != str(error):
                self._complaint = str(error)
                _log.warning("issuer_keys_unavailable", issuer=self.issuer.issuer, cause=str(error))
            return
        self._complaint = ""
        if self._keys is None or self._keys.keys() != keys.keys():
            _log.info("issuer_keys_loaded", issuer=self.issuer.issuer, kids=sorted(keys))
        # Equal keys stay the same object, and with it what was verified by them.
        if self._keys is None or _thumbprints(self._keys) != _thumbprints(keys):
            self._keys = keys
        self._fetched_at = now

    async def _discover(self) -> str:
        document = await self._document(self.issuer.discovery_url)
        # OpenID Connect Discovery section 4.3: the document must be that of exactly this issuer.
        if document.get("issuer") != self.issuer.issuer:
            raise FetchFailed("the discovery document is of another issuer")
        uri = document.get("jwks_uri")
        if not isinstance(uri, str):
            raise FetchFailed("the discovery document names no jwks_uri")
        check_secure(uri, self.issuer.issuer, "jwks_uri")
        return uri

    async def _document(self, url: str) -> Mapping[str, Any]:
        status, content = await self._fetcher.get(url, max_bytes=MAX_DOCUMENT_BYTES, seconds=FETCH_SECONDS)
        if status != 200:
            raise FetchFailed(f"it said {status}")
        try:
            return parse_object(content)
        except InvalidJson as error:
            raise FetchFailed(f"no JSON object: {error}") from None


def _thumbprints(keys: Keys) -> set[tuple[str, str, str]]:
    return {(kid, key.thumbprint, key.algorithm) for kid, of_kid in keys.items() for key in of_kid}
