"""The wiring: one outer ASGI callable that serves the hot paths itself and leaves the rest to FastAPI."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.responses import Response as FastApiResponse
from starlette.exceptions import HTTPException

from keyturn import __version__
from keyturn.snapshot import Snapshot
from keyturn_api import docs, docs_page
from keyturn_api.addresses import CallerAddresses
from keyturn_api.docs_parts import answer as documented_answer
from keyturn_api.docs_parts import curl
from keyturn_api.errors import SERVER_ERROR, ApiError
from keyturn_api.http import Disconnected, Receive, Response, Scope, Send, oauth_error, problem, request_id
from keyturn_api.http_protocol import CONNECTION
from keyturn_api.logs import get_logger
from keyturn_api.metadata import (
    JWKS,
    OAUTH_METADATA,
    OPENID_CONFIGURATION,
    metadata_paths,
    oauth_metadata,
    openid_configuration,
)
from keyturn_api.metrics import STARTED, Metrics
from keyturn_api.readiness import Readiness
from keyturn_api.settings import ApiSettings

_log = get_logger("http")
Handler = Callable[[Scope], Response | Awaitable[Response]]
AsyncHandler = Callable[[Scope, Receive], Awaitable[Response]]
_UNEXPECTED: Final = "unexpected failure"
_FAILURE: Final = "keyturn.failure"
_OAUTH_PATHS: Final = ("/oauth/token", "/oauth/introspect", "/oauth/revoke", "/tokeninfo")


class Application:
    """Dispatches by the raw path. A failure that nobody expected is a 500 with an id that stands in the log."""

    def __init__(
        self,
        settings: ApiSettings,
        *,
        gateway: Handler,
        tokeninfo: Handler,
        jwks: Handler,
        token: AsyncHandler,
        introspection: AsyncHandler,
        revocation: AsyncHandler,
        explaining: AsyncHandler,
        other: FastAPI,
        metrics: Metrics,
    ) -> None:
        prefix = settings.service_prefix.encode()
        self._gateway = gateway
        self._auth_tree = prefix + b"/auth/"
        self._handlers: dict[bytes, Handler] = {
            prefix + b"/auth": gateway,
            prefix + b"/tokeninfo": tokeninfo,
            prefix + JWKS.encode(): jwks,
        }
        self._asynchronous: dict[bytes, AsyncHandler] = {
            prefix + b"/oauth/token": token,
            prefix + b"/oauth/introspect": introspection,
            prefix + b"/oauth/revoke": revocation,
            prefix + b"/explain": explaining,
        }
        self._oauth_paths = {prefix + path.encode() for path in _OAUTH_PATHS}
        self._other = other
        self._addresses = CallerAddresses(settings.trusted_proxies, settings.forwarded_header)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: bytes = scope["raw_path"]
        scope[STARTED] = time.perf_counter()
        try:
            handler = self._handlers.get(path)
            if handler is not None:
                found = handler(scope)
                answer = found if isinstance(found, Response) else await found
            elif path.startswith(self._auth_tree):
                found = self._gateway(scope)
                answer = found if isinstance(found, Response) else await found
            elif (asynchronous := self._asynchronous.get(path)) is not None:
                self._addresses.settle(scope)
                answer = await asynchronous(scope, receive)
            else:
                self._addresses.settle(scope)
                await self._framework(scope, receive, send)
                return
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - the caller gets an id, the log the rest
            answer = self._failed(scope, path, error)
        connection = scope.get(CONNECTION)
        if connection is None or not connection.write_at_once(scope, answer):
            await send(answer.start)
            await send(answer.body)

    async def _framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            answered = True
            await send(dict(message))

        try:
            await self._other(scope, receive, noted)
        except Disconnected:
            raise
        except Exception as error:
            # The framework answers first and raises then; who is answered already is not answered again.
            if not answered:
                raise
            self._failed(scope, scope["raw_path"], error)

    def _failed(self, scope: Scope, path: bytes, error: Exception) -> Response:
        identifier = _failure_id(scope)
        _log.error("unexpected_failure", request_id=identifier, exc_info=error)
        self._metrics.count("http", "failed", scope)
        if path in self._oauth_paths:
            return oauth_error(ApiError(500, SERVER_ERROR, f"unexpected failure, see the log for {identifier}"))
        return problem(500, _UNEXPECTED, request_id=identifier)


def _failure_id(scope: Scope) -> str:
    """The id of this request's failure: the same in the answer and in the log."""
    identifier: str = scope.setdefault(_FAILURE, request_id(scope))
    return identifier


def _translated(answer: Response) -> FastApiResponse:
    translated = FastApiResponse(answer.body["body"], status_code=answer.status)
    translated.raw_headers = list(answer.start["headers"])
    return translated


def build_framework(
    settings: ApiSettings, snapshot: Snapshot, readiness: Readiness, *, registration: bool = False
) -> FastAPI:
    """Documentation, metadata and probes: what is called seldom."""
    prefix = settings.service_prefix
    app = FastAPI(
        title="Keyturn",
        version=__version__,
        summary="OAuth 2.0 client credentials as Kubernetes resources.",
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{prefix}/openapi.json",
        description=docs.DESCRIPTION,
        openapi_tags=list(docs.TAGS),
        # A redirect names the scheme that is spoken here, plain HTTP behind a proxy that ends TLS: whoever follows it sends its token
        # in the clear.
        redirect_slashes=False,
    )
    docs_page.add(app, prefix)
    static = oauth_metadata(settings, registration=registration)  # read once: a file that cannot be read ends the start
    # The probes are for who is at the pod: nothing publishes them.
    at_the_pod = f"{'http' if settings.tls_cert_file is None else '--insecure https'}://127.0.0.1:{settings.http_port}"
    not_ready = documented_answer(
        "It may not: `reasons` says why.", example={"status": "not ready", "reasons": ["snapshot_not_loaded"]}
    )

    def shown(url: str) -> str:
        return curl(f"curl --fail-with-body --silent {url}").strip()

    # More than one path is one document: only the first stands in the documentation.
    places = metadata_paths(settings)
    for number, path in enumerate(places["oauth"]):

        @app.get(
            path,
            tags=["Metadata"],
            summary="Authorization server metadata (RFC 8414)",
            description=shown(f"{settings.base_url}{OAUTH_METADATA}"),
            include_in_schema=not number,
        )
        async def authorization_server() -> JSONResponse:
            return JSONResponse(static, headers={"cache-control": "public, max-age=300"})

    for number, path in enumerate(places["openid"]):

        @app.get(
            path,
            tags=["Metadata"],
            summary="OpenID Connect discovery document",
            description=shown(f"{settings.base_url}{OPENID_CONFIGURATION}"),
            include_in_schema=not number,
        )
        async def discovery() -> JSONResponse:
            document = openid_configuration(static, snapshot)
            return JSONResponse(document, headers={"cache-control": "public, max-age=300"})

    for number, root in enumerate(dict.fromkeys(("", prefix))):

        @app.get(
            f"{root}/healthz",
            tags=["Probes"],
            summary="Is the process alive?",
            description=shown(f"{at_the_pod}{root}/healthz"),
            include_in_schema=not number,
        )
        async def healthz() -> dict[str, str]:
            return {"status": "ok"}

        @app.get(
            f"{root}/readyz",
            tags=["Probes"],
            summary="May the service get requests?",
            description=shown(f"{at_the_pod}{root}/readyz"),
            responses={503: not_ready},
            include_in_schema=not number,
        )
        async def readyz() -> JSONResponse:
            reasons = readiness.refresh()
            if reasons:
                return JSONResponse({"status": "not ready", "reasons": reasons}, status_code=503)
            return JSONResponse({"status": "ok", "reasons": []})

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: Exception) -> FastApiResponse:
        assert isinstance(error, HTTPException)
        answer = problem(
            error.status_code,
            "no such endpoint" if error.status_code == 404 else str(error.detail),
            request_id=request_id(request.scope),
            headers=[(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()],
        )
        return _translated(answer)

    @app.exception_handler(Exception)
    async def fail(request: Request, _error: Exception) -> FastApiResponse:
        return _translated(problem(500, _UNEXPECTED, request_id=_failure_id(request.scope)))

    generate = app.openapi

    def documented() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = docs.add(
                generate(), prefix=prefix, base_url=settings.base_url, header_prefix=settings.header_prefix
            )
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = documented  # type: ignore[method-assign]
    return app
