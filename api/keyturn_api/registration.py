"""`POST /register` (RFC 7591) and `POST /clients`: new clients, from anybody who may and from internal callers."""

import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from keyturn.clients.state import SECRET_METHODS
from keyturn.secrets import hash_generated
from keyturn.snapshot import Client, Snapshot
from keyturn_api import audit
from keyturn_api.addresses import caller_address, counted
from keyturn_api.administration import Administration
from keyturn_api.client_information import client_information, no_store
from keyturn_api.errors import INVALID_TOKEN, SLOW_DOWN, ApiError, unavailable
from keyturn_api.guessing import is_exempt
from keyturn_api.http import Receive, Response, Scope, header, read_body, request_id
from keyturn_api.initial_access import InitialAccessTokens
from keyturn_api.pending import PendingPlaces
from keyturn_api.rate_limit import RateLimiter
from keyturn_api.registered_objects import internal_client, new_name, registered_client, secret_name
from keyturn_api.registrar import Credentials, Registrar
from keyturn_api.registration_request import parse_internal, parse_json, parse_registration
from keyturn_api.settings import ApiSettings

OPEN: Final = "open"
TOKEN_PREFIX: Final = "ktr_"
_RANDOM_BYTES: Final = 32
ANONYMOUS: Final = "anonymous"


def new_token() -> str:
    """A registration token: 256 random bits. Its beginning lets scanners find one that was published by accident."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


class Registration:
    """Registers clients. Each registration is limited per address, and all together by how many wait for approval."""

    def __init__(
        self,
        settings: ApiSettings,
        snapshot: Snapshot,
        registrar: Registrar,
        tokens: InitialAccessTokens,
        administration: Administration,
        limiter: RateLimiter,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._registrar = registrar
        self._tokens = tokens
        self._administration = administration
        self._limiter = limiter
        self._clock = clock
        self._places = PendingPlaces(snapshot, namespace=registrar.namespace, limit=settings.registration_max_pending)

    async def register(self, scope: Scope, receive: Receive) -> Response:
        """RFC 7591 section 3."""
        now = self._clock()
        address = caller_address(scope)
        self._limit(address, now)
        created_by = self._authorize(scope)
        body = await read_body(scope, receive, self._settings.max_body_bytes)
        asked = parse_registration(parse_json(body, header(scope, b"content-type")))
        self._check_loaded()
        share = self._share_of(created_by, address)
        name, token = new_name(), new_token()
        secret = secrets.token_urlsafe(_RANDOM_BYTES) if asked.auth_method in SECRET_METHODS else None
        credentials = Credentials(secret_name(name), _hash(secret), _hash(token))
        made = registered_client(name, asked, secret=credentials.secret_name, created_by=created_by, now=now)
        with self._places.one(share):
            client = await self._registrar.create(made, credentials)
            self._places.taken(client.state.client_id, share)
        audit.record(
            "client_registered",
            who=created_by,
            request_id=request_id(scope),
            object=f"{self._registrar.namespace}/{name}",
            uid=client.uid,
            address=address,
            auth_method=asked.auth_method,
            keys=[key["kid"] for key in asked.keys],
            requested={"permissions": asked.permissions, "audiences": asked.audiences},
        )
        return self._created(client, secret, token)

    async def create(self, scope: Scope, receive: Receive) -> Response:
        """A client of an internal caller: RBAC must let it create ClientCredentials."""
        caller = await self._administration.authorize(
            _authorization(scope),
            verb="create",
            namespace=self._registrar.namespace,
            request_id=request_id(scope),
            address=caller_address(scope),
        )
        body = await read_body(scope, receive, self._settings.max_body_bytes)
        # The names under which other issuers' answers are read: the operator takes no client that may set them.
        reserved = {self._settings.permissions_key, self._settings.user_id_key}
        asked = parse_internal(parse_json(body, header(scope, b"content-type")), reserved=reserved)
        self._check_loaded()
        name = new_name()
        secret = secrets.token_urlsafe(_RANDOM_BYTES) if asked.client.auth_method in SECRET_METHODS else None
        credentials = None if secret is None else Credentials(secret_name(name), _hash(secret), None)
        made = internal_client(
            name, asked, secret=None if credentials is None else credentials.secret_name, created_by=caller.username
        )
        client = await self._registrar.create(made, credentials)
        audit.record(
            "client_created",
            who=caller.username,
            request_id=request_id(scope),
            object=f"{self._registrar.namespace}/{name}",
            uid=client.uid,
            auth_method=asked.client.auth_method,
            keys=[key["kid"] for key in asked.client.keys],
            granted={"permissions": asked.client.permissions, "audiences": asked.client.audiences},
            suspended=asked.suspended,
        )
        return self._created(client, secret, None)

    def _limit(self, address: str, now: float) -> None:
        if is_exempt(address, self._settings.rate_limit_exempt):
            return
        wait = self._limiter.take(counted(address), now)
        if wait is not None:
            raise slow_down(wait)

    def _authorize(self, scope: Scope) -> str:
        """Who may register: the name of the initial access token, or anonymous in mode `open`."""
        authorization = _authorization(scope)
        scheme, _, token = (authorization or b"").partition(b" ")
        name = self._tokens.find(token.strip(b" ").decode("latin-1")) if scheme.lower() == b"bearer" else None
        if name is not None:
            return f"initial-access-token/{name}"
        if self._settings.registration == OPEN:
            return ANONYMOUS
        if authorization is None:
            raise bearer_refused("", "an initial access token is needed", reason="no_credentials")
        raise bearer_refused(INVALID_TOKEN, "the initial access token does not count", reason="initial_access_token")

    def _check_loaded(self) -> None:
        if not self._snapshot.loaded:
            raise unavailable("the service has not loaded its clients yet", reason="not_loaded")

    def _share_of(self, created_by: str, address: str) -> str | None:
        """Whose share of the waiting places a registration takes: who has a token registers for others, all from one address."""
        if created_by != ANONYMOUS or is_exempt(address, self._settings.rate_limit_exempt):
            return None
        return counted(address)

    def _created(self, client: Client, secret: str | None, token: str | None) -> Response:
        information = client_information(self._settings, client.state, token=token)
        if secret is not None:
            # RFC 7591 section 3.2.1: 0 means that it does not expire.
            information |= {"client_secret": secret, "client_secret_expires_at": 0}
        return no_store(201, orjson.dumps(information))


def slow_down(wait: float) -> ApiError:
    """429: come again after so many seconds."""
    return ApiError(
        429,
        SLOW_DOWN,
        "too many registrations, try again later",
        reason="rate_limit",
        headers=[(b"retry-after", b"%d" % int(wait + 1))],
    )


def bearer_refused(code: str, description: str, *, reason: str, status: int = 401) -> ApiError:
    """RFC 6750 section 3; without credentials no error code in the challenge."""
    challenge = f'Bearer error="{code}"'.encode("ascii") if code else b"Bearer"
    return ApiError(
        status, code or "unauthorized", description, reason=reason, headers=[(b"www-authenticate", challenge)]
    )


def _authorization(scope: Scope) -> bytes | None:
    values: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) > 1:
        raise bearer_refused(INVALID_TOKEN, "more than one Authorization header", reason="several_credentials")
    return values[0] if values else None


authorization_of: Callable[[Scope], bytes | None] = _authorization


def _hash(value: str | None) -> Any:
    return None if value is None else hash_generated(value.encode("ascii"))
