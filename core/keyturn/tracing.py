"""Traces by OpenTelemetry, sent by OTLP over HTTP as JSON: what both programs share. Nothing of it is loaded where traces are off."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keyturn import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

EXTRA = "tracing"
_EXPORT_SECONDS = 5
_QUEUE = 2048


class TracingUnavailable(Exception):
    """Traces are asked for, and the libraries for them are not installed."""


class Tracing:
    """The tracer of one program, and the end of its sending."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self.tracer: Tracer = provider.get_tracer("keyturn", __version__)

    def close(self) -> None:
        """Sends what waits, for a few seconds at most. Blocks."""
        self._provider.shutdown()


def start(service: str, endpoint: str, *, ratio: float, instance: str) -> Tracing:
    """Begins to send the spans of `service` to `endpoint`, such as `http://collector:4318/v1/traces`, in a thread.

    `ratio`: of the traces that begin here, how many are kept; one that a caller has begun is followed as the caller decided.
    A collector that does not answer costs spans, never a request: a bounded queue drops what is too much.

    Raises `TracingUnavailable`.
    """
    try:
        from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise TracingUnavailable(f"KEYTURN_TRACES_URL needs the extra `{EXTRA}` ({error})") from None
    resource = Resource.create(
        {"service.name": service, "service.version": __version__, "service.instance.id": instance}
    )
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_QUEUE, schedule_delay_millis=1000))
    return Tracing(provider)


def parent_of(headers: Mapping[str, str]) -> Any:
    """The context that W3C's `traceparent` and `tracestate` name; an empty one where they are not there or malformed."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(headers, context=Context())
