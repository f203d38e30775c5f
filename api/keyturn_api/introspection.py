"""`POST /oauth/introspect` (RFC 7662): what a token is worth now, for those who may know."""

import time
from collections.abc import Callable
from typing import Final

from keyturn.clients.state import INTROSPECT_ANY
from keyturn.snapshot import Snapshot
from keyturn.tokens.refusal import TokenRefused
from keyturn_api.errors import ApiError, unavailable
from keyturn_api.http import JSON, NO_STORE, Receive, Response, Scope, oauth_error, request_id, response
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.token_questions import Asker, Askers, TokenQuestion, read_question
from keyturn_api.verified import AccessTokens

_log = get_logger("introspection")
# RFC 7662 section 2.2: nothing else about a token that is not active, or that the asker may not see.
_INACTIVE: Final = response(200, (JSON, *NO_STORE), b'{"active":false}')


class Introspection:
    """A client sees its own tokens, with `introspection: any` those of all clients; so does who may `introspect` by RBAC."""

    def __init__(
        self,
        askers: Askers,
        snapshot: Snapshot,
        tokens: AccessTokens,
        metrics: Metrics,
        *,
        max_body_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._askers = askers
        self._snapshot = snapshot
        self._tokens = tokens
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive) -> Response:
        try:
            question = await read_question(scope, receive, self._max_body_bytes)
            if not self._snapshot.loaded:
                raise unavailable("the service has not loaded its clients yet", reason="not_loaded")
            asker = await self._askers.identify(question, scope)
        except ApiError as error:
            self._metrics.count("introspect", "unavailable" if error.status >= 500 else "refused", scope)
            _log.info(
                "introspection_refused",
                error=error.code,
                reason=error.reason,
                cause=error.cause,
                request_id=request_id(scope),
            )
            return oauth_error(error)
        answer = self._answer(question, asker, scope)
        self._metrics.count("introspect", "inactive" if answer is _INACTIVE else "ok", scope)
        return answer

    def _answer(self, question: TokenQuestion, asker: Asker, scope: Scope) -> Response:
        try:
            verified = self._tokens.verify_token(question.token, self._clock())
        except TokenRefused as refused:
            _log.debug("token_inactive", reason=refused.reason, cause=refused.cause, request_id=request_id(scope))
            return _INACTIVE
        client = asker.client
        if client is None or client.introspection == INTROSPECT_ANY or client.client_id == verified.token.client_id:
            return verified.introspection()
        return _INACTIVE
