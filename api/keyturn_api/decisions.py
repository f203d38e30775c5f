"""All that decides requests at `/auth` and explains it, put together."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from keyturn.snapshot import Snapshot
from keyturn.store.interface import DenialLog
from keyturn_api import profiles
from keyturn_api.administration import Administration
from keyturn_api.answers import GatewayAnswers
from keyturn_api.callers import Callers
from keyturn_api.denials import Denials
from keyturn_api.explaining import Administrator, ExplainEndpoint
from keyturn_api.explanations import Explainer
from keyturn_api.gateway import Gateway
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.settings import ApiSettings
from keyturn_api.sources import Sources, make_sources
from keyturn_api.verified import AccessTokens

_log = get_logger("gateway")


@dataclass(slots=True)
class Decisions:
    """The gateway check, its explanations, and what both stand on; `sources` and `denials` are to be run and closed."""

    gateway: Gateway
    explaining: ExplainEndpoint
    sources: Sources
    denials: Denials


def make_decisions(
    settings: ApiSettings,
    snapshot: Snapshot,
    tokens: AccessTokens,
    store: DenialLog,
    metrics: Metrics,
    administration: Administration,
    *,
    is_stale: Callable[[float], bool],
    namespace: str,
) -> Decisions:
    """Nothing runs yet. Raises ValueError where the trusted issuers' file cannot be used."""
    # HAProxy's script alone looks for the 1 itself; the other gateways let every 200 pass.
    if settings.gateway_profile != "haproxy" and (not settings.strict_mode or settings.unknown_route == "reference"):
        _log.warning(
            "denials_answered_with_200",
            profile=settings.gateway_profile,
            strict_mode=settings.strict_mode,
            unknown_route=settings.unknown_route,
            header=f"{settings.header_prefix}allowed",
        )
    sources = make_sources(settings, snapshot, metrics)
    callers = Callers(tokens, sources.others)
    denials = Denials(store, kept=settings.denials_kept, stored=settings.denials_stored)
    gateway = Gateway(
        snapshot,
        callers,
        metrics,
        profile=profiles.choose(settings),
        answers=GatewayAnswers(
            header_prefix=settings.header_prefix,
            strict=settings.strict_mode,
            unknown_route=settings.unknown_route,
            client_as_user=not settings.has_users if settings.client_as_user is None else settings.client_as_user,
        ),
        denials=denials,
        is_stale=is_stale,
    )
    explaining = ExplainEndpoint(
        snapshot,
        Explainer(snapshot, callers, issuer=settings.issuer, accepted=frozenset(settings.accepted_audiences)),
        denials,
        metrics,
        authorize=partial(_authorize, administration, namespace),
        max_body_bytes=settings.max_body_bytes,
        namespace=namespace,
    )
    return Decisions(gateway, explaining, sources, denials)


async def _authorize(
    administration: Administration, namespace: str, authorization: bytes | None, request_id: str, address: str
) -> Administrator:
    """Explanations name rules and clients of the whole installation, so its namespace's right to `explain` is asked for."""
    return await administration.authorize(
        authorization, verb="explain", namespace=namespace, request_id=request_id, address=address
    )
