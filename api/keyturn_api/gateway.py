"""`/auth`: the API gateway asks whether a request may pass."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from keyturn.rules.decision import Match, Outcome
from keyturn.snapshot import Snapshot
from keyturn.tokens.refusal import TokenRefused
from keyturn_api.cache import GenerationCache
from keyturn_api.errors import INVALID_TOKEN
from keyturn_api.http import Response, Scope, problem, request_id, response
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.profiles import Profile, Question, Unreadable
from keyturn_api.tokeninfo import challenge
from keyturn_api.verified import AccessTokens, VerifiedToken

_log = get_logger("gateway")
_LOGGED_PATH: Final = 256
_IDENTITIES: Final = 2000

# Reasons of this module, besides those of the route decision and of tokens.
UNREADABLE: Final = "UnreadableQuestion"
NOT_LOADED: Final = "NotLoaded"
STALE: Final = "Stale"
SEVERAL_CREDENTIALS: Final = "SeveralCredentials"
NO_CREDENTIALS: Final = "NoCredentials"


class Gateway:
    """Decides in this order: unknown route 403, public route 200, credentials 401, conditions 403. What cannot be decided: 503.

    Every allowed answer carries all identity headers, empty where there is no identity, so that none of the caller's own gets past.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        tokens: AccessTokens,
        metrics: Metrics,
        *,
        profile: Profile,
        header_prefix: str = "mia-",
        is_stale: Callable[[float], bool] = lambda _: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot = snapshot
        self._tokens = tokens
        self._metrics = metrics
        self._profile = profile
        self._is_stale = is_stale
        self._clock = clock
        prefix = header_prefix.encode("ascii")
        self._allowed = prefix + b"allowed"
        self._user_id, self._client_id = prefix + b"userid", prefix + b"clientid"
        self._groups, self._user_properties = prefix + b"groups", prefix + b"userproperties"
        self._nobody = self._identity(b"")
        self._identities: GenerationCache[str, Response] = GenerationCache(_IDENTITIES)

    def __call__(self, scope: Scope) -> Response:
        now = self._clock()
        table = self._snapshot.table
        if table is None or self._is_stale(now):
            reason = NOT_LOADED if table is None else STALE
            return self._deny(scope, None, 503, reason, "no decision can be made now", headers=[(b"retry-after", b"1")])
        try:
            question = self._profile(scope)
        except Unreadable as error:
            # 403 and not 400, of which a gateway may make a 500.
            return self._deny(scope, None, 403, UNREADABLE, "the gateway's question cannot be read", cause=str(error))
        match = table.match(question.method, question.target, question.host, is_backoffice=question.is_backoffice)
        if match.settled is not None:
            return self._settled(scope, question, match, now)
        if question.authorization is None:
            return self._unauthorized(scope, question, NO_CREDENTIALS, "", "an access token is needed")
        if question.several:
            return self._unauthorized(
                scope, question, SEVERAL_CREDENTIALS, "invalid_request", "more than one Authorization header"
            )
        try:
            verified = self._tokens.verify(question.authorization, now)
        except TokenRefused as refused:
            return self._unauthorized(
                scope, question, refused.reason, INVALID_TOKEN, refused.description, cause=refused.cause
            )
        subject = verified.subject
        if subject is not None and (question.is_backoffice or question.client_type):
            subject = replace(subject, is_backoffice=question.is_backoffice, client_type=question.client_type)
        decision = match.evaluate(subject, verified.audiences)
        if decision.outcome is Outcome.ALLOW:
            self._metrics.count("auth", "allowed")
            return self._for(verified)
        return self._deny(
            scope,
            question,
            403,
            decision.reason,
            "the permissions do not suffice",
            cause=decision.description,
            rule=decision.rule,
            client_id=verified.token.client_id,
        )

    def _settled(self, scope: Scope, question: Question, match: Match, now: float) -> Response:
        settled = match.settled
        assert settled is not None
        if settled.outcome is not Outcome.ALLOW:
            detail = "no route allows this request"
            return self._deny(scope, question, 403, settled.reason, detail, cause=settled.description)
        self._metrics.count("auth", "public")
        if question.authorization is None or question.several:
            return self._nobody
        try:
            return self._for(self._tokens.verify(question.authorization, now))
        except TokenRefused:
            return self._nobody

    def _for(self, verified: VerifiedToken) -> Response:
        client_id = verified.token.client_id
        answer = self._identities.get(client_id)
        if answer is None:
            answer = self._identity(client_id.encode("ascii", "replace"))
            self._identities.put(client_id, answer)
        return answer

    def _identity(self, client_id: bytes) -> Response:
        # No source of users is configured, so the client is the user as well.
        return response(
            200,
            [
                (self._allowed, b"1"),
                (self._user_id, client_id),
                (self._groups, b""),
                (self._user_properties, b""),
                (self._client_id, client_id),
            ],
        )

    def _unauthorized(
        self, scope: Scope, question: Question, reason: str, code: str, description: str, *, cause: str = ""
    ) -> Response:
        headers = [(b"www-authenticate", challenge(code, description))]
        return self._deny(scope, question, 401, reason, description, cause=cause, headers=headers)

    def _deny(
        self,
        scope: Scope,
        question: Question | None,
        status: int,
        reason: str,
        detail: str,
        *,
        cause: str = "",
        rule: str | None = None,
        client_id: str | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> Response:
        self._metrics.count("auth", _OUTCOMES[status])
        identifier = request_id(scope)
        _log.info(
            "denied",
            status=status,
            reason=reason,
            cause=cause,
            rule=rule,
            client_id=client_id,
            method=None if question is None else question.method[:16],
            # Without the query, which may hold what is nobody's business.
            path=None
            if question is None
            else question.target.partition(b"?")[0][:_LOGGED_PATH].decode("ascii", "backslashreplace"),
            request_id=identifier,
        )
        return problem(status, detail, request_id=identifier, headers=[(self._allowed, b"0"), *(headers or ())])


_OUTCOMES: Final = {401: "unauthorized", 403: "forbidden", 503: "unavailable"}
