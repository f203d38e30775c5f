"""Envoy's `envoy.service.auth.v3.Authorization` by gRPC, which Istio and Envoy Gateway speak too.

The one module that knows the stubs, which have no types. It decides nothing: a message becomes a scope, `/auth`'s own code
answers, and the answer becomes a message.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, Final

import grpc
from envoy.service.auth.v3 import external_auth_pb2
from envoy.type.v3 import http_status_pb2
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from keyturn_api.cache import GenerationCache
from keyturn_api.errors import Header
from keyturn_api.http import Response, Scope, problem, request_id
from keyturn_api.http_protocol import TARGET
from keyturn_api.logs import get_logger
from keyturn_api.metrics import STARTED
from keyturn_api.profiles.envoy_grpc import AUTHORITY
from keyturn_api.profiles.question import CONTEXT
from keyturn_api.settings import ApiSettings

_log = get_logger("envoy_grpc")
SERVICE: Final = "envoy.service.auth.v3.Authorization"
Decide = Callable[[Scope], Response | Awaitable[Response]]

# A check holds a request's headers, and the beginning of a body only where Envoy is told to send it.
_MAX_MESSAGE: Final = 1024 * 1024
_MAX_CALLS: Final = 10_000
_ANSWERS: Final = 2000
_MIXED_HYPHENS: Final = 4
_CODES: Final = {
    200: code_pb2.OK,
    401: code_pb2.UNAUTHENTICATED,
    403: code_pb2.PERMISSION_DENIED,
    503: code_pb2.UNAVAILABLE,
}
_OVERWRITE: Final = 2  # HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


class Authorization:
    """Answers one check after the other with what `decide` (the gateway check over HTTP) answers.

    `prefix`: that of the headers which an allowed answer sets; `removed`: names of request headers that it takes out besides.
    """

    def __init__(self, decide: Decide, *, prefix: str, removed: tuple[bytes, ...]) -> None:
        self._decide = decide
        self._prefix = prefix.encode("ascii")
        self._removed = tuple(name.decode("ascii") for name in removed)
        # Allowed answers are few and the same again and again: one for each identity. Keyed by what is in them.
        self._allowed: GenerationCache[bytes, bytes] = GenerationCache(_ANSWERS)

    async def check(self, request: Any, context: Any) -> bytes:
        """The serialized CheckResponse to a CheckRequest. Never an error of gRPC's: a gateway may be told to let those pass."""
        scope = read_check(request, context.peer())
        scope[STARTED] = time.perf_counter()
        try:
            answer = self._decide(scope)
            if not isinstance(answer, Response):
                answer = await answer
        except Exception as error:  # noqa: BLE001 - the caller gets an id, the log the rest
            identifier = request_id(scope)
            _log.error("unexpected_failure", request_id=identifier, exc_info=error)
            answer = problem(500, "unexpected failure", request_id=identifier)
        if answer.status != 200:
            return denied(answer)
        if answer.body["body"]:
            # The lenient answer with an id of its own: only a setting makes it a 200.
            return allowed(answer, self._prefix, self._removed)
        head = answer.head()
        message = self._allowed.get(head)
        if message is None:
            message = allowed(answer, self._prefix, self._removed)
            self._allowed.put(head, message)
        return message


def read_check(request: Any, peer: str) -> Scope:
    """A CheckRequest as the scope that profile `envoy-grpc` reads. `peer` as gRPC writes it, such as `ipv4:192.0.2.1:4711`."""
    http = request.attributes.request.http
    headers = [(name.encode(), value.encode()) for name, value in http.headers.items()]
    # With `encode_raw_headers` Envoy sends each header by itself instead, as bytes.
    headers += [(each.key.lower().encode(), each.raw_value or each.value.encode()) for each in http.header_map.headers]
    return {
        "type": "check",
        "method": http.method,
        TARGET: http.path.encode(),
        AUTHORITY: http.host.encode(),
        "headers": headers,
        "client": read_peer(peer),
    }


def read_peer(peer: str) -> tuple[str, int] | None:
    """Address and port of gRPC's `ipv4:…` and `ipv6:…`; None for anything else, such as a Unix socket."""
    family, _, rest = peer.partition(":")
    address, _, port = rest.rpartition(":")
    if family not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return address.removeprefix("%5B").removesuffix("%5D").strip("[]"), int(port)


def allowed(answer: Response, prefix: bytes, removed: tuple[str, ...]) -> bytes:
    """The request passes, with the answer's headers of that prefix in place of the caller's own."""
    told = [(name, value) for name, value in answer.start["headers"] if name.startswith(prefix)]
    return serialized(
        status=status_pb2.Status(code=code_pb2.OK),
        ok_response=external_auth_pb2.OkHttpResponse(headers=_options(told), headers_to_remove=removed),
    )


def denied(answer: Response) -> bytes:
    """The caller gets the answer itself: status, headers and body."""
    return serialized(
        status=status_pb2.Status(code=_CODES.get(answer.status, code_pb2.INTERNAL)),
        denied_response=external_auth_pb2.DeniedHttpResponse(
            status=http_status_pb2.HttpStatus(code=answer.status),
            headers=_options((name, value) for name, value in answer.start["headers"] if name != b"content-length"),
            body=answer.body["body"].decode("utf-8", "replace"),
        ),
    )


def serialized(**members: Any) -> bytes:
    message: bytes = external_auth_pb2.CheckResponse(**members).SerializeToString()
    return message


def _options(headers: Iterable[Header]) -> list[dict[str, Any]]:
    return [
        # An empty value says that there is no identity: the header is sent as well, over the caller's own.
        {"header": _header(name, value), "append_action": _OVERWRITE, "keep_empty_value": True}
        for name, value in headers
    ]


def _header(name: bytes, value: bytes) -> dict[str, Any]:
    # Envoy does not look at `raw_value` in an answer; `value` is text, which goes out in UTF-8 as all our headers do.
    return {"key": name.decode("ascii"), "value": value.decode("utf-8", "replace")}


def removed_headers(prefix: str, *, context_headers: bool) -> tuple[bytes, ...]:
    """What never reaches the upstream from a caller: underscore aliases of the headers that the answer sets (CGI and WSGI read
    both as one), and context headers that nobody has vouched for."""
    identity = ("allowed", "userid", "groups", "userproperties", "clientid")
    aliases = {each for name in identity for each in _spellings(f"{prefix}{name}")} - {
        f"{prefix}{name}" for name in identity
    }
    context = () if context_headers else tuple(name.decode() for name in CONTEXT)
    return tuple(name.encode() for name in (*sorted(aliases), "client_type", *context))


def _spellings(name: str) -> set[str]:
    """The name with underscores for some or all of its hyphens; of very many hyphens for each, for all, and for none."""
    parts = name.split("-")
    if len(parts) - 1 > _MIXED_HYPHENS:
        each = {f"{'-'.join(parts[:at])}_{'-'.join(parts[at:])}" for at in range(1, len(parts))}
        return each | {name, "_".join(parts)}
    return {
        "".join(part + joint for part, joint in zip(parts, (*joints, ""), strict=True))
        for joints in product("-_", repeat=len(parts) - 1)
    }


def server_credentials(certificate: Path, key: Path) -> Any:
    """TLS with the service's own certificate, read anew for each connection that comes. Raises OSError where it is not there.

    gRPC keeps the last pair where the new one does not fit together.
    """

    def read() -> Any:
        return grpc.ssl_server_certificate_configuration([(key.read_bytes(), certificate.read_bytes())])

    def changed() -> Any:
        try:
            return read()
        except OSError as error:
            _log.warning("tls_certificate_unusable", cause=f"{type(error).__name__}: {error.strerror or error}")
            return None

    return grpc.dynamic_ssl_server_credentials(read(), changed)


class GrpcServer:
    """The server of one process. Several processes may listen on one port (`shared`): the kernel spreads connections."""

    def __init__(
        self, authorization: Authorization, *, address: str, shared: bool, credentials: Any | None = None
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", int(shared)),
                ("grpc.max_receive_message_length", _MAX_MESSAGE),
                ("grpc.max_send_message_length", _MAX_MESSAGE),
            ),
            maximum_concurrent_rpcs=_MAX_CALLS,
        )
        check = grpc.unary_unary_rpc_method_handler(
            authorization.check,
            request_deserializer=external_auth_pb2.CheckRequest.FromString,
            # Answers are serialized already, the allowed ones once.
            response_serializer=None,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": check}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def tell(self, *, ready: bool) -> None:
        """Sets what `grpc.health.v1.Health` answers, for the server as a whole and for the service by its name."""
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def start(self) -> None:
        """Listens. Raises OSError where the port is taken."""
        await self.tell(ready=False)
        try:
            if self._credentials is None:
                self._server.add_insecure_port(self._address)
            else:
                self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {error}") from error
        await self._server.start()
        _log.info("serving_grpc", address=self._address)

    async def stop(self, grace: float) -> None:
        """Takes no more calls; those in flight have `grace` seconds."""
        await self._server.stop(grace)


def server_for(settings: ApiSettings, decide: Decide) -> GrpcServer:
    """The server that an installation's settings ask for. Raises OSError where the certificate is not there."""
    credentials = None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        credentials = server_credentials(settings.tls_cert_file, settings.tls_key_file)
    removed = removed_headers(settings.header_prefix, context_headers=settings.context_headers)
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    return GrpcServer(
        Authorization(decide, prefix=settings.header_prefix, removed=removed),
        address=f"{host}:{settings.grpc_port}",
        shared=settings.workers > 1,
        credentials=credentials,
    )
