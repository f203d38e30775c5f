"""The routes of registration within the framework, with their documentation."""

from collections.abc import Awaitable
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Request
from fastapi.responses import Response as FastApiResponse

from keyturn_api import registration_docs as docs
from keyturn_api.client_configuration import ClientConfiguration
from keyturn_api.errors import INVALID_REQUEST, SERVER_ERROR, ApiError
from keyturn_api.http import Disconnected, Response, oauth_error, request_id
from keyturn_api.logs import get_logger
from keyturn_api.metrics import Metrics
from keyturn_api.registration import Registration

_log = get_logger("registration")
REGISTER: Final = "/register"
CLIENTS: Final = "/clients"
_ALL: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def add_routes(
    app: FastAPI,
    prefix: str,
    metrics: Metrics,
    *,
    base_url: str,
    registration: Registration | None,
    configuration: ClientConfiguration | None,
    clients: Registration | None,
) -> None:
    """Adds what this installation has: without registration or administration their paths are not there.

    `base_url`: where callers reach the service, for the commands that are shown.
    """

    async def answered(request: Request, endpoint: str, work: Awaitable[Response]) -> FastApiResponse:
        identifier = request_id(request.scope)
        try:
            answer = await work
            metrics.count(endpoint, "ok", request.scope)
        except ApiError as error:
            metrics.count(endpoint, error.code, request.scope)
            _log.info("refused", endpoint=endpoint, error=error.code, reason=error.reason, request_id=identifier)
            answer = oauth_error(error)
        except Disconnected:
            return FastApiResponse(status_code=400)
        except Exception as error:  # noqa: BLE001 - the caller gets an id, the log the rest
            _log.error("unexpected_failure", request_id=identifier, exc_info=error)
            metrics.count("http", "failed")
            answer = oauth_error(ApiError(500, SERVER_ERROR, f"unexpected failure, see the log for {identifier}"))
        translated = FastApiResponse(answer.body["body"], status_code=answer.status)
        translated.raw_headers = list(answer.start["headers"])
        return translated

    def refuse_others(path: str, *allowed: str) -> None:
        async def not_allowed(request: Request) -> FastApiResponse:
            allow = ", ".join(allowed).encode()
            error = ApiError(405, INVALID_REQUEST, f"use {' or '.join(allowed)}", headers=[(b"allow", allow)])

            async def refuse() -> Response:
                raise error

            return await answered(request, "registration", refuse())

        app.add_api_route(path, not_allowed, methods=sorted(_ALL - set(allowed)), include_in_schema=False)

    shared: dict[str, Any] = {"tags": [docs.TAG["name"]], "response_class": FastApiResponse}
    one = f"{prefix}{REGISTER}/{{client_id}}"
    client_id = Annotated[str, Path(description="The client's id.")]

    if registration is not None:

        async def register(request: Request) -> FastApiResponse:
            return await answered(request, "register", registration.register(request.scope, request.receive))

        app.add_api_route(
            f"{prefix}{REGISTER}",
            register,
            methods=["POST"],
            summary="Register a client (RFC 7591)",
            description="Makes a ClientCredential that grants nothing until somebody approves it. Once the answer is there, the client "
            "can get tokens. Who may register: see the mode of this installation; mostly whoever has an initial access token."
            f"{docs.register_command(base_url + REGISTER)}",
            status_code=201,
            responses={201: docs.information("The client."), **docs.errors(400, 401, 405, 413, 429)},
            openapi_extra={
                "requestBody": docs.body("ClientMetadata", docs.REGISTER_EXAMPLES),
                "security": [{"initialAccessToken": []}, {}],
            },
            **shared,
        )
        refuse_others(f"{prefix}{REGISTER}", "POST")

    if configuration is not None:

        async def read(request: Request, client_id: client_id) -> FastApiResponse:
            return await answered(request, "registration", configuration.read(client_id, request.scope))

        async def update(request: Request, client_id: client_id) -> FastApiResponse:
            work = configuration.update(client_id, request.scope, request.receive)
            return await answered(request, "registration", work)

        async def delete(request: Request, client_id: client_id) -> FastApiResponse:
            return await answered(request, "registration", configuration.delete(client_id, request.scope))

        security: dict[str, Any] = {"security": [{"registrationToken": []}]}
        nobody = docs.no_such_client_path()
        app.add_api_route(
            one,
            read,
            methods=["GET"],
            summary="Read one's own registration (RFC 7592)",
            description=f"What is registered, with what was granted.{docs.read_command()}",
            responses={200: docs.information("The client."), **docs.errors(401, 403, 405), **nobody},
            openapi_extra=security,
            **shared,
        )
        app.add_api_route(
            one,
            update,
            methods=["PUT"],
            summary="Change one's own keys and description (RFC 7592)",
            description="Replaces them, and the registration token: the answer has the new one. To change keys without a gap, send the new "
            "key beside the old one in `jwks`, use it, then send it alone."
            f"{docs.update_command()}",
            responses={200: docs.information("The client."), **docs.errors(400, 401, 403, 405, 413, 429), **nobody},
            openapi_extra={"requestBody": docs.body("ClientUpdate", docs.UPDATE_EXAMPLES), **security},
            **shared,
        )
        app.add_api_route(
            one,
            delete,
            methods=["DELETE"],
            summary="Delete one's own registration (RFC 7592)",
            description=f"Tokens of the client no longer count when the answer is there.{docs.delete_command()}",
            status_code=204,
            responses={
                204: {"description": "The client is gone."},
                **docs.errors(
                    *(401, 403, 405),
                    unavailable="The client may be deleted already, and its tokens may count for a moment. Try again: see Retry-After; "
                    "a 401 then says that it is gone.",
                ),
                **nobody,
            },
            openapi_extra=security,
            **shared,
        )
        refuse_others(one, "GET", "PUT", "DELETE")

    if clients is not None:

        async def create(request: Request) -> FastApiResponse:
            return await answered(request, "clients", clients.create(request.scope, request.receive))

        app.add_api_route(
            f"{prefix}{CLIENTS}",
            create,
            methods=["POST"],
            summary="Make a client, as an internal caller",
            description="For callers that Kubernetes RBAC lets create ClientCredentials in the installation's namespace."
            f"{docs.clients_command(base_url + CLIENTS)}",
            status_code=201,
            responses={201: docs.information("The client."), **docs.errors(400, 401, 403, 405, 413, 429)},
            openapi_extra={
                "requestBody": docs.body("InternalClient", docs.CLIENTS_EXAMPLES),
                "security": [{"kubernetesToken": []}],
            },
            **shared,
        )
        refuse_others(f"{prefix}{CLIENTS}", "POST")
