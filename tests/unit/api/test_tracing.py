"""Spans of requests: what they say, whose child they are, and what never stands in them."""

import subprocess
import sys
from collections.abc import Awaitable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from keyturn import tracing
from keyturn_api.http import JSON, Message, Response, response
from keyturn_api.tracing import SPAN, TracedApplication, TracedMetrics, traced_check

TRACE, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = (b"traceparent", f"00-{TRACE}-{SPAN_ID}-01".encode())
SECRET = b"eyJhbGciOiJSUzI1NiJ9.a-token"


class Traced:
    """An application that answers with a status, or fails, and the spans that came of it."""

    def __init__(self, status: int = 200, *, error: Exception | None = None, prefix: str = "") -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.metrics = TracedMetrics(CollectorRegistry())
        self._status, self._error = status, error
        self.scopes: list[Any] = []
        self.sent: list[Message] = []
        self.application = TracedApplication(self._answer, self.tracer, prefix=prefix)

    async def _answer(self, scope: Any, _receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if self._error is not None:
            raise self._error
        self.metrics.count("auth", "forbidden", scope)
        self.metrics.decided("team/orders", "MissingPermission", scope)
        answer = response(self._status, [JSON], b"{}")
        await send(answer.start)
        await send(answer.body)

    async def ask(self, path: bytes, *headers: tuple[bytes, bytes], kind: str = "http") -> list[ReadableSpan]:
        scope = {
            "type": kind,
            "method": "GET",
            "raw_path": path,
            "query_string": b"secret=in-the-query",
            "headers": [(b"authorization", b"Bearer " + SECRET), *headers],
            "keyturn.connection": object(),
        }

        async def receive() -> Message:
            raise AssertionError

        async def send(message: Message) -> None:
            self.sent.append(message)

        await self.application(scope, receive, send)
        return list(self.exporter.get_finished_spans())


async def test_a_span_tells_endpoint_outcome_reason_rule_and_status() -> None:
    traced = Traced(403)
    (span,) = await traced.ask(b"/auth/orders/4711")
    assert (span.name, span.kind) == ("/auth", SpanKind.SERVER)
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/auth",
        "http.response.status_code": 403,
        "keyturn.endpoint": "auth",
        "keyturn.outcome": "forbidden",
        "keyturn.reason": "MissingPermission",
        "keyturn.rule": "team/orders",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert [one["type"] for one in traced.sent] == ["http.response.start", "http.response.body"]


async def test_no_token_query_or_path_stands_in_a_span() -> None:
    (span,) = await Traced().ask(b"/auth/orders/4711")
    told = span.to_json()
    for secret in (SECRET.decode(), "in-the-query", "4711", "orders/"):
        assert secret not in told


@pytest.mark.parametrize(
    ("header", "followed"),
    [
        pytest.param(PARENT, True, id="the gateway's trace is followed"),
        pytest.param((b"traceparent", b"00-nonsense"), False, id="what is no context begins a new trace"),
        pytest.param((b"traceparent", PARENT[1] + b"-" * 2000), False, id="one that is too long too"),
    ],
)
async def test_the_context_of_the_caller(header: tuple[bytes, bytes], followed: bool) -> None:
    (span,) = await Traced().ask(b"/tokeninfo", header)
    assert span.context is not None
    assert (span.parent is not None) == followed
    assert (f"{span.context.trace_id:032x}" == TRACE) == followed
    if span.parent is not None:
        assert f"{span.parent.span_id:016x}" == SPAN_ID


async def test_a_trace_that_the_gateway_does_not_record_is_not_recorded_here() -> None:
    assert await Traced().ask(b"/tokeninfo", (PARENT[0], PARENT[1][:-1] + b"0")) == []


@pytest.mark.parametrize(
    ("prefix", "path", "names"),
    [
        pytest.param("", b"/oauth/token", ["/oauth/token"], id="tokens"),
        pytest.param(
            "/oauth2", b"/oauth2/register/some-client", ["/register"], id="behind a prefix, without the client"
        ),
        pytest.param("/oauth2", b"/auth", [], id="not below the prefix"),
        pytest.param("", b"/healthz", [], id="probes have none"),
        pytest.param("", b"/authority", [], id="only whole segments count"),
    ],
)
async def test_which_requests_have_a_span(prefix: str, path: bytes, names: list[str]) -> None:
    traced = Traced(prefix=prefix)
    assert [one.name for one in await traced.ask(path)] == names
    # Without a span the scope goes on as it is, with its way to answer at once.
    assert (SPAN in traced.scopes[0]) == bool(names)
    assert ("keyturn.connection" in traced.scopes[0]) != bool(names)


async def test_what_is_not_http_passes_by() -> None:
    assert await Traced().ask(b"/auth", kind="websocket") == []


@pytest.mark.parametrize(("status", "code"), [(503, StatusCode.ERROR), (401, StatusCode.UNSET)])
async def test_only_our_own_failure_is_an_error(status: int, code: StatusCode) -> None:
    (span,) = await Traced(status).ask(b"/auth")
    assert span.status.status_code is code


async def test_an_exception_passes_and_leaves_no_text_in_the_span() -> None:
    traced = Traced(error=ValueError("with something secret"))
    with pytest.raises(ValueError, match="secret"):
        await traced.ask(b"/auth")
    (span,) = traced.exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()


@pytest.mark.parametrize("later", [False, True], ids=["an answer at once", "an answer later"])
async def test_a_check_by_grpc_has_a_span_too(later: bool) -> None:
    traced = Traced()

    def decide(scope: Any) -> Response | Awaitable[Response]:
        traced.metrics.count("auth", "unavailable", scope)

        async def wait() -> Response:
            return response(503, ())

        return wait() if later else response(503, ())

    answer = await traced_check(decide, traced.tracer)({"type": "check", "headers": [PARENT]})
    assert answer.status == 503
    (span,) = traced.exporter.get_finished_spans()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert (span.attributes or {})["keyturn.outcome"] == "unavailable"
    assert span.status.status_code is StatusCode.ERROR


def test_where_traces_are_off_nothing_of_them_is_loaded() -> None:
    script = (
        "import sys, keyturn_api.service as service, keyturn_api.worker, keyturn_operator.main\n"
        "from keyturn_api.settings import ApiSettings\n"
        "settings = ApiSettings(issuer='https://issuer.example', store_url='memory://')\n"
        "tracing = service.start_tracing(settings)\n"
        "application = object()\n"
        "assert tracing is None\n"
        "assert service.traced(application, settings, tracing) is application\n"
        "assert type(service.make_metrics(settings, tracing)).__name__ == 'Metrics'\n"
        "loaded = [one for one in sys.modules if one.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]\n"
        "loaded += [one for one in sys.modules if one.endswith('_api.tracing') or one.endswith('_operator.tracing')]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_without_the_libraries_the_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.json.http.trace_exporter", None)
    with pytest.raises(tracing.TracingUnavailable, match="extra `tracing`"):
        tracing.start("keyturn-api", "http://127.0.0.1:1/v1/traces", ratio=1, instance="here")
