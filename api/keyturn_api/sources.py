"""The sources of callers that the settings name, in the order in which they are asked."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from keyturn.snapshot import Snapshot
from keyturn_api.callers import OtherSource
from keyturn_api.fetching import Fetcher
from keyturn_api.issuer_keys import FETCHES
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.settings import ApiSettings
from keyturn_api.trusted_headers import TrustedHeaders
from keyturn_api.trusted_issuers import TrustedIssuers
from keyturn_api.userinfo import Userinfo

_log = get_logger("callers")


@dataclass(slots=True)
class Sources:
    """What a gateway in front says (if it is trusted), then tokens of trusted issuers, then what a userinfo endpoint says."""

    others: tuple[OtherSource, ...] = ()
    trusted_issuers: TrustedIssuers | None = None
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def close(self) -> None:
        for close in self.closers:
            await close()


def make_sources(settings: ApiSettings, snapshot: Snapshot, metrics: Metrics) -> Sources:
    """Nothing runs yet. Raises ValueError where the trusted issuers' file cannot be used: nobody is to wonder later who is trusted."""
    sources = Sources()
    others: list[OtherSource] = []
    if settings.trust_user_headers:
        peers = settings.trusted_peers
        _log.warning("user_headers_trusted", peers=[str(peer) for peer in peers])
        others.append(
            TrustedHeaders(peers, header_prefix=settings.header_prefix, permissions_key=settings.permissions_key)
        )
    if settings.trusted_issuers_file is not None:
        sources.trusted_issuers = TrustedIssuers(
            settings.trusted_issuers_file,
            Fetcher(connections=FETCHES),
            own_issuer=settings.issuer,
            clock_skew=settings.clock_skew_seconds,
            knows_kid=snapshot.knows_kid,
        )
        sources.trusted_issuers.start()
        others.append(sources.trusted_issuers)
    if settings.userinfo_url is not None:
        userinfo = Userinfo(
            settings.userinfo_url,
            settings,
            metrics,
            Fetcher(connections=settings.userinfo_connections),
            accepted=frozenset(settings.accepted_audiences),
        )
        sources.closers.append(userinfo.close)
        others.append(userinfo)
    sources.others = tuple(others)
    return sources
