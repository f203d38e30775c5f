"""Administration by Kubernetes tokens: who calls (TokenReview), and whether RBAC lets them (SubjectAccessReview)."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from keyturn.jose import base64url
from keyturn.jose.strict_json import parse_object
from keyturn_api import audit
from keyturn_api.addresses import Network
from keyturn_api.cache import GenerationCache
from keyturn_api.errors import INVALID_REQUEST, INVALID_TOKEN, SLOW_DOWN, ApiError, unavailable
from keyturn_api.guessing import GuessLimiter
from keyturn_api.kubernetes import GROUP, Kubernetes, KubernetesError, Object, Refused, path
from keyturn_api.logs import get_logger

_log = get_logger("administration")
Verb = Literal["create", "introspect", "revoke", "explain"]
ACCESS_DENIED: Final = "access_denied"
_TOKEN_REVIEWS: Final = path("authentication.k8s.io/v1", "tokenreviews")
_ACCESS_REVIEWS: Final = path("authorization.k8s.io/v1", "subjectaccessreviews")
# Long enough for a burst of calls; a right that was taken away counts for no longer than this.
_REMEMBERED: Final = 5.0
_CAPACITY: Final = 1000
# Anybody can write a JWT for our audience: an address makes the API server look at so many. More than may wait here, so that a crowd of
# callers that are allowed never seems to be one of guesses.
_FAILURES_PER_MINUTE: Final = 100
_AT_ONCE: Final = 8
_WAITING: Final = 64
_MAX_TOKEN: Final = 16 * 1024
_MAX_LOGGED: Final = 256
_NOT_ALLOWED_RETRY: Final = 60
# What a token says of its holder proves nothing, so that there is no name to count by besides the address.
_ANYBODY: Final = "kubernetes"
_NONE: Final[Mapping[str, tuple[str, ...]]] = {}


@dataclass(frozen=True, slots=True)
class Caller:
    """A user of Kubernetes, as the API server names it."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Administration:
    """Authorizes callers. Without the right to make reviews (`kubernetes` None, or switched off) its endpoints are not there: 404.

    A token must be for the audience `<issuer>/admin`, so that one that was sent here is of no use at the API server, nor the other way
    round. `server_tokens` accepts those for the API server too, for the time of a migration.
    """

    def __init__(
        self,
        kubernetes: Kubernetes | None,
        *,
        issuer: str,
        enabled: bool = True,
        server_tokens: bool = False,
        exempt: Sequence[Network] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kubernetes = kubernetes if enabled else None
        self._issuer = issuer
        self.audience = admin_audience(issuer)
        self._server_tokens = server_tokens
        self._clock = clock
        self._known: GenerationCache[bytes, tuple[float, Caller]] = GenerationCache(_CAPACITY)
        self._refused: GenerationCache[bytes, float] = GenerationCache(_CAPACITY)
        self._limiter = GuessLimiter(_FAILURES_PER_MINUTE, exempt)
        self._calls = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    @property
    def enabled(self) -> bool:
        """Whether callers can be authorized here at all."""
        return self._kubernetes is not None

    def is_kubernetes_token(self, authorization: bytes) -> bool:
        """Whether a Bearer token is for this way of authorization rather than one of our own: a JWT of another issuer. Proves nothing."""
        issuer = _claims(_bearer(authorization) or b"").get("iss")
        return isinstance(issuer, str) and issuer != self._issuer

    async def authorize(
        self,
        authorization: bytes | None,
        *,
        verb: Verb,
        namespace: str,
        request_id: str,
        address: str,
        resource: str = "clientcredentials",
        name: str | None = None,
    ) -> Caller:
        """Who calls, for certain, if RBAC allows them `verb` on `resource` of our group in the namespace.

        `address` is the caller's: those whom Kubernetes refuses are counted by it.
        Raises `ApiError`: 404 without administration, 401 for no token that counts, 403 for a denied one (which leaves an audit
        record), 429 after too many of either, 503 while Kubernetes does not answer.
        """
        if self._kubernetes is None:
            raise ApiError(404, INVALID_REQUEST, "no such endpoint: this installation has no administration by tokens")
        token = _bearer(authorization or b"")
        if token is None:
            raise _unauthorized("", "a Kubernetes token is needed", reason="no_credentials")
        if not self._may_count(token):
            raise _unauthorized(
                INVALID_TOKEN,
                f"the token must be one of Kubernetes for the audience {self.audience}",
                reason="audience",
            )
        key = _key(token, verb, resource, namespace, name or "")
        remembered = self._known.get(key)
        if remembered is not None and 0 <= self._clock() - remembered[0] < _REMEMBERED:
            return remembered[1]
        if self._was_refused(token):
            raise _not_accepted()
        if self._waiting >= _WAITING:
            raise unavailable("too many tokens are being reviewed", reason="reviews_full")
        self._count(address)
        self._waiting += 1
        try:
            async with self._calls:
                asked_at = self._clock()
                caller = await self._authenticate(self._kubernetes, token)
                allowed = await self._is_allowed(self._kubernetes, caller, _attributes(verb, resource, namespace, name))
        except KubernetesError as error:
            self._limiter.succeeded(_ANYBODY, address)  # nothing was refused
            if isinstance(error, Refused) and error.status in (401, 403):
                # No outage, and no waiting mends it: Kubernetes takes this service for nobody who may ask.
                _log.error("reviews_not_allowed", cause=str(error), request_id=request_id)
                raise unavailable(
                    "this service may not ask Kubernetes who calls: its ServiceAccount lacks the right to make reviews",
                    reason="reviews_not_allowed",
                    retry_after=_NOT_ALLOWED_RETRY,
                    cause=str(error),
                ) from None
            _log.warning("review_failed", cause=str(error), request_id=request_id)
            raise unavailable(
                "Kubernetes does not answer", reason="kubernetes", retry_after=5, cause=str(error)
            ) from None
        finally:
            self._waiting -= 1
        if not allowed:
            audit.record(
                "administration_denied",
                who=caller.username[:_MAX_LOGGED],
                request_id=request_id,
                verb=verb,
                resource=f"{resource}.{GROUP}",
                object=f"{namespace}/{name or '*'}",
            )
            raise ApiError(403, ACCESS_DENIED, f"not allowed to {verb} {resource} in this namespace", reason="denied")
        self._limiter.succeeded(_ANYBODY, address)
        self._known.put(key, (asked_at, caller))
        return caller

    def _count(self, address: str) -> None:
        """Counts a question to Kubernetes as one that it refuses, until it is known better. Raises `ApiError` 429."""
        wait = self._limiter.begin(_ANYBODY, address, self._clock())
        if wait is not None:
            raise ApiError(
                429,
                SLOW_DOWN,
                "too many tokens were refused, try again later",
                reason="guessing",
                headers=[(b"retry-after", b"%d" % int(wait + 1))],
            )

    def _was_refused(self, token: bytes) -> bool:
        at = self._refused.get(_key(token))
        return at is not None and 0 <= self._clock() - at < _REMEMBERED

    def _may_count(self, token: bytes) -> bool:
        """Keeps off the API server what it would refuse anyway: no JWT for our audience."""
        if len(token) > _MAX_TOKEN:
            return False
        if self._server_tokens:
            return True
        audiences = _claims(token).get("aud")
        return audiences == self.audience or (isinstance(audiences, list) and self.audience in audiences)

    async def _authenticate(self, kubernetes: Kubernetes, token: bytes) -> Caller:
        caller = await self._review(kubernetes, token, [self.audience])
        if caller is None and self._server_tokens:
            caller = await self._review(kubernetes, token, [])
        if caller is None:
            self._refused.put(_key(token), self._clock())
            raise _not_accepted()
        return caller

    @staticmethod
    async def _review(kubernetes: Kubernetes, token: bytes, audiences: Sequence[str]) -> Caller | None:
        spec: Object = {"token": token.decode("latin-1")}
        if audiences:
            spec["audiences"] = list(audiences)
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        status = (await kubernetes.create(_TOKEN_REVIEWS, review)).get("status") or {}
        # An authenticator that knows no audiences names none: then the token may be for anybody.
        if status.get("authenticated") is not True or (
            audiences and not set(audiences) & set(status.get("audiences") or ())
        ):
            return None
        user = status.get("user") or {}
        if not isinstance(user.get("username"), str) or not user["username"]:
            return None
        extra = {str(name): tuple(map(str, values)) for name, values in (user.get("extra") or {}).items()}
        return Caller(user["username"], str(user.get("uid") or ""), tuple(map(str, user.get("groups") or ())), extra)

    @staticmethod
    async def _is_allowed(kubernetes: Kubernetes, caller: Caller, attributes: Object) -> bool:
        spec = {
            "user": caller.username,
            "uid": caller.uid,
            "groups": list(caller.groups),
            "extra": {name: list(values) for name, values in caller.extra.items()},
            "resourceAttributes": attributes,
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        status = (await kubernetes.create(_ACCESS_REVIEWS, review)).get("status") or {}
        return status.get("allowed") is True and status.get("denied") is not True


def admin_audience(issuer: str) -> str:
    """The audience of Kubernetes tokens for administration."""
    return f"{issuer.rstrip('/')}/admin"


def _attributes(verb: str, resource: str, namespace: str, name: str | None) -> Object:
    attributes = {"group": GROUP, "resource": resource, "verb": verb, "namespace": namespace}
    return attributes if name is None else {**attributes, "name": name}


def _bearer(authorization: bytes) -> bytes | None:
    scheme, _, token = authorization.partition(b" ")
    token = token.strip(b" ")
    return token if scheme.lower() == b"bearer" and token and b" " not in token else None


def _claims(token: bytes) -> Mapping[str, Any]:
    """The claims that a JWT says it has, nothing verified; empty for anything else."""
    parts = token.split(b".", 3)
    if len(parts) != 3 or len(token) > _MAX_TOKEN:
        return _NONE
    try:
        return parse_object(base64url.decode(parts[1]))
    except ValueError:
        return _NONE


def _key(token: bytes, *parts: str) -> bytes:
    digest = hashlib.sha256(hashlib.sha256(token).digest())
    for part in parts:
        digest.update(b"%d:%b" % (len(part), part.encode()))
    return digest.digest()


def _not_accepted() -> ApiError:
    return _unauthorized(INVALID_TOKEN, "Kubernetes does not accept the token", reason="not_authenticated")


def _unauthorized(code: str, description: str, *, reason: str) -> ApiError:
    # RFC 6750 section 3.1: without credentials no error code.
    challenge = b"Bearer"
    if code:
        challenge = f'Bearer error="{code}"'.encode("ascii")
    return ApiError(401, code or "unauthorized", description, reason=reason, headers=[(b"www-authenticate", challenge)])
