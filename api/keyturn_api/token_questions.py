"""Requests about a token (RFC 7662 section 2.1, RFC 7009 section 2.1): which token, and who asks."""

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from keyturn.clients.state import ClientState
from keyturn_api.addresses import caller_address
from keyturn_api.client_authentication import Attempt, ClientAuthenticator, ProvenClient, read_attempt
from keyturn_api.errors import INVALID_REQUEST, ApiError, invalid_request
from keyturn_api.form import parse_form
from keyturn_api.http import Receive, Scope, header, read_body, request_id

_NOTHING_REPEATS: Final[frozenset[str]] = frozenset()


Verb = Literal["introspect", "revoke"]


class Administrator(Protocol):
    """Somebody whom Kubernetes knows."""

    @property
    def username(self) -> str: ...


class Administration(Protocol):
    """Asks Kubernetes whose token that is, and whether its holder may do this. Raises `ApiError`."""

    async def authorize(
        self, authorization: bytes | None, *, verb: Verb, namespace: str, request_id: str, address: str
    ) -> Administrator: ...


@dataclass(frozen=True, slots=True)
class TokenQuestion:
    """A request with a right form; nothing in it is proven. Without an `attempt` a Kubernetes token is to prove the asker."""

    token: bytes = field(repr=False)
    attempt: Attempt | None
    authorization: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, for certain: a client, or (without one) somebody whom Kubernetes allows to ask about every token."""

    name: str
    client: ClientState | None


async def read_question(scope: Scope, receive: Receive, limit: int) -> TokenQuestion:
    """Raises `ApiError`. `token_type_hint` only helps a server that has several kinds of tokens, so any value of it is ignored."""
    if scope["method"] != "POST":
        raise ApiError(405, INVALID_REQUEST, "use POST", headers=[(b"allow", b"POST")])
    if scope["query_string"]:
        # RFC 7662 section 4, RFC 7009 section 2.1: a token in the URL would be logged.
        raise invalid_request("parameters belong into the body, not into the URL")
    body = await read_body(scope, receive, limit)
    form = parse_form(body, header(scope, b"content-type"), repeatable=_NOTHING_REPEATS)
    token = form.get("token")
    if token is None:
        raise invalid_request("token is missing")
    authorization = header(scope, b"authorization")
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        several = sum(name == b"authorization" for name, _ in scope["headers"]) > 1
        if several or any(form.get(name) for name in ("client_secret", "client_assertion", "client_assertion_type")):
            raise invalid_request("more than one way of client authentication")
        return TokenQuestion(token.encode("utf-8", "replace"), None, authorization)
    return TokenQuestion(token.encode("utf-8", "replace"), read_attempt(scope, form), None)


class Askers:
    """Proves who asks, as a client or by Kubernetes: `verb` is what RBAC must allow on clientcredentials in the namespace."""

    def __init__(
        self,
        authenticator: ClientAuthenticator,
        administration: Administration,
        *,
        verb: Verb,
        namespace: str,
    ) -> None:
        self._authenticator = authenticator
        self._administration = administration
        self._verb: Verb = verb
        self._namespace = namespace

    async def identify(self, question: TokenQuestion, scope: Scope) -> Asker:
        """Raises `ApiError`."""
        if question.attempt is not None:
            client, _ = await self._authenticator.authenticate(question.attempt, _nothing_to_decide)
            return Asker(client.state.client_id, client.state)
        administrator = await self._administration.authorize(
            question.authorization,
            verb=self._verb,
            namespace=self._namespace,
            request_id=request_id(scope),
            address=caller_address(scope),
        )
        return Asker(administrator.username, None)


def _nothing_to_decide(_: ProvenClient) -> None:
    """What is answered is decided once the asker is proven."""
