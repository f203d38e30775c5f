"""`POST /oauth/token`: client credentials in, an access token out (RFC 6749 section 4.4)."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from keyturn.clients.claims import RESERVED_CLAIMS
from keyturn.snapshot import Snapshot
from keyturn.tokens.claims import INVALID_TARGET, Grant, encode_access_claims, grant, issued_at, lifetime
from keyturn.tokens.refusal import TokenRefused
from keyturn_api.activity import ActivityRecorder
from keyturn_api.client_authentication import Attempt, ClientAuthenticator, ProvenClient, read_attempt
from keyturn_api.errors import INVALID_REQUEST, UNSUPPORTED_GRANT_TYPE, ApiError, invalid_request, unavailable
from keyturn_api.form import Form, parse_form
from keyturn_api.http import (
    JSON,
    NO_STORE,
    Receive,
    Response,
    Scope,
    header,
    oauth_error,
    read_body,
    request_id,
    response,
)
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.settings import ApiSettings
from keyturn_api.signing_keys import SigningKeys
from keyturn_api.workload import WorkloadIdentity

_log = get_logger("token")

GRANT_TYPE: Final = "client_credentials"
_REPEATABLE: Final = frozenset({"audience", "resource"})


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request with a right form; nothing in it is proven."""

    attempt: Attempt
    audiences: tuple[str, ...]
    scope: str | None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a token is going to say: its claims as JSON. `lifetime` in seconds."""

    claims: bytes
    granted: Grant
    lifetime: int


class TokenEndpoint:
    """Four steps: parse the request, validate the client and what it asks for, create the token, write the answer."""

    def __init__(
        self,
        settings: ApiSettings,
        snapshot: Snapshot,
        signing_keys: SigningKeys,
        authenticator: ClientAuthenticator,
        activity: ActivityRecorder,
        metrics: Metrics,
        *,
        workloads: WorkloadIdentity | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._workloads = workloads
        self._settings = settings
        self._snapshot = snapshot
        self._signing_keys = signing_keys
        self._authenticator = authenticator
        self._activity = activity
        self._metrics = metrics
        self._clock = clock
        # Other issuers' answers are read by these names: no client is to speak of itself under them.
        self._reserved = RESERVED_CLAIMS | {settings.permissions_key, settings.user_id_key}

    async def __call__(self, scope: Scope, receive: Receive) -> Response:
        try:
            request = await self._parse(scope, receive)
            client, statement = await self._validate(request)
            answer = self._create(client, statement)
        except ApiError as error:
            self._metrics.count("token", error.code, scope)
            _log.info(
                "token_refused", error=error.code, reason=error.reason, cause=error.cause, request_id=request_id(scope)
            )
            return oauth_error(error)
        self._metrics.count("token", "ok", scope)
        self._metrics.issued(client.state.client_id)
        return answer

    # Parse

    async def _parse(self, scope: Scope, receive: Receive) -> TokenRequest:
        if scope["method"] != "POST":
            raise ApiError(405, INVALID_REQUEST, "use POST", headers=[(b"allow", b"POST")])
        if scope["query_string"]:
            # RFC 6749 section 2.3.1: credentials never stand in the URL, where they would be logged.
            raise invalid_request("parameters belong into the body, not into the URL")
        body = await read_body(scope, receive, self._settings.max_body_bytes)
        form = parse_form(body, header(scope, b"content-type"), repeatable=_REPEATABLE)
        grant_type = form.get("grant_type")
        if grant_type is None:
            raise invalid_request("grant_type is missing")
        if grant_type != GRANT_TYPE:
            raise ApiError(400, UNSUPPORTED_GRANT_TYPE, f"grant_type must be {GRANT_TYPE}")
        return TokenRequest(read_attempt(scope, form), _audiences(form), form.get("scope"))

    # Validate

    async def _validate(self, request: TokenRequest) -> tuple[ProvenClient, Statement]:
        if self._snapshot.loaded and self._signing_keys.signer() is None:
            raise unavailable("no signing key is ready", reason="no_signing_key", retry_after=5)
        return await self._authenticator.authenticate(
            request.attempt, lambda client: self._state(client, request), workloads=self._workloads
        )

    def _state(self, client: ProvenClient, request: TokenRequest) -> Statement:
        asked = (*request.audiences, *client.requested_audiences)
        if self._settings.require_audience and not asked:
            raise invalid_request("audience is required here")
        seconds = lifetime(
            client.state, default=self._settings.token_lifetime, maximum=self._settings.max_token_lifetime
        )
        try:
            granted = grant(client.state, audiences=asked, scope=request.scope, issuer=self._settings.issuer)
            claims = encode_access_claims(
                client=client.state,
                granted=granted,
                issuer=self._settings.issuer,
                jti=secrets.token_urlsafe(16),
                now=issued_at(client.state, now=self._clock(), clock_skew=self._settings.clock_skew_seconds),
                lifetime=seconds,
                assertion_claims=client.claims,
                reserved=self._reserved,
            )
        except TokenRefused as refused:
            raise ApiError(400, refused.reason, refused.description) from None
        return Statement(claims, granted, seconds)

    # Create

    def _create(self, client: ProvenClient, statement: Statement) -> Response:
        signer = self._signing_keys.signer()
        if signer is None:
            raise unavailable("no signing key is ready", reason="no_signing_key", retry_after=5)
        token = signer.encode(statement.claims)
        self._activity.used(client.state, client.kid, self._clock())
        return _write(token, statement.lifetime, statement.granted)


# Write


def _write(token: bytes, seconds: int, granted: Grant) -> Response:
    """RFC 6749 section 5.1. A token is base64url and dots, a scope-token has no quote and no backslash: neither needs escaping."""
    scope = b""
    if granted.narrowed:
        scope = b',"scope":"%b"' % " ".join(granted.permissions).encode("ascii")
    body = b'{"access_token":"%b","token_type":"Bearer","expires_in":%d%b}' % (token, seconds, scope)
    return response(200, (JSON, *NO_STORE), body)


def _audiences(form: Form) -> tuple[str, ...]:
    resources = form.all("resource")
    for resource in resources:
        # RFC 8707 section 2: an absolute URI without a fragment.
        if not _is_absolute_uri(resource):
            raise ApiError(400, INVALID_TARGET, "resource must be an absolute URI without a fragment")
    return (*form.all("audience"), *resources)


def _is_absolute_uri(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return bool(parts.scheme) and "#" not in value and len(value) > len(parts.scheme) + 1
