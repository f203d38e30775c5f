"""Spans of requests. Only a process that sends traces loads this module: where traces are off, no request passes through it."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from keyturn.tracing import parent_of
from keyturn_api.http import Asgi, Message, Receive, Response, Scope, Send
from keyturn_api.http_protocol import CONNECTION
from keyturn_api.metrics import Metrics

# The extension of the ASGI scope that holds the request's span.
SPAN: Final = "keyturn.span"
# What is worth a span; other paths (probes, documentation) are not.
_ENDPOINTS: Final = (
    *("/auth", "/tokeninfo", "/oauth/token", "/oauth/introspect", "/oauth/revoke"),
    *("/explain", "/register", "/clients"),
)
# W3C Trace Context.
_CONTEXT: Final = (b"traceparent", b"tracestate")
_MAX_CONTEXT: Final = 1024


class TracedMetrics(Metrics):
    """Counts, and tells the request's span the same. Attributes are constants, names of rules and client ids: never a token or path."""

    def count(self, endpoint: str, outcome: str, scope: MutableMapping[str, Any] | None = None) -> None:
        super().count(endpoint, outcome, scope)
        span = None if scope is None else scope.get(SPAN)
        if span is not None:
            span.set_attribute("keyturn.endpoint", endpoint)
            span.set_attribute("keyturn.outcome", outcome)

    def decided(self, rule: str | None, reason: str, scope: MutableMapping[str, Any]) -> None:
        super().decided(rule, reason, scope)
        span = scope.get(SPAN)
        if span is not None:
            span.set_attribute("keyturn.reason", reason)
            if rule is not None:
                span.set_attribute("keyturn.rule", rule)


class TracedApplication:
    """An ASGI application with a span around each request to an endpoint."""

    def __init__(self, application: Asgi, tracer: Tracer, *, prefix: str) -> None:
        self._application = application
        self._tracer = tracer
        self._prefix = prefix.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = None if scope["type"] != "http" else self._name_of(scope["raw_path"])
        if name is None:
            await self._application(scope, receive, send)
            return
        with self._tracer.start_as_current_span(
            name, context=context_of(scope), kind=SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute("http.request.method", str(scope["method"])[:16])
            span.set_attribute("http.route", name)
            # The answer is written by way of `send`, where its status can be seen.
            inner = {key: value for key, value in scope.items() if key != CONNECTION}
            inner[SPAN] = span

            async def tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    tell_status(span, int(message["status"]))
                await send(message)

            try:
                await self._application(inner, receive, tell)
            except BaseException:
                # Its text is for the log alone.
                span.set_status(Status(StatusCode.ERROR))
                raise

    def _name_of(self, path: bytes) -> str | None:
        """The endpoint, without what stands in the path behind it."""
        if not path.startswith(self._prefix):
            return None
        own = path[len(self._prefix) :].decode("latin-1")
        for endpoint in _ENDPOINTS:
            if own == endpoint or own.startswith(f"{endpoint}/"):
                return endpoint
        return None


def traced_check(
    decide: Callable[[Scope], Response | Awaitable[Response]], tracer: Tracer
) -> Callable[[Scope], Awaitable[Response]]:
    """The gateway check by gRPC, with a span around each."""

    async def check(scope: Scope) -> Response:
        with tracer.start_as_current_span(
            "/auth",
            context=context_of(scope),
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            span.set_attribute("rpc.system", "grpc")
            scope[SPAN] = span
            try:
                found = decide(scope)
                answer = found if isinstance(found, Response) else await found
            except BaseException:
                span.set_status(Status(StatusCode.ERROR))
                raise
            tell_status(span, answer.status)
            return answer

    return check


def context_of(scope: Scope) -> Any:
    """The trace that the caller is in. Of a header that stands twice the first counts."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in _CONTEXT and len(value) <= _MAX_CONTEXT:
            found.setdefault(name.decode(), value.decode("latin-1"))
    return parent_of(found)


def tell_status(span: Span, status: int) -> None:
    """The HTTP status; only a failure of ours is an error of the span."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
