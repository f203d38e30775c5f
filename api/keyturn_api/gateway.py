"""`/auth`: the API gateway asks whether a request may pass."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from keyturn.expressions import Subject
from keyturn.rules.decision import PUBLIC_ROUTE, Match, Outcome, would_deny
from keyturn.snapshot import Snapshot
from keyturn.tokens.access import AccessToken
from keyturn_api.answers import Caller, GatewayAnswers
from keyturn_api.audit_mode import AuditedDenials
from keyturn_api.callers import NO_CREDENTIALS, Callers, CannotIdentify, Identified, NotIdentified
from keyturn_api.denials import ANONYMOUS, CLIENT, UNKNOWN, USER, Denials, denial_body, logged_path
from keyturn_api.errors import INSUFFICIENT_SCOPE, Header
from keyturn_api.http import Response, Scope, request_id
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.profiles import Profile, Question, Unreadable
from keyturn_api.tokeninfo import challenge
from keyturn_api.verified import VerifiedToken

_log = get_logger("gateway")

# Reasons of this module, besides those of the route decision, of callers and of tokens.
UNREADABLE: Final = "UnreadableQuestion"
NOT_LOADED: Final = "NotLoaded"
STALE: Final = "Stale"
CHANGED: Final = "RuleChanged"

# What a caller's developer reads. None tells how a rule is made: that stands in the log, under the id.
_NO_ROUTE: Final = (
    "No rule of this API allows this request: check its method and path, or ask the API's owner and name this id."
)
_FORBIDDEN: Final = (
    "The credentials are valid, but do not permit this request: ask the API's owner for access and name this id."
)
_UNDECIDED: Final = "No decision can be made now: try again in a moment."
_NOT_PERMITTED: Final = "the token does not permit this request"


class Gateway:
    """Decides in this order: unknown route 403, public route 200, credentials 401, conditions 403. What cannot be decided: 503.

    The answer is there at once, except where another service must be asked who the caller is: then it comes later.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        callers: Callers,
        metrics: Metrics,
        *,
        profile: Profile,
        answers: GatewayAnswers | None = None,
        denials: Denials | None = None,
        is_stale: Callable[[float], bool] = lambda _: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot = snapshot
        self._callers = callers
        self._metrics = metrics
        self._profile = profile
        self._answers = answers or GatewayAnswers()
        self._denials = denials
        self._audited = AuditedDenials(metrics)
        self._is_stale = is_stale
        self._clock = clock

    def __call__(self, scope: Scope) -> Response | Awaitable[Response]:
        try:
            question = self._profile(scope)
        except Unreadable as error:
            # 403 and not 400, of which a gateway may make a 500.
            return self._deny(scope, None, 403, UNREADABLE, "The gateway's question cannot be read.", cause=str(error))
        return self.answer(scope, question)

    def answer(self, scope: Scope, question: Question) -> Response | Awaitable[Response]:
        """The answer to a question that a profile has read. Of `scope` only `headers` and `client` are looked at."""
        now = self._clock()
        table = self._snapshot.table
        if table is None or self._is_stale(now):
            return self._undecided(scope, question, NOT_LOADED if table is None else STALE)
        match = table.match(question.method, question.target, question.host, is_backoffice=question.is_backoffice)
        settled = match.settled
        if settled is not None:
            if settled.outcome is Outcome.ALLOW:
                return self._public(scope, question, match, now)
            return self._deny(
                scope,
                question,
                403,
                settled.reason,
                _NO_ROUTE,
                cause=settled.description,
                unknown_route=settled.outcome is Outcome.UNKNOWN_ROUTE,
            )
        try:
            caller = self._callers.identify(scope, question, now)
        except NotIdentified as error:
            return self._unauthorized(scope, question, error)
        except CannotIdentify as error:
            return self._undecided(scope, question, error.reason, cause=error.cause)
        if isinstance(caller, VerifiedToken | Caller):
            return self._decided(scope, question, match, caller)
        return self._later(scope, question, caller)

    async def _later(self, scope: Scope, question: Question, pending: Awaitable[Caller]) -> Response:
        try:
            caller = await pending
        except NotIdentified as error:
            return self._unauthorized(scope, question, error)
        except CannotIdentify as error:
            return self._undecided(scope, question, error.reason, cause=error.cause)
        # The rules of now count, not those of before the wait.
        table = self._snapshot.table
        if table is None:
            return self._undecided(scope, question, NOT_LOADED)
        match = table.match(question.method, question.target, question.host, is_backoffice=question.is_backoffice)
        return self._decided(scope, question, match, caller)

    def _decided(self, scope: Scope, question: Question, match: Match, caller: Identified) -> Response:
        subject = caller.subject
        assert subject is not None
        if question.is_backoffice or question.client_type:
            subject = replace(subject, is_backoffice=question.is_backoffice, client_type=question.client_type)
        decision = match.evaluate(subject, caller.audiences)
        if decision.outcome is Outcome.ALLOW:
            self._metrics.count("auth", "public" if decision.public else "allowed", scope)
            self._metrics.decided(decision.rule, decision.reason, scope)
            if match.audits:
                self._audit(scope, question, match, subject, caller)
            return self._answer_for(caller)
        return self._deny(
            scope,
            question,
            403,
            decision.reason,
            _NO_ROUTE if decision.outcome is Outcome.UNKNOWN_ROUTE else _FORBIDDEN,
            cause=decision.description,
            rule=decision.rule,
            route=decision.route,
            who=CLIENT if isinstance(caller, VerifiedToken) else USER,
            token=_token(caller),
            unknown_route=decision.outcome is Outcome.UNKNOWN_ROUTE,
            # RFC 6750 section 3.1. The scope that would do is not named: that would tell how the rule is made.
            headers=[(b"www-authenticate", challenge(INSUFFICIENT_SCOPE, _NOT_PERMITTED))]
            if match.settled is None
            else [],
        )

    def _public(self, scope: Scope, question: Question, match: Match, now: float) -> Response | Awaitable[Response]:
        try:
            caller = self._callers.identify(scope, question, now, public=True)
        except (NotIdentified, CannotIdentify):
            return self._opened(scope, question, match, None)
        if isinstance(caller, VerifiedToken | Caller):
            return self._opened(scope, question, match, caller)
        return self._opened_later(scope, question, match, caller)

    async def _opened_later(
        self, scope: Scope, question: Question, match: Match, pending: Awaitable[Caller]
    ) -> Response:
        caller: Caller | None
        try:
            caller = await pending
        except (NotIdentified, CannotIdentify):
            caller = None
        table = self._snapshot.table
        if table is not None:
            match = table.match(question.method, question.target, question.host, is_backoffice=question.is_backoffice)
        if match.settled is not None and match.settled.outcome is Outcome.ALLOW:
            return self._opened(scope, question, match, caller)
        # The route was public when the wait began.
        if caller is None:
            return self._undecided(scope, question, CHANGED)
        return self._decided(scope, question, match, caller)

    def _opened(self, scope: Scope, question: Question, match: Match, caller: Identified | None) -> Response:
        self._metrics.count("auth", "public", scope)
        settled = match.settled
        self._metrics.decided(None if settled is None else settled.rule, PUBLIC_ROUTE, scope)
        if match.audits:
            self._audit(scope, question, match, None if caller is None else caller.subject, caller)
        return self._answers.nobody if caller is None else self._answer_for(caller)

    def _answer_for(self, caller: Identified) -> Response:
        if isinstance(caller, VerifiedToken):
            return self._answers.client(caller.token.client_id)
        return self._answers.caller(caller)

    def _audit(
        self, scope: Scope, question: Question, match: Match, subject: Subject | None, caller: Identified | None
    ) -> None:
        if subject is not None and (question.is_backoffice or question.client_type):
            subject = replace(subject, is_backoffice=question.is_backoffice, client_type=question.client_type)
        for rule, decision in would_deny(match, subject, () if caller is None else caller.audiences):
            self._audited.note(
                rule,
                decision,
                method=question.method[:16],
                path=logged_path(question),
                client_id=None if (token := _token(caller)) is None else token.client_id,
                request_id=request_id(scope),
                now=self._clock(),
            )

    def _unauthorized(self, scope: Scope, question: Question, error: NotIdentified) -> Response:
        headers = [(b"www-authenticate", challenge(error.code, error.description))]
        detail = f"{error.description[:1].upper()}{error.description[1:]}: send a valid token as Authorization: Bearer <token>."
        return self._deny(
            scope,
            question,
            401,
            error.reason,
            detail,
            cause=error.cause or error.description,
            who=CLIENT if error.token is not None else ANONYMOUS if error.reason == NO_CREDENTIALS else UNKNOWN,
            token=error.token,
            headers=headers,
        )

    def _undecided(self, scope: Scope, question: Question, reason: str, *, cause: str = "") -> Response:
        return self._deny(scope, question, 503, reason, _UNDECIDED, cause=cause, headers=[(b"retry-after", b"1")])

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
        route: str | None = None,
        who: str = UNKNOWN,
        token: AccessToken | None = None,
        unknown_route: bool = False,
        headers: list[Header] | None = None,
    ) -> Response:
        self._metrics.count("auth", _OUTCOMES[status], scope)
        self._metrics.decided(rule, reason, scope)
        identifier = request_id(scope)
        if self._denials is not None:
            self._denials.note(
                identifier, denial_body(question, status, reason, cause, rule=rule, route=route, who=who, token=token)
            )
        _log.info(
            "denied",
            status=status,
            reason=reason,
            cause=cause,
            rule=rule,
            route=route,
            client_id=None if token is None else token.client_id,
            method=None if question is None else question.method[:16],
            path=None if question is None else logged_path(question),
            request_id=identifier,
        )
        return self._answers.denied(
            status, detail, request_id=identifier, unknown_route=unknown_route, headers=headers or ()
        )


def _token(caller: Identified | None) -> AccessToken | None:
    return caller.token if isinstance(caller, VerifiedToken) else None


_OUTCOMES: Final = {401: "unauthorized", 403: "forbidden", 503: "unavailable"}
