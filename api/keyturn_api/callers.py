"""Who is asking: our own tokens first, and alone where the token is ours; then what else the installation trusts."""

from collections.abc import Awaitable
from typing import Final, Protocol

from keyturn.tokens.access import AccessToken
from keyturn.tokens.refusal import TokenRefused
from keyturn_api.answers import Caller
from keyturn_api.errors import INVALID_REQUEST, INVALID_TOKEN
from keyturn_api.http import Scope
from keyturn_api.profiles import Question
from keyturn_api.verified import AccessTokens, OwnTokenRefused, VerifiedToken

SEVERAL_CREDENTIALS: Final = "SeveralCredentials"
NO_CREDENTIALS: Final = "NoCredentials"

Identified = VerifiedToken | Caller


class NotIdentified(Exception):
    """Nobody is logged in: 401. `code` is that of RFC 6750 section 3.1, empty without credentials; `cause` is for the log.

    `token` is one of our own whose signature held, and that is refused all the same.
    """

    def __init__(
        self, reason: str, code: str, description: str, *, cause: str = "", token: AccessToken | None = None
    ) -> None:
        super().__init__(description)
        self.reason = reason
        self.code = code
        self.description = description
        self.cause = cause
        self.token = token


class CannotIdentify(Exception):
    """Who is asking cannot be found out now: 503. `reason` and `cause` are for the log."""

    def __init__(self, reason: str, *, cause: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause = cause


class OtherSource(Protocol):
    """Identifies callers by something else than our own tokens."""

    def identify(
        self, scope: Scope, question: Question, now: float, *, public: bool
    ) -> Caller | Awaitable[Caller] | None:
        """The caller, at once or later; None where the request holds nothing that this source looks at.

        `public`: the request passes whoever the caller is, so nothing is worth much waiting.

        Raises `NotIdentified` and `CannotIdentify`, the awaitable too.
        """


class Callers:
    """Asks our own tokens, then the other sources in their order; the first that knows the credentials decides."""

    def __init__(self, tokens: AccessTokens, others: tuple[OtherSource, ...] = ()) -> None:
        self._tokens = tokens
        self._others = others

    def identify(
        self, scope: Scope, question: Question, now: float, *, public: bool = False
    ) -> Identified | Awaitable[Caller]:
        """Raises `NotIdentified` and `CannotIdentify`."""
        if question.several:
            raise NotIdentified(SEVERAL_CREDENTIALS, INVALID_REQUEST, "more than one Authorization header")
        authorization = question.authorization
        refused: TokenRefused | None = None
        if authorization is not None:
            try:
                return self._tokens.verify(authorization, now)
            except TokenRefused as error:
                refused = error
        if self._others and (authorization is None or not self._tokens.is_own(authorization)):
            for source in self._others:
                if (found := source.identify(scope, question, now, public=public)) is not None:
                    return found
        if refused is None:
            raise NotIdentified(NO_CREDENTIALS, "", "an access token is needed")
        token = refused.token if isinstance(refused, OwnTokenRefused) else None
        raise NotIdentified(refused.reason, INVALID_TOKEN, refused.description, cause=refused.cause, token=token)
