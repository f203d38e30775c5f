"""RFC 7592: a registered client reads, changes and deletes its own registration."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from keyturn import secrets
from keyturn.clients.registration import DESCRIPTIVE
from keyturn.snapshot import Client, Snapshot
from keyturn_api import audit
from keyturn_api.client_information import client_information, no_store
from keyturn_api.client_secrets import SecretVerifier
from keyturn_api.errors import INVALID_TOKEN, ApiError, invalid_request, unavailable
from keyturn_api.http import NO_STORE, Receive, Response, Scope, header, read_body, request_id, response
from keyturn_api.rate_limit import RateLimiter
from keyturn_api.registered_objects import description, name_of, secret_name
from keyturn_api.registrar import Credentials, Registrar
from keyturn_api.registration import authorization_of, bearer_refused, new_token, slow_down
from keyturn_api.registration_request import ClientMetadata, parse_json, parse_update
from keyturn_api.settings import ApiSettings

_TRIES: Final = 3
# RFC 7592 section 2.2: these are the server's own and must not be in the request.
_NOT_SENT: Final = (
    *("registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at"),
)


class ClientConfiguration:
    """The three methods of the client configuration endpoint. The registration token authorizes, for its own client alone."""

    def __init__(
        self,
        settings: ApiSettings,
        snapshot: Snapshot,
        registrar: Registrar,
        limiter: RateLimiter,
        verifier: SecretVerifier,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._registrar = registrar
        self._limiter = limiter
        self._verifier = verifier
        self._clock = clock

    async def read(self, client_id: str, scope: Scope) -> Response:
        """RFC 7592 section 2.1. From memory: it works while Kubernetes is away."""
        client, token, _ = self._authorize(client_id, scope)
        return no_store(200, orjson.dumps(client_information(self._settings, client.state, token=token)))

    async def update(self, client_id: str, scope: Scope, receive: Receive) -> Response:
        """RFC 7592 section 2.2: replaces keys and description, and the registration token with them."""
        client, _, name = self._authorize(client_id, scope)
        wait = self._limiter.take(client_id, self._clock())
        if wait is not None:
            raise slow_down(wait)
        body = await read_body(scope, receive, self._settings.max_body_bytes)
        given = parse_json(body, header(scope, b"content-type"))
        await self._check_sent(given, client)
        asked = parse_update(given, auth_method=client.state.auth_method)
        token = new_token()
        credentials = Credentials(
            secret_name(name), _registered_secret(client), secrets.hash_generated(token.encode("ascii"))
        )
        changed = await self._change(client, name, asked, credentials)
        audit.record(
            "client_updated",
            who=client_id,
            request_id=request_id(scope),
            object=f"{self._registrar.namespace}/{name}",
            uid=client.uid,
            change={
                "keys": {"old": [key.kid for key in client.state.keys], "new": [key["kid"] for key in asked.keys]},
                "described": {"old": _described(client), "new": dict(asked.described)},
            },
        )
        return no_store(200, orjson.dumps(client_information(self._settings, changed.state, token=token)))

    async def delete(self, client_id: str, scope: Scope) -> Response:
        """RFC 7592 section 2.3. Answered once the client's tokens count no more."""
        client, _, name = self._authorize(client_id, scope)
        if await self._registrar.delete(name, client.uid):
            audit.record(
                "client_deleted",
                who=client_id,
                request_id=request_id(scope),
                object=f"{self._registrar.namespace}/{name}",
                uid=client.uid,
            )
        await self._registrar.wait_gone(client_id, client.uid)
        return response(204, NO_STORE)

    def _authorize(self, client_id: str, scope: Scope) -> tuple[Client, str, str]:
        """The client, its registration token, and its object's name."""
        scheme, _, value = (authorization_of(scope) or b"").partition(b" ")
        if scheme.lower() != b"bearer":
            raise bearer_refused("", "the registration access token is needed", reason="no_credentials")
        if not self._snapshot.loaded:
            raise unavailable("the service has not loaded its clients yet", reason="not_loaded")
        token = value.strip(b" ").decode("latin-1")
        client, name = self._snapshot.client(client_id), name_of(client_id, self._registrar.namespace)
        registration = None if client is None else client.state.registration
        hashed = None if registration is None else registration.token_hash
        # RFC 7592 section 2.1: for a client that does not exist the answer is that for a wrong token.
        if client is None or name is None or hashed is None or not secrets.verify(token.encode("utf-8"), hashed):
            raise bearer_refused(INVALID_TOKEN, "the registration access token does not count", reason="wrong_token")
        if not client.state.is_enabled(self._clock()):
            raise _stopped()
        return client, token, name

    async def _check_sent(self, given: Mapping[str, Any], client: Client) -> None:
        if given.get("client_id") != client.state.client_id:
            raise invalid_request("client_id must be there, and be this client's")
        for member in _NOT_SENT:
            if member in given:
                raise invalid_request(f"{member} must not be sent")
        secret = given.get("client_secret")
        if secret is not None and not (isinstance(secret, str) and await self._is_current(secret, client)):
            # RFC 7592 section 2.2: a client does not choose its secret.
            raise invalid_request("client_secret must be the client's current one, or be left out")

    async def _is_current(self, secret: str, client: Client) -> bool:
        # Off the event loop: the hash may be one that people brought, which takes its time.
        given, client_id = secret.encode("utf-8", "surrogatepass"), client.state.client_id
        return await self._verifier.verify(client_id, client.state, given, self._clock()) is not None

    async def _change(self, client: Client, name: str, asked: ClientMetadata, credentials: Credentials) -> Client:
        """Writes the update over the object as it is; what others change meanwhile is read and counts."""
        secret_made = False
        for _ in range(_TRIES):
            before = await self._registrar.read(name, client.uid)
            registration = None if before is None else before["spec"].get("registration") or {}
            known = client.state.registration
            if before is None or registration is None or known is None:
                raise bearer_refused(INVALID_TOKEN, "the client does not exist any more", reason="gone")
            if registration.get("secretName") != known.secret_name:
                raise bearer_refused(INVALID_TOKEN, "the registration was changed meanwhile", reason="replaced")
            if before["spec"].get("suspended"):
                raise _stopped()
            if not secret_made:
                await self._registrar.create_secret(before, credentials)
                secret_made = True
            changed = await self._registrar.update(before, _spec(asked, credentials), credentials)
            if changed is not None:
                return changed
        raise unavailable("the client is being changed by others", reason="conflict")


def _spec(asked: ClientMetadata, credentials: Credentials) -> dict[str, Any]:
    """The change as a merge patch: what is not described any more goes."""
    spec = description(asked)
    del spec["authMethod"]
    spec["registration"]["secretName"] = credentials.secret_name
    for member, place in DESCRIPTIVE.items():
        if member not in asked.described:
            target = spec
            for part in place[:-1]:
                target = target[part]
            target[place[-1]] = None
    return spec


def _registered_secret(client: Client) -> str | None:
    """The hash that came with the registration's Secret, to stand in the next one too; not one of a Secret that people named."""
    registration = client.state.registration
    assert registration is not None
    for known in client.state.secrets:
        if known.origin.partition("/")[0] == registration.secret_name:
            return known.hash
    return None


def _described(client: Client) -> dict[str, Any]:
    registration = client.state.registration
    return {} if registration is None else dict(registration.described)


def _stopped() -> ApiError:
    # RFC 7592 section 2: a client that may not manage its registration any more gets 403.
    return bearer_refused(
        "access_denied", "the client is suspended or has expired", reason="client_disabled", status=403
    )
