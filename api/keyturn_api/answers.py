"""What a gateway is answered: an identity with its permission to pass, or a denial that a caller's developer understands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import orjson

from keyturn.expressions import Subject
from keyturn_api.cache import GenerationCache
from keyturn_api.errors import Header
from keyturn_api.http import JSON, Response, problem, response

_CLIENTS: Final = 2000
UnknownRoute = Literal["deny", "reference"]


@dataclass(slots=True)
class Caller:
    """Somebody whom another source than our own tokens identified. The texts are ready to be header values.

    `audiences` are those of the token, () where it names none. `answer` is kept with the caller once it is made.
    """

    subject: Subject
    audiences: tuple[str, ...] = ()
    user_id: bytes = b""
    groups: bytes = b""
    user_properties: bytes = b""
    answer: Response | None = field(default=None, repr=False, compare=False)


class GatewayAnswers:
    """Every answer that lets a request through carries all identity headers, so that none of the caller's own gets past.

    With `strict` off, the reference's way, each decision is a 200 that says 0 or 1: for gateways that read the header. Where no
    route matches, `unknown_route` says whether that is a 403 or the reference's 200 with 0.
    """

    def __init__(
        self,
        *,
        header_prefix: str = "mia-",
        strict: bool = True,
        unknown_route: UnknownRoute = "deny",
        client_as_user: bool = True,
    ) -> None:
        prefix = header_prefix.encode("ascii")
        self._allowed = prefix + b"allowed"
        self._user_id, self._client_id = prefix + b"userid", prefix + b"clientid"
        self._groups, self._user_properties = prefix + b"groups", prefix + b"userproperties"
        self._strict = strict
        self._unknown_route = unknown_route
        self._client_as_user = client_as_user
        self._clients: GenerationCache[str, Response] = GenerationCache(_CLIENTS)
        self.nobody: Final = response(200, self._identity(b"1"))

    def client(self, client_id: str) -> Response:
        """Allowed, for one of our own clients."""
        answer = self._clients.get(client_id)
        if answer is None:
            value = client_id.encode("ascii", "replace")
            user_id = value if self._client_as_user else b""
            answer = response(200, self._identity(b"1", user_id=user_id, client_id=value))
            self._clients.put(client_id, answer)
        return answer

    def caller(self, caller: Caller) -> Response:
        """Allowed, for somebody whom another source identified."""
        if caller.answer is None:
            caller.answer = response(
                200,
                self._identity(
                    b"1", user_id=caller.user_id, groups=caller.groups, user_properties=caller.user_properties
                ),
            )
        return caller.answer

    def denied(
        self,
        status: int,
        detail: str,
        *,
        request_id: str,
        unknown_route: bool = False,
        headers: Sequence[Header] = (),
    ) -> Response:
        """Not allowed, or (503) not decided: that is never a 200."""
        told: list[Header] = [(self._allowed, b"0"), (b"x-request-id", request_id.encode("ascii", "replace"))]
        lenient = not self._strict or (unknown_route and self._unknown_route == "reference")
        if lenient and status != 503:
            body = orjson.dumps({"allowed": False, "status": status, "detail": detail, "id": request_id})
            cached = (b"cache-control", b"no-store")
            return response(200, [JSON, cached, *self._identity(b"0"), *told[1:]], body)
        return problem(status, detail, request_id=request_id, headers=[*told, *headers])

    def _identity(
        self,
        allowed: bytes,
        *,
        user_id: bytes = b"",
        client_id: bytes = b"",
        groups: bytes = b"",
        user_properties: bytes = b"",
    ) -> list[Header]:
        return [
            (self._allowed, allowed),
            (self._user_id, user_id),
            (self._groups, groups),
            (self._user_properties, user_properties),
            (self._client_id, client_id),
        ]
