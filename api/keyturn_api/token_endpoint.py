"""`POST /oauth/token`: client credentials in, an access token out (RFC 6749 section 4.4)."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from keyturn.clients.state import ClientState
from keyturn.snapshot import Snapshot
from keyturn.store.batching import BatchedReplayGuard
from keyturn.store.interface import StoreReplaced, StoreUnavailable
from keyturn.tokens import refusal
from keyturn.tokens.assertion import AssertionPolicy, VerifiedAssertion, check_client, verify_assertion
from keyturn.tokens.claims import INVALID_TARGET, Grant, encode_access_claims, grant, lifetime
from keyturn.tokens.refusal import TokenRefused
from keyturn_api.activity import ActivityRecorder
from keyturn_api.client_secrets import SecretVerifier, invalid_client, parse_basic
from keyturn_api.errors import (
    INVALID_REQUEST,
    SLOW_DOWN,
    UNSUPPORTED_GRANT_TYPE,
    ApiError,
    invalid_request,
    unavailable,
)
from keyturn_api.form import Form, parse_form
from keyturn_api.guessing import GuessLimiter
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

_log = get_logger("token")

GRANT_TYPE: Final = "client_credentials"
# RFC 7523 section 2.2
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_REPEATABLE: Final = frozenset({"audience", "resource"})
_MAX_CLIENT_ID: Final = 512
_MAX_LOGGED_ID: Final = 200


@dataclass(frozen=True, slots=True)
class AssertionCredential:
    """`private_key_jwt`: RFC 7523 section 2.2."""

    assertion: bytes


@dataclass(frozen=True, slots=True)
class SecretCredential:
    """`client_secret_basic`: RFC 6749 section 2.3.1."""

    client_id: str
    secret: bytes


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request with a right form; nothing in it is proven."""

    credential: AssertionCredential | SecretCredential
    client_id: str | None
    audiences: tuple[str, ...]
    scope: str | None
    address: str


@dataclass(frozen=True, slots=True)
class ProvenClient:
    """Who asks, for certain."""

    state: ClientState
    kid: str
    claims: Mapping[str, Any]
    requested_audiences: tuple[str, ...]


class TokenEndpoint:
    """Four steps: parse the request, validate the client and what it asks for, create the token, write the answer."""

    def __init__(
        self,
        settings: ApiSettings,
        snapshot: Snapshot,
        signing_keys: SigningKeys,
        guard: BatchedReplayGuard,
        verifier: SecretVerifier,
        limiter: GuessLimiter,
        activity: ActivityRecorder,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._signing_keys = signing_keys
        self._guard = guard
        self._verifier = verifier
        self._limiter = limiter
        self._activity = activity
        self._metrics = metrics
        self._clock = clock
        self.on_store_replaced: Callable[[], None] = lambda: None
        audiences = {settings.issuer}
        if settings.token_endpoint_as_audience:
            audiences.add(settings.token_endpoint)
        self._policy = AssertionPolicy(frozenset(audiences), settings.clock_skew_seconds)

    async def __call__(self, scope: Scope, receive: Receive) -> Response:
        started = time.perf_counter()
        try:
            request = await self._parse(scope, receive)
            client, granted = await self._validate(request)
            answer = self._create(client, granted)
        except ApiError as error:
            self._metrics.count("token", error.code)
            _log.info(
                "token_refused", error=error.code, reason=error.reason, cause=error.cause, request_id=request_id(scope)
            )
            return oauth_error(error)
        self._metrics.count("token", "ok")
        self._metrics.token_seconds.observe(time.perf_counter() - started)
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
        client = scope.get("client")
        return TokenRequest(
            credential=_credential(scope, form),
            client_id=form.get("client_id"),
            audiences=_audiences(form),
            scope=form.get("scope"),
            address=client[0] if client else "",
        )

    # Validate

    async def _validate(self, request: TokenRequest) -> tuple[ProvenClient, Grant]:
        # Of the state that the assertion is judged by: nothing is awaited before its jti waits for exactly this store.
        position = self._snapshot.position
        if position is None:
            raise unavailable("the service has not loaded its clients yet", reason="not_loaded")
        if self._signing_keys.signer() is None:
            raise unavailable("no signing key is ready", reason="no_signing_key", retry_after=5)
        if isinstance(request.credential, SecretCredential):
            client = await self._check_secret(request.credential, request)
            return client, self._grant(client, request)
        verified = self._check_assertion(request.credential, request)
        client = ProvenClient(verified.client, verified.kid, verified.claims, verified.requested_audiences)
        granted = self._grant(client, request)
        generation = self._snapshot.generation
        # Last of all, so that a request that fails otherwise can be sent again as it is.
        await self._consume(verified, position.store_id)
        if generation != self._snapshot.generation:
            client = self._look_again(client)
            granted = self._grant(client, request)
        return client, granted

    def _check_assertion(self, credential: AssertionCredential, request: TokenRequest) -> VerifiedAssertion:
        try:
            return verify_assertion(
                credential.assertion,
                clients=self._snapshot,
                policy=self._policy,
                store_born_at=self._snapshot.born_at,
                now=self._clock(),
                client_id=request.client_id,
            )
        except TokenRefused as refused:
            raise invalid_client(refused.description, reason=refused.reason, cause=refused.cause) from None

    async def _consume(self, verified: VerifiedAssertion, store_id: str) -> None:
        try:
            fresh = await self._guard.use(verified.used, store_id=store_id)
        except StoreReplaced as error:
            # The new store knows no jti of the lost one; only with its birth loaded can older assertions be told.
            self._metrics.store_failures.labels("jti").inc()
            self.on_store_replaced()
            raise unavailable(
                "the store was replaced and is not loaded yet", reason="store_replaced", cause=str(error)
            ) from None
        except StoreUnavailable as error:
            self._metrics.store_failures.labels("jti").inc()
            raise unavailable(
                "the store does not answer, so a replay could not be told", reason="store_unavailable", cause=str(error)
            ) from None
        if not fresh:
            raise invalid_client(
                "client_assertion: its jti has been used already",
                reason=refusal.REPLAYED,
                cause=f"client {verified.client.client_id[:_MAX_LOGGED_ID]}",
            )

    async def _check_secret(self, credential: SecretCredential, request: TokenRequest) -> ProvenClient:
        now = self._clock()
        client_id = credential.client_id
        if request.client_id is not None and request.client_id != client_id:
            raise invalid_client("client_id differs from the one in Basic", reason=refusal.WRONG_SUBJECT)
        wait = self._limiter.begin(client_id[:_MAX_CLIENT_ID], request.address, now)
        if wait is not None:
            raise ApiError(
                429,
                SLOW_DOWN,
                "too many wrong secrets, try again later",
                reason="guessing",
                headers=[(b"retry-after", b"%d" % int(wait + 1))],
            )
        known = self._snapshot.client(client_id)
        state = None if known is None else known.state
        try:
            proven = self._verifier.matched_before(state, credential.secret, now) or await self._verifier.verify(
                state, credential.secret, now
            )
        except ApiError:
            self._limiter.succeeded(client_id[:_MAX_CLIENT_ID], request.address)  # nothing was tried
            raise
        if not proven or state is None:
            # The same whatever is wrong: who guesses learns nothing about which clients exist.
            raise invalid_client("client id and secret do not fit", reason="wrong_secret")
        self._limiter.succeeded(client_id[:_MAX_CLIENT_ID], request.address)
        return self._look_again(ProvenClient(state, "", {}, ()))

    def _look_again(self, client: ProvenClient) -> ProvenClient:
        """The client as it is now: hashing and writing take time, in which it may have been stopped."""
        known = self._snapshot.client(client.state.client_id)
        try:
            if known is None or known.state.auth_method != client.state.auth_method:
                raise TokenRefused(refusal.UNKNOWN_CLIENT, "the client no longer exists")
            check_client(known.state, self._clock())
        except TokenRefused as refused:
            raise invalid_client(refused.description, reason=refused.reason) from None
        return ProvenClient(known.state, client.kid, client.claims, client.requested_audiences)

    def _grant(self, client: ProvenClient, request: TokenRequest) -> Grant:
        asked = (*request.audiences, *client.requested_audiences)
        if self._settings.require_audience and not asked:
            raise invalid_request("audience is required here")
        try:
            return grant(client.state, audiences=asked, scope=request.scope, issuer=self._settings.issuer)
        except TokenRefused as refused:
            raise ApiError(400, refused.reason, refused.description) from None

    # Create

    def _create(self, client: ProvenClient, granted: Grant) -> Response:
        signer = self._signing_keys.signer()
        if signer is None:
            raise unavailable("no signing key is ready", reason="no_signing_key", retry_after=5)
        now = self._clock()
        seconds = lifetime(
            client.state, default=self._settings.token_lifetime, maximum=self._settings.max_token_lifetime
        )
        token = signer.encode(
            encode_access_claims(
                client=client.state,
                granted=granted,
                issuer=self._settings.issuer,
                jti=secrets.token_urlsafe(16),
                now=int(now),
                lifetime=seconds,
                assertion_claims=client.claims,
            )
        )
        self._activity.used(client.state.client_id, client.kid, now)
        return _write(token, seconds, granted)


# Write


def _write(token: bytes, seconds: int, granted: Grant) -> Response:
    """RFC 6749 section 5.1. A token is base64url and dots, a scope-token has no quote and no backslash: neither needs escaping."""
    scope = b""
    if granted.narrowed:
        scope = b',"scope":"%b"' % " ".join(granted.permissions).encode("ascii")
    body = b'{"access_token":"%b","token_type":"Bearer","expires_in":%d%b}' % (token, seconds, scope)
    return response(200, (JSON, *NO_STORE), body)


def _credential(scope: Scope, form: Form) -> AssertionCredential | SecretCredential:
    """The one way in which the client authenticates (RFC 6749 section 2.3: not more than one in a request)."""
    authorizations = [value for name, value in scope["headers"] if name == b"authorization"]
    assertion, assertion_type = form.get("client_assertion"), form.get("client_assertion_type")
    in_body = form.get("client_secret") is not None
    if len(authorizations) + (assertion is not None) + in_body > 1:
        raise invalid_request("more than one way of client authentication")
    if in_body:
        raise invalid_client("client_secret in the body is not supported, use Basic", reason="unsupported_method")
    if authorizations:
        if assertion_type is not None:
            raise invalid_request("more than one way of client authentication")
        client_id, secret = parse_basic(authorizations[0])
        return SecretCredential(client_id, secret)
    if assertion is None:
        if assertion_type is not None:
            raise invalid_request("client_assertion is missing")
        raise invalid_client("the client did not authenticate", reason="no_credentials")
    if assertion_type != ASSERTION_TYPE:
        raise invalid_request(f"client_assertion_type must be {ASSERTION_TYPE}")
    return AssertionCredential(assertion.encode("utf-8", "replace"))


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
