"""The endpoints where clients prove who they are, without a socket."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import orjson

from keyturn.clients.state import CLIENT_SECRET_BASIC, SecretHash
from keyturn.keys.ring import KeyRing
from keyturn.store.batching import BatchedReplayGuard
from keyturn.store.memory import MemoryStore
from keyturn_api.activity import ActivityRecorder
from keyturn_api.administration import Administration as WithoutKubernetes
from keyturn_api.client_authentication import ClientAuthenticator
from keyturn_api.client_secrets import SecretVerifier
from keyturn_api.guessing import GuessLimiter
from keyturn_api.http import Receive, Response, Scope
from keyturn_api.introspection import Introspection
from keyturn_api.revocation import RevocationEndpoint
from keyturn_api.signing_keys import SigningKeys
from keyturn_api.token_endpoint import TokenEndpoint
from keyturn_api.token_questions import Administration, Askers
from tests.unit.api.worlds import RING, World, content, metrics, scope, settings
from tests.unit.tokens.worlds import CLIENT, CLIENT_ID, ISSUER, NOW, changed, encode

FORM = "application/x-www-form-urlencoded"
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def proof(signed: str | None = None) -> dict[str, str]:
    """The fields of a form that prove `team.app`."""
    return {"client_assertion_type": TYPE, "client_assertion": signed or assertion()}


def assertion(**changes: Any) -> str:
    base = {"iss": CLIENT_ID, "sub": CLIENT_ID, "aud": ISSUER, "jti": "one", "iat": NOW - 5, "exp": NOW + 60}
    return encode(CLIENT, {"alg": "RS256", "kid": CLIENT.kid}, changed(base, changes)).decode()


class Endpoint:
    """The endpoints for clients, over a store that can be away and a clock that a test moves."""

    def __init__(
        self,
        world: World | None = None,
        *,
        ring: KeyRing = RING,
        limit: int = 10,
        administration: Administration | None = None,
        **values: Any,
    ) -> None:
        self.world = world or World()
        self.store = MemoryStore()
        self.store._store_id = self.world.store_id
        self.activity = ActivityRecorder(self.store)
        self.clock = [NOW]
        chosen = settings(bcrypt_cost=4, **values)
        keys = SigningKeys(chosen.signing_key_directory, self.world.snapshot, typ=chosen.token_typ)
        keys.use(ring)
        self.verifier = SecretVerifier(cost=4, queue=chosen.hash_queue, capacity=100)
        self.metrics = metrics()
        self.authenticator = ClientAuthenticator(
            chosen,
            self.world.snapshot,
            BatchedReplayGuard(self.store),
            self.verifier,
            GuessLimiter(limit),
            self.metrics,
            clock=lambda: self.clock[0],
        )
        self.endpoint = TokenEndpoint(
            chosen,
            self.world.snapshot,
            keys,
            self.authenticator,
            self.activity,
            self.metrics,
            clock=lambda: self.clock[0],
        )

        tokens = self.world.tokens(chosen.accepted_audiences)
        administration = administration or WithoutKubernetes(None, issuer=ISSUER)
        self.introspection = Introspection(
            Askers(self.authenticator, administration, verb="introspect", namespace="team"),
            self.world.snapshot,
            tokens,
            self.metrics,
            max_body_bytes=chosen.max_body_bytes,
            clock=lambda: self.clock[0],
        )
        self.revocation = RevocationEndpoint(
            Askers(self.authenticator, administration, verb="revoke", namespace="team"),
            self.world.snapshot,
            tokens,
            self.store,
            self.metrics,
            max_body_bytes=chosen.max_body_bytes,
            per_client=chosen.revocations_per_client,
            clock_skew=chosen.clock_skew_seconds,
            clock=lambda: self.clock[0],
        )

    async def send(self, *headers: tuple[str, str | bytes], **form: Any) -> Response:
        return await post(self.endpoint, "/oauth/token", *headers, grant_type="client_credentials", **form)

    async def introspect(self, token: bytes, *headers: tuple[str, str | bytes], **form: Any) -> Response:
        return await post(self.introspection, "/oauth/introspect", *headers, token=token, **form)

    async def revoke(self, token: bytes, *headers: tuple[str, str | bytes], **form: Any) -> Response:
        return await post(self.revocation, "/oauth/revoke", *headers, token=token, **form)

    async def assert_with(self, signed: str | None = None, **form: Any) -> Response:
        return await self.send(**proof(signed), **form)


def payload(answer: Response) -> Any:
    token: str = content(answer)["access_token"]
    middle = token.split(".")[1]
    return orjson.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


async def post(
    handler: Callable[[Scope, Receive], Awaitable[Response]], path: str, *headers: tuple[str, str | bytes], **form: Any
) -> Response:
    """Sends a form to a handler."""
    body = urlencode(form, doseq=True).encode()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    return await handler(scope("POST", path, ("content-type", FORM), *headers), receive)


def secret_world(*hashes: SecretHash, method: str = CLIENT_SECRET_BASIC) -> World:
    world = World()
    world.change_client(auth_method=method, keys=(), secrets=hashes)
    return world


def basic(secret: bytes, client_id: str = CLIENT_ID) -> tuple[str, bytes]:
    return ("authorization", b"Basic " + base64.b64encode(client_id.encode() + b":" + secret))
