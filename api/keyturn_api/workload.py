"""Workload identity at the token endpoint: a pod's projected ServiceAccount token in place of an assertion that the client signed."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from keyturn.snapshot import Snapshot
from keyturn.tokens import refusal
from keyturn.tokens.assertion import ReadAssertion
from keyturn.tokens.refusal import TokenRefused
from keyturn.tokens.workload import VerifiedWorkload, WorkloadPolicy, is_service_account, subject_of, verify_workload
from keyturn_api.cache import GenerationCache
from keyturn_api.cluster_issuer import ClusterIssuer
from keyturn_api.errors import unavailable
from keyturn_api.kubernetes import Kubernetes, KubernetesError, Object, Refused, path
from keyturn_api.logs import get_logger
from keyturn_api.settings import ApiSettings

_log = get_logger("workload")

_TOKEN_REVIEWS: Final = path("authentication.k8s.io/v1", "tokenreviews")
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
# A pod's end counts after this at the latest.
_REMEMBERED: Final = 10.0
_CAPACITY: Final = 10_000
_AT_ONCE: Final = 8
_WAITING: Final = 256
# How long it is taken as settled that reviews are not allowed here.
_ASK_AGAIN: Final = 60.0


class Reviewer(Protocol):
    """What is needed of the Kubernetes API."""

    async def create(self, collection: str, body: Object) -> Object: ...


class TokenReviews:
    """Has the API server confirm tokens, so that those of deleted pods no longer count. Where that is not allowed, nothing is confirmed.

    `clock` is monotonic. Each process remembers answers for itself.
    """

    def __init__(self, kubernetes: Reviewer, *, audience: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._kubernetes = kubernetes
        self._audience = audience
        self._clock = clock
        self._known: GenerationCache[bytes, tuple[float, bool]] = GenerationCache(_CAPACITY)
        self._calls = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._forbidden_at: float | None = None

    async def confirm(self, token: bytes, verified: VerifiedWorkload) -> None:
        """Returns for a token that the API server takes for this account and pod, and where it may not be asked.

        Raises `TokenRefused`, and `ApiError` 503 while the API server does not answer: its word is the only one on a pod's end.
        """
        key = hashlib.sha256(token).digest()
        counts = self._remembered(key)
        if counts is None and self._waiting >= _WAITING:
            raise unavailable("too many tokens are being reviewed", reason="reviews_full")
        if counts is None:
            self._waiting += 1
            try:
                async with self._calls:
                    counts = self._remembered(key)
                    if counts is None:
                        counts = await self._ask(key, token, verified)
            finally:
                self._waiting -= 1
        if not counts:
            cause = f"pod {verified.account.namespace}/{verified.pod_name[:253]}"
            raise TokenRefused(
                refusal.POD_GONE, "client_assertion: the cluster no longer takes this token", cause=cause
            )

    def _remembered(self, key: bytes) -> bool | None:
        now = self._clock()
        if self._forbidden_at is not None and 0 <= now - self._forbidden_at < _ASK_AGAIN:
            return True
        known = self._known.get(key)
        return known[1] if known is not None and 0 <= now - known[0] < _REMEMBERED else None

    async def _ask(self, key: bytes, token: bytes, verified: VerifiedWorkload) -> bool:
        asked_at = self._clock()
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token.decode("ascii", "replace"), "audiences": [self._audience]},
        }
        try:
            status = (await self._kubernetes.create(_TOKEN_REVIEWS, review)).get("status")
        except Refused as error:
            if error.status != 403:
                raise unavailable("the token cannot be reviewed", reason="review_failed", cause=str(error)) from None
            if self._forbidden_at is None:
                _log.warning("token_review_not_allowed", cause=str(error))
            self._forbidden_at = asked_at
            return True
        except KubernetesError as error:
            raise unavailable("the token cannot be reviewed now", reason="kubernetes", cause=str(error)) from None
        self._forbidden_at = None
        counts = isinstance(status, Mapping) and _is_confirmed(status, verified, self._audience)
        self._known.put(key, (asked_at, counts))
        return counts


def _is_confirmed(status: Mapping[str, Any], verified: VerifiedWorkload, audience: str) -> bool:
    """Whether a TokenReview's status speaks of this account, this pod and our audience."""
    user = _member(status, "user")
    extra = _member(user, "extra")
    return (
        status.get("authenticated") is True
        and not status.get("error")
        and audience in (status.get("audiences") or ())
        and user.get("username") == subject_of(verified.account)
        and user.get("uid") == verified.account.uid
        and list(extra.get(_POD_UID) or ()) == [verified.pod_uid]
    )


def _member(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = of.get(name)
    return value if isinstance(value, Mapping) else {}


class WorkloadIdentity:
    """Recognizes pods' tokens and proves their clients."""

    def __init__(
        self,
        snapshot: Snapshot,
        issuer: ClusterIssuer,
        reviews: TokenReviews | None,
        *,
        audience: str,
        clock_skew: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot = snapshot
        self._issuer = issuer
        self._reviews = reviews
        self._audience = audience
        self._clock_skew = clock_skew
        self._clock = clock

    async def run(self) -> None:
        """Keeps the issuer's keys fresh until cancelled."""
        await self._issuer.run()

    def recognizes(self, claims: Mapping[str, Any]) -> bool:
        """Whether this is a token of the cluster. While its issuer is not known, one that speaks of a ServiceAccount is taken for one."""
        if self._issuer.name is None:
            return is_service_account(claims)
        return claims.get("iss") == self._issuer.name

    async def prove(self, token: bytes, read: ReadAssertion, client_id: str | None) -> VerifiedWorkload:
        """The pod and its client, for certain. Raises `TokenRefused`, and `ApiError` 503 where it cannot be told now."""
        if not self._issuer.keys:
            await self._issuer.refresh()
        if not self._issuer.keys or self._issuer.name is None:
            raise unavailable(
                "the keys of the cluster's issuer are not loaded", reason="no_cluster_keys", retry_after=10
            )
        kid = read.jws.header.get("kid")
        if isinstance(kid, str) and kid not in self._issuer.keys:
            await self._issuer.refresh()
        verified = self._verify(read, client_id)
        if self._reviews is None:
            return verified
        generation = self._snapshot.generation
        await self._reviews.confirm(token, verified)
        return verified if generation == self._snapshot.generation else self._verify(read, client_id)

    def _verify(self, read: ReadAssertion, client_id: str | None) -> VerifiedWorkload:
        assert self._issuer.name is not None
        return verify_workload(
            read,
            clients=self._snapshot,
            keys=self._issuer.keys,
            policy=WorkloadPolicy(self._issuer.name, self._audience, self._clock_skew),
            client_id=client_id,
            now=self._clock(),
        )


def workload_identity(
    settings: ApiSettings, snapshot: Snapshot, kubernetes: Kubernetes | None
) -> WorkloadIdentity | None:
    """As the installation has it; None where it is switched off or there is no Kubernetes API."""
    if kubernetes is None or not settings.workload_identity:
        return None
    return WorkloadIdentity(
        snapshot,
        ClusterIssuer(kubernetes, name=settings.cluster_issuer),
        TokenReviews(kubernetes, audience=settings.issuer) if settings.workload_token_review else None,
        audience=settings.issuer,
        clock_skew=settings.clock_skew_seconds,
    )
