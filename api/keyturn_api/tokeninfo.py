"""`GET /tokeninfo`: what an access token says, and what of it still holds."""

import time
from collections.abc import Callable

from keyturn.snapshot import Snapshot
from keyturn.tokens.refusal import TokenRefused
from keyturn_api.errors import INVALID_REQUEST, INVALID_TOKEN, ApiError, unavailable
from keyturn_api.http import Response, Scope, header, method_not_allowed, oauth_error, request_id
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.verified import AccessTokens

_log = get_logger("tokeninfo")


class TokenInfo:
    """Answers with the claims (200), or why the token does not count (401, RFC 6750 section 3)."""

    def __init__(
        self, snapshot: Snapshot, tokens: AccessTokens, metrics: Metrics, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._snapshot = snapshot
        self._tokens = tokens
        self._metrics = metrics
        self._clock = clock

    def __call__(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return method_not_allowed("GET", request_id=request_id(scope))
        try:
            authorization = self._parse(scope)
            if not self._snapshot.loaded:
                raise unavailable("the service has not loaded its clients yet", reason="not_loaded")
            try:
                verified = self._tokens.verify(authorization, self._clock())
            except TokenRefused as refused:
                raise unauthorized(
                    INVALID_TOKEN, refused.description, reason=refused.reason, cause=refused.cause
                ) from None
        except ApiError as error:
            self._metrics.count("tokeninfo", "unavailable" if error.status >= 500 else "refused", scope)
            _log.info("tokeninfo_refused", reason=error.reason, cause=error.cause, request_id=request_id(scope))
            return oauth_error(error)
        self._metrics.count("tokeninfo", "ok", scope)
        return verified.info()

    @staticmethod
    def _parse(scope: Scope) -> bytes:
        authorization = header(scope, b"authorization")
        if authorization is None:
            # RFC 6750 section 3.1: without credentials no error code.
            raise unauthorized("", "an access token is needed", reason="no_credentials")
        if sum(name == b"authorization" for name, _ in scope["headers"]) > 1:
            raise unauthorized(INVALID_REQUEST, "more than one Authorization header", reason="several_credentials")
        return authorization


def challenge(code: str, description: str) -> bytes:
    """The value of WWW-Authenticate (RFC 6750 section 3). `description` is one of our own texts, without quotes."""
    if not code:
        return b"Bearer"
    return f'Bearer error="{code}", error_description="{description}"'.encode("ascii", "replace")


def unauthorized(code: str, description: str, *, reason: str, cause: str = "") -> ApiError:
    return ApiError(
        401,
        code or "unauthorized",
        description,
        reason=reason,
        cause=cause,
        headers=[(b"www-authenticate", challenge(code, description))],
    )
