"""`POST /explain`: why a request is decided as it is, or why one was denied, for those whom RBAC allows to ask."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import orjson

from keyturn.jose.strict_json import InvalidJson, parse_object
from keyturn.records import Denial
from keyturn.rules.account import Asked
from keyturn.rules.asked import NoRequest, parse_request
from keyturn.snapshot import Snapshot
from keyturn.store.interface import StoreUnavailable
from keyturn.timestamps import format_rfc3339
from keyturn_api import denials
from keyturn_api.addresses import caller_address
from keyturn_api.denials import Denials
from keyturn_api.errors import INVALID_REQUEST, ApiError, invalid_request, unavailable
from keyturn_api.explanations import Asker, Explainer
from keyturn_api.http import JSON, NO_STORE, Receive, Response, Scope, header, problem, read_body, request_id, response
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics

_log = get_logger("explain")
MAX_ASKED: Final = 20
_MEMBERS: Final = frozenset(
    {
        *("method", "url", "client", "namespace", "token", "anonymous", "requestId"),
        *("permissions", "groups", "audiences", "backoffice", "clientType", "userProperties"),
    }
)
_TEXTS: Final = ("method", "url", "client", "namespace", "token", "requestId", "clientType")
_LISTS: Final = ("permissions", "groups", "audiences")
_DESCRIBED: Final = ("permissions", "groups", "audiences", "userProperties")


class Administrator(Protocol):
    """Somebody whom Kubernetes knows."""

    @property
    def username(self) -> str: ...


Authorize = Callable[[bytes | None, str, str], Awaitable[Administrator]]
"""From Authorization, request id and the caller's address to who asks, if RBAC allows them to `explain`. Raises `ApiError`."""


class ExplainEndpoint:
    """Answers problem JSON (RFC 9457) where it explains nothing."""

    def __init__(
        self,
        snapshot: Snapshot,
        explainer: Explainer,
        denials: Denials,
        metrics: Metrics,
        *,
        authorize: Authorize,
        max_body_bytes: int,
        namespace: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot = snapshot
        self._explainer = explainer
        self._denials = denials
        self._metrics = metrics
        self._authorize = authorize
        self._max_body_bytes = max_body_bytes
        self._namespace = namespace
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive) -> Response:
        identifier = request_id(scope)
        try:
            if scope["method"] != "POST":
                raise ApiError(405, INVALID_REQUEST, "use POST", headers=[(b"allow", b"POST")])
            if sum(name == b"authorization" for name, _ in scope["headers"]) > 1:
                raise invalid_request("more than one Authorization header")
            administrator = await self._authorize(header(scope, b"authorization"), identifier, caller_address(scope))
            asked = _read(await read_body(scope, receive, self._max_body_bytes))
            if not self._snapshot.loaded:
                raise unavailable("the service has not loaded its rules yet", reason="not_loaded")
            body = await self._denied(asked) if "requestId" in asked else await self._explained(asked)
        except ApiError as error:
            self._metrics.count("explain", "unavailable" if error.status >= 500 else "refused", scope)
            _log.info(
                "explain_refused",
                status=error.status,
                reason=error.reason,
                cause=error.cause,
                request_id=identifier,
            )
            return problem(error.status, error.description, request_id=identifier, headers=error.headers)
        self._metrics.count("explain", "ok", scope)
        _log.info("explained", who=administrator.username[:256], request_id=identifier)
        return response(200, (JSON, *NO_STORE), orjson.dumps(body))

    async def _explained(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        try:
            method, target, host = parse_request(asked.get("method", ""), asked.get("url", ""))
        except NoRequest as error:
            raise invalid_request(str(error)) from None
        question = Asked(
            method, target, host, is_backoffice=asked.get("backoffice", False), client_type=asked.get("clientType", "")
        )
        asker = await self._asker(asked)
        return self._explainer.explain(question, asker)

    async def _asker(self, asked: Mapping[str, Any]) -> Asker:
        named = [name for name in ("client", "token", "anonymous") if asked.get(name)]
        if any(name in asked for name in _DESCRIBED):
            named.append("permissions")
        if len(named) > 1:
            raise invalid_request(
                "the caller is one of client, token, anonymous, or described by permissions and groups"
            )
        if "client" in asked:
            return self._explainer.client(asked["client"], asked.get("namespace", self._namespace), self._clock())
        if "token" in asked:
            return await self._explainer.token(asked["token"].encode("utf-8", "replace"), self._clock())
        if asked.get("anonymous"):
            return self._explainer.anonymous()
        return self._explainer.described(
            permissions=asked.get("permissions", ()),
            groups=asked.get("groups", ()),
            audiences=asked.get("audiences", ()),
            user_properties=asked.get("userProperties", {}),
        )

    async def _denied(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if set(asked) != {"requestId"}:
            raise invalid_request("requestId stands alone")
        try:
            found = await self._denials.find(asked["requestId"])
        except StoreUnavailable as error:
            raise unavailable("the store does not answer", reason="store", cause=str(error)) from None
        if not found:
            raise ApiError(
                404, INVALID_REQUEST, "no denial with this id is known (any more, or yet: it takes a second)"
            )
        return {"denials": [_body_of(one) for one in found[:MAX_ASKED]], "now": self._now(found[0])}

    def _now(self, denial: Denial) -> dict[str, Any] | None:
        """What the same request would come to now: of a client with a fresh token for the same, else without a caller.

        None where the request was not kept whole, nothing is known of who made it, or a user did: of those nothing is kept.
        """
        body = denial.body
        if body.get("target") is None or body.get("method") is None or body.get("status") == 503:
            return None
        question = Asked(
            body["method"],
            body["target"].encode("latin-1"),
            body.get("host"),
            is_backoffice=bool(body.get("backoffice")),
            client_type=str(body.get("clientType") or ""),
        )
        asker = self._asker_of(body)
        return None if asker is None else self._explainer.explain(question, asker)

    def _asker_of(self, body: Mapping[str, Any]) -> Asker | None:
        match body.get("caller"):
            case denials.CLIENT:
                try:
                    return self._explainer.holder(
                        body["clientId"], body["permissions"], body["audiences"], self._clock()
                    )
                except ApiError:
                    return None
            case denials.ANONYMOUS:
                return self._explainer.anonymous()
            case denials.UNKNOWN:
                return self._explainer.unknown()
            case _:
                return None


def _body_of(denial: Denial) -> dict[str, Any]:
    told = {name: value for name, value in denial.body.items() if name != "target"}
    return {"requestId": denial.request_id, "at": format_rfc3339(denial.at), **told}


def _read(content: bytes) -> Mapping[str, Any]:
    """The question in a right form. Raises `ApiError`."""
    try:
        asked = parse_object(content)
    except InvalidJson as error:
        raise invalid_request(f"the body must be a JSON object: {error}") from None
    for name, value in asked.items():
        if name not in _MEMBERS:
            raise invalid_request(f"a member is not known; the members are {', '.join(sorted(_MEMBERS))}")
        if name in _TEXTS and not isinstance(value, str):
            raise invalid_request(f"{name} must be a string")
        if name in _LISTS and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise invalid_request(f"{name} must be a list of strings")
        if name in ("backoffice", "anonymous") and not isinstance(value, bool):
            raise invalid_request(f"{name} must be true or false")
        if name == "userProperties" and not isinstance(value, dict):
            raise invalid_request(f"{name} must be an object")
    return asked
