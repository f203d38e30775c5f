"""Client authentication (RFC 6749 section 2.3): from the credentials of a request to a proven client. One for every endpoint that asks."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from keyturn.clients.state import CLIENT_SECRET_BASIC, CLIENT_SECRET_POST, SECRET_METHODS, ClientState
from keyturn.snapshot import Snapshot
from keyturn.store.batching import BatchedReplayGuard
from keyturn.store.interface import StoreReplaced, StoreUnavailable
from keyturn.tokens import refusal
from keyturn.tokens.assertion import (
    AssertionPolicy,
    ReadAssertion,
    VerifiedAssertion,
    check_client,
    read_assertion,
    verify_assertion,
)
from keyturn.tokens.refusal import TokenRefused
from keyturn_api.addresses import caller_address
from keyturn_api.client_secrets import SecretVerifier, invalid_client, parse_basic
from keyturn_api.errors import INVALID_CLIENT, SLOW_DOWN, ApiError, invalid_request, unavailable
from keyturn_api.form import Form
from keyturn_api.guessing import GuessLimiter
from keyturn_api.http import Scope
from keyturn_api.metrics import Metrics
from keyturn_api.settings import ApiSettings
from keyturn_api.workload import WorkloadIdentity

# RFC 7523 section 2.2
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_MAX_CLIENT_ID: Final = 512
_MAX_LOGGED_ID: Final = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AssertionCredential:
    """`private_key_jwt`: RFC 7523 section 2.2."""

    assertion: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretCredential:
    """`client_secret_basic` or `client_secret_post`, as `method` says: RFC 6749 section 2.3.1."""

    client_id: str
    secret: bytes = field(repr=False)
    method: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """Credentials of a right form; nothing in them is proven. `client_id` is the request's parameter."""

    credential: AssertionCredential | SecretCredential
    client_id: str | None
    address: str


@dataclass(frozen=True, slots=True)
class ProvenClient:
    """Who asks, for certain. `kid`: the key that proved it, or the secret's id."""

    state: ClientState
    kid: str
    claims: Mapping[str, Any]
    requested_audiences: tuple[str, ...]


def read_attempt(scope: Scope, form: Form) -> Attempt:
    """What the request brings to prove its client. Raises `ApiError` invalid_request or invalid_client."""
    return Attempt(
        credential=_credential(scope, form),
        client_id=form.get("client_id"),
        address=caller_address(scope),
    )


def _credential(scope: Scope, form: Form) -> AssertionCredential | SecretCredential:
    """The one way in which the client authenticates (RFC 6749 section 2.3: not more than one in a request)."""
    authorizations = [value for name, value in scope["headers"] if name == b"authorization"]
    assertion, assertion_type = form.get("client_assertion"), form.get("client_assertion_type")
    secret = form.get("client_secret")
    if len(authorizations) + (assertion is not None) + (secret is not None) > 1:
        raise invalid_request("more than one way of client authentication")
    if assertion is None and assertion_type is not None:
        if authorizations or secret is not None:
            raise invalid_request("more than one way of client authentication")
        raise invalid_request("client_assertion is missing")
    if authorizations:
        client_id, from_basic = parse_basic(authorizations[0])
        return SecretCredential(client_id, from_basic, CLIENT_SECRET_BASIC)
    if secret is not None:
        named = form.get("client_id")
        if named is None:
            raise invalid_request("client_id is missing")
        return SecretCredential(named, secret.encode("utf-8", "replace"), CLIENT_SECRET_POST)
    if assertion is None:
        raise invalid_client("the client did not authenticate", reason="no_credentials")
    if assertion_type != ASSERTION_TYPE:
        raise invalid_request(f"client_assertion_type must be {ASSERTION_TYPE}")
    return AssertionCredential(assertion.encode("utf-8", "replace"))


class ClientAuthenticator:
    """Proves clients: an assertion counts once, guesses at secrets are limited, and what was stopped meanwhile counts no more."""

    def __init__(
        self,
        settings: ApiSettings,
        snapshot: Snapshot,
        guard: BatchedReplayGuard,
        verifier: SecretVerifier,
        limiter: GuessLimiter,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot = snapshot
        self._guard = guard
        self._verifier = verifier
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock
        self.on_store_replaced: Callable[[], None] = lambda: None
        # The same at every endpoint: the issuer names this server (draft-ietf-oauth-rfc7523bis), by a setting its token endpoint does too
        # (RFC 7523 section 3). The URL of another endpoint never does.
        audiences = {settings.issuer}
        if settings.token_endpoint_as_audience:
            audiences.add(settings.token_endpoint)
        self._policy = AssertionPolicy(frozenset(audiences), settings.clock_skew_seconds)

    async def authenticate(
        self, attempt: Attempt, decide: Callable[[ProvenClient], T], *, workloads: WorkloadIdentity | None = None
    ) -> tuple[ProvenClient, T]:
        """`prove`, with those who fail counted. Raises `ApiError`."""
        try:
            return await self.prove(attempt, decide, workloads=workloads)
        except ApiError as error:
            if error.code in (INVALID_CLIENT, SLOW_DOWN):
                method = "secret" if isinstance(attempt.credential, SecretCredential) else "assertion"
                self._metrics.not_proven(method, error.reason)
            raise

    async def prove(
        self, attempt: Attempt, decide: Callable[[ProvenClient], T], *, workloads: WorkloadIdentity | None = None
    ) -> tuple[ProvenClient, T]:
        """The proven client with what `decide` makes of the request. Raises `ApiError`, that of `decide` too.

        `decide` judges what the client asks for before an assertion is used up, so that a request that fails by it can be sent again as it
        is; it is asked again where the world has changed while the assertion was being recorded.
        `workloads`: the tokens of pods prove clients too.
        """
        # Of the state that the assertion is judged by: nothing is awaited before its jti waits for exactly this store.
        position = self._snapshot.position
        if position is None:
            raise unavailable("the service has not loaded its clients yet", reason="not_loaded")
        if isinstance(attempt.credential, SecretCredential):
            client = await self._check_secret(attempt.credential, attempt)
            return client, decide(client)
        read = self._read(attempt.credential)
        if workloads is not None and workloads.recognizes(read.claims):
            client = await self._check_workload(workloads, attempt.credential, read, attempt.client_id)
            return client, decide(client)
        verified = self._check_assertion(read, attempt.client_id)
        client = ProvenClient(verified.client, verified.kid, verified.claims, verified.requested_audiences)
        decided = decide(client)
        generation = self._snapshot.generation
        # Last of all.
        await self._consume(verified, position.store_id)
        if generation != self._snapshot.generation:
            client = self._look_again(client)
            decided = decide(client)
        return client, decided

    @staticmethod
    def _read(credential: AssertionCredential) -> ReadAssertion:
        try:
            return read_assertion(credential.assertion)
        except TokenRefused as refused:
            raise invalid_client(refused.description, reason=refused.reason, cause=refused.cause) from None

    @staticmethod
    async def _check_workload(
        workloads: WorkloadIdentity, credential: AssertionCredential, read: ReadAssertion, client_id: str | None
    ) -> ProvenClient:
        try:
            verified = await workloads.prove(credential.assertion, read, client_id)
        except TokenRefused as refused:
            if refused.reason == refusal.MISSING_CLIENT_ID:
                raise invalid_request(refused.description) from None
            raise invalid_client(refused.description, reason=refused.reason, cause=refused.cause) from None
        # The key is the cluster's, not one of the client's.
        return ProvenClient(verified.client, "", verified.claims, ())

    def _check_assertion(self, read: ReadAssertion, client_id: str | None) -> VerifiedAssertion:
        try:
            return verify_assertion(
                read,
                clients=self._snapshot,
                policy=self._policy,
                store_born_at=self._snapshot.born_at,
                now=self._clock(),
                client_id=client_id,
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

    async def _check_secret(self, credential: SecretCredential, attempt: Attempt) -> ProvenClient:
        now = self._clock()
        client_id = credential.client_id
        if attempt.client_id is not None and attempt.client_id != client_id:
            raise invalid_client("client_id differs from the one in Basic", reason=refusal.WRONG_SUBJECT)
        known = self._snapshot.client(client_id)
        state = None if known is None or known.state.auth_method != credential.method else known.state
        # A crowd with one secret is one guess. Only where it was wrong does each of them count.
        joins = self._verifier.is_under_way(client_id, state, credential.secret, now)
        if not joins:
            self._count(client_id, attempt.address, now)
        try:
            proven = await self._verifier.verify(client_id, state, credential.secret, now)
        except ApiError:
            if not joins:
                self._limiter.succeeded(client_id[:_MAX_CLIENT_ID], attempt.address)  # nothing was tried
            raise
        if proven is None or state is None:
            if joins:
                self._count(client_id, attempt.address, self._clock())
            # The same whatever is wrong: who guesses learns nothing about which clients exist, and how they authenticate.
            raise invalid_client("client id and secret do not fit", reason="wrong_secret")
        if not joins:
            self._limiter.succeeded(client_id[:_MAX_CLIENT_ID], attempt.address)
        return self._look_again(ProvenClient(state, proven.id, {}, ()))

    def _count(self, client_id: str, address: str, now: float) -> None:
        """Counts a guess. Raises `ApiError` 429 where there were too many."""
        wait = self._limiter.begin(client_id[:_MAX_CLIENT_ID], address, now)
        if wait is not None:
            raise ApiError(
                429,
                SLOW_DOWN,
                "too many wrong secrets, try again later",
                reason="guessing",
                headers=[(b"retry-after", b"%d" % int(wait + 1))],
            )

    def _look_again(self, client: ProvenClient) -> ProvenClient:
        """The client as it is now: hashing and writing take time, in which it, or what it proved itself by, may have been withdrawn."""
        known, now = self._snapshot.client(client.state.client_id), self._clock()
        try:
            if known is None or known.state.auth_method != client.state.auth_method:
                raise TokenRefused(refusal.UNKNOWN_CLIENT, "the client no longer exists")
            check_client(known.state, now)
            if known.state.auth_method in SECRET_METHODS:
                still = any(one.id == client.kid and one.is_current(now) for one in known.state.secrets)
            else:
                still = bool(known.candidates(client.kid, now))
            if not still:
                raise TokenRefused(refusal.UNKNOWN_KEY, "what the client proved itself by counts no more")
        except TokenRefused as refused:
            raise invalid_client(refused.description, reason=refused.reason) from None
        return ProvenClient(known.state, client.kid, client.claims, client.requested_audiences)
