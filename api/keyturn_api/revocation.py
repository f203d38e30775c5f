"""`POST /oauth/revoke` (RFC 7009): an access token is given up before its end."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from keyturn.records import Revocation
from keyturn.snapshot import Snapshot
from keyturn.store.interface import RevocationLog, StoreUnavailable
from keyturn.tokens.access import AccessToken
from keyturn.tokens.refusal import TokenRefused
from keyturn_api import audit
from keyturn_api.errors import SLOW_DOWN, ApiError, unavailable
from keyturn_api.http import NO_STORE, Receive, Response, Scope, oauth_error, request_id, response
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.revocation_quota import RevocationQuota
from keyturn_api.token_questions import Asker, Askers, read_question
from keyturn_api.verified import AccessTokens

_log = get_logger("revocation")
# RFC 7009 section 2.2: 200 also where there was nothing to revoke; the body says nothing.
_DONE: Final = response(200, NO_STORE)
_STORE_SECONDS: Final = 5.0
# Remembered beyond the token's end, so that no replica with a slower clock takes it for a good one once more.
_REMEMBER_LONGER: Final = 60


class RevocationEndpoint:
    """A client revokes its own tokens; who may `revoke` by RBAC those of all clients. For others' and unknown ones: 200, no effect."""

    def __init__(
        self,
        askers: Askers,
        snapshot: Snapshot,
        tokens: AccessTokens,
        store: RevocationLog,
        metrics: Metrics,
        *,
        max_body_bytes: int,
        per_client: int,
        clock_skew: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._askers = askers
        self._snapshot = snapshot
        self._tokens = tokens
        self._store = store
        self._metrics = metrics
        self._quota = RevocationQuota(per_client)
        self._max_body_bytes = max_body_bytes
        self._remember = clock_skew + _REMEMBER_LONGER
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive) -> Response:
        try:
            question = await read_question(scope, receive, self._max_body_bytes)
            if not self._snapshot.loaded:
                raise unavailable("the service has not loaded its clients yet", reason="not_loaded")
            asker = await self._askers.identify(question, scope)
            token = self._find(question.token, asker, scope)
            if token is not None:
                await self._revoke(token, asker, scope)
        except ApiError as error:
            self._metrics.count("revoke", "unavailable" if error.status >= 500 else "refused", scope)
            _log.info(
                "revocation_refused",
                error=error.code,
                reason=error.reason,
                cause=error.cause,
                request_id=request_id(scope),
            )
            return oauth_error(error)
        self._metrics.count("revoke", "no_effect" if token is None else "ok", scope)
        return _DONE

    def _find(self, given: bytes, asker: Asker, scope: Scope) -> AccessToken | None:
        """The token if it is the asker's to revoke and has not ended.

        What is refused now for another reason (a client that is suspended) may count again later: it is revoked all the same.
        """
        now = self._clock()
        reason = ""
        try:
            token = self._tokens.read(given, now)
        except TokenRefused as refused:
            reason = refused.reason
        else:
            if now >= token.expires_at:
                reason = "expired"
            elif asker.client is not None and asker.client.client_id != token.client_id:
                reason = "not_the_callers"
            elif self._snapshot.is_revoked(token.token_hash):
                reason = "revoked_before"
            else:
                return token
        _log.info("nothing_revoked", reason=reason, asker=asker.name, request_id=request_id(scope))
        return None

    def _count(self, client_id: str, revocation: Revocation) -> None:
        wait = self._quota.take(client_id, revocation.expires_at, self._clock())
        if wait is not None:
            raise ApiError(
                429,
                SLOW_DOWN,
                "too many tokens of this client stand as revoked: revokeTokensIssuedBefore of its ClientCredential revokes all at once",
                reason="too_many_revoked",
                headers=[(b"retry-after", b"%d" % int(wait + 1))],
            )

    async def _revoke(self, token: AccessToken, asker: Asker, scope: Scope) -> None:
        revocation = Revocation(token.token_hash, token.expires_at + self._remember)
        # Whom Kubernetes lets revoke is trusted, and must not be stopped by what the client has used up.
        counts = asker.client is not None
        if counts:
            self._count(token.client_id, revocation)
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await self._store.revoke([revocation])
        except (StoreUnavailable, TimeoutError) as error:
            self._metrics.store_failures.labels("revoke").inc()
            if counts:
                self._quota.give_back(token.client_id, revocation.expires_at)
            raise unavailable(
                "the store does not answer, so the token is not revoked", reason="store_unavailable", cause=str(error)
            ) from None
        # The others hear of it from the store; here it holds before the answer.
        self._snapshot.revoke(revocation)
        known = self._snapshot.client(token.client_id)
        audit.record(
            "token_revoked",
            who=asker.name,
            request_id=request_id(scope),
            client_id=token.client_id,
            uid=None if known is None else known.uid,
            token_hash=token.token_hash,
            token_expires_at=int(token.expires_at),
        )
