"""Explanations from the state that this replica decides by: who the caller is, what decides, what is missing and who has it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keyturn.expressions import Subject
from keyturn.rules.account import Asked, account_of
from keyturn.snapshot import Client, Snapshot
from keyturn.tokens.assertion import check_client
from keyturn.tokens.claims import held_audiences
from keyturn.tokens.refusal import WRONG_AUDIENCE, TokenRefused
from keyturn_api.answers import Caller
from keyturn_api.callers import Callers, CannotIdentify, NotIdentified
from keyturn_api.errors import INVALID_REQUEST, ApiError
from keyturn_api.profiles import Question
from keyturn_api.verified import VerifiedToken


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf; `subject` None where nobody would be logged in. `told` is what the answer says of the caller."""

    subject: Subject | None
    audiences: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)


class Explainer:
    """Reads the snapshot only; decides by the code that answers gateways. `accepted`: as for the tokens of gateways' requests."""

    def __init__(
        self, snapshot: Snapshot, callers: Callers, *, issuer: str, accepted: frozenset[str] = frozenset()
    ) -> None:
        self._snapshot = snapshot
        self._callers = callers
        self._issuer = issuer
        self._accepted = accepted

    def anonymous(self) -> Asker:
        return Asker(None, told={"kind": "anonymous"})

    def unknown(self) -> Asker:
        """Nobody who was logged in, with credentials of which nothing is known."""
        return Asker(None, told={"kind": "unknown"})

    def described(
        self,
        *,
        permissions: Iterable[str],
        groups: Iterable[str],
        audiences: Iterable[str],
        user_properties: Mapping[str, Any],
    ) -> Asker:
        subject = Subject(frozenset(permissions), frozenset(groups), user_properties=user_properties)
        return Asker(subject, tuple(audiences), {"kind": "described", "permissions": sorted(subject.permissions)})

    def client(self, named: str, namespace: str, now: float) -> Asker:
        """A client with a fresh token for all that it may have; by its id, or its object's name, or `namespace/name`.

        Raises `ApiError` 404.
        """
        client = self._snapshot.client(named) or self._by_ref(named if "/" in named else f"{namespace}/{named}")
        if client is None:
            raise ApiError(404, INVALID_REQUEST, "no client has this id, and no ClientCredential this name")
        return self._client(client, client.state.permissions, held_audiences(client.state, self._issuer), now)

    def holder(self, client_id: str, permissions: Sequence[str], audiences: Sequence[str], now: float) -> Asker:
        """A client with a fresh token for what one of its tokens was for, as far as it still holds that. Raises `ApiError` 404."""
        client = self._snapshot.client(client_id)
        if client is None:
            raise ApiError(404, INVALID_REQUEST, "no client has this id")
        held = held_audiences(client.state, self._issuer)
        return self._client(
            client,
            tuple(name for name in permissions if name in client.state.permissions),
            tuple(name for name in audiences if name in held),
            now,
        )

    def _client(self, client: Client, permissions: Sequence[str], audiences: Sequence[str], now: float) -> Asker:
        told = {
            "kind": "client",
            **_client_body(client),
            "permissions": list(permissions),
            "audiences": list(audiences),
        }
        try:
            check_client(client.state, now)
            if not audiences or (self._accepted and self._accepted.isdisjoint(audiences)):
                raise TokenRefused(WRONG_AUDIENCE, "the client's tokens are not for this audience")
        except TokenRefused as refused:
            return Asker(None, told={**told, "problem": _problem(refused.reason, refused.description)})
        return Asker(Subject(frozenset(permissions)), tuple(audiences), told)

    async def token(self, token: bytes, now: float) -> Asker:
        """Whoever holds this access token, also one of another source."""
        told: dict[str, Any] = {"kind": "token"}
        authorization = b"Bearer " + token.strip()
        question = Question("GET", b"/", None, authorization, False, False, "")
        try:
            found = self._callers.identify({"headers": [(b"authorization", authorization)]}, question, now)
            caller = found if isinstance(found, VerifiedToken | Caller) else await found
        except NotIdentified as error:
            if error.token is not None and (client := self._snapshot.client(error.token.client_id)) is not None:
                told |= _client_body(client)
            return Asker(None, told={**told, "problem": _problem(error.reason, error.description, error.cause)})
        except CannotIdentify as error:
            return Asker(
                None, told={**told, "problem": _problem(error.reason, "who it is cannot be found out now", error.cause)}
            )
        assert caller.subject is not None
        told["permissions"] = sorted(caller.subject.permissions)
        told["audiences"] = list(caller.audiences)
        if isinstance(caller, VerifiedToken):
            client = self._snapshot.client(caller.token.client_id)
            told |= {} if client is None else _client_body(client)
        else:
            told |= {"userId": caller.user_id.decode(), "groups": sorted(caller.subject.groups)}
        return Asker(caller.subject, tuple(caller.audiences), told)

    def explain(self, asked: Asked, asker: Asker) -> dict[str, Any]:
        """The explanation's JSON with the caller, contradictions among the deciding rules, and who has what is missing."""
        table = self._snapshot.table
        assert table is not None
        return account_of(
            table,
            asked,
            subject=asker.subject,
            audiences=asker.audiences,
            caller=asker.told,
            holders=((client.ref, client.state.permissions) for client in self._snapshot.clients.values()),
        )

    def _by_ref(self, ref: str) -> Client | None:
        return next((client for client in self._snapshot.clients.values() if client.ref == ref), None)


def _client_body(client: Client) -> dict[str, Any]:
    state = client.state
    return {"clientId": state.client_id, "object": client.ref, "suspended": state.suspended}


def _problem(reason: str, description: str, cause: str = "") -> dict[str, str]:
    return {"reason": reason, "description": description, **({"cause": cause} if cause else {})}
